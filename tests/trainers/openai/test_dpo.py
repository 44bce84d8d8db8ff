"""Against a server on this machine, with the real client. A job costs money: that no second one is created is asserted
on the server's own records.
"""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, StatusUnknown, TrainingData
from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend, OpenAIPauses
from nat_dpo_pipeline.trainers.openai.settings import OpenAISettings
from tests.servers.fine_tuning import KEY, After, FineTuningServer, message_event, metrics_event, serving

MODEL = "gpt-4.1-mini-2025-04-14"
CREATE = "POST /fine_tuning/jobs"
LIST = "GET /fine_tuning/jobs"
PAUSES = OpenAIPauses(file_poll=0.01, file_wait=5.0, looks=(0.01, 0.01, 0.01))
ROWS = [PreferenceRow(f"question {n}", f"good {n}", f"bad {n}") for n in range(12)]
HELD_OUT = [PreferenceRow("held out", "good", "bad")]


@pytest.fixture(scope="module")
def running_server() -> Iterator[FineTuningServer]:
    with serving(FineTuningServer()) as running:
        yield running


@pytest.fixture
def server(running_server: FineTuningServer) -> FineTuningServer:
    running_server.start_over()
    return running_server


def _backend(server: FineTuningServer, pauses: OpenAIPauses = PAUSES, **settings: Any) -> OpenAIBackend:
    known = {"model": MODEL, "base_url": server.url, "api_key": KEY}
    return OpenAIBackend(OpenAISettings(**known | settings), pauses)


def _data(train: list[PreferenceRow] = ROWS, validation: list[PreferenceRow] = HELD_OUT) -> TrainingData:
    return TrainingData("run-1", {SplitName.TRAIN: train, SplitName.VALIDATION: validation}, seed=7)


def _job(server: FineTuningServer, **values: Any) -> Job:
    return Job("openai", server.add_job(**values), "run-1")


# --- check


async def test_a_key_that_may_list_jobs_is_good_enough(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nat_dpo_pipeline"):
        await _backend(server).check()
    assert server.requests == [LIST, f"GET /models/{MODEL}"]
    assert caplog.messages == []


async def test_a_model_that_is_not_listed_may_be_trained_all_the_same(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nat_dpo_pipeline"):
        await _backend(server, model="mine").check()
    assert caplog.messages == [f"the fine-tuning API at {server.url} does not say whether it can train model 'mine'"]


@pytest.mark.parametrize("missing", [["/fine_tuning/jobs"], ["/models"]])
async def test_a_server_that_lacks_a_route_is_not_refused(server: FineTuningServer, missing: list[str]) -> None:
    server.missing.update(missing)
    await _backend(server).check()


async def test_a_server_without_any_of_the_routes_is_a_wrong_address(server: FineTuningServer) -> None:
    server.missing.update(["/fine_tuning/jobs", "/models"])
    with pytest.raises(ConfigurationError, match=rf"at {server.url} has no list of jobs or models: check its base_url"):
        await _backend(server).check()


async def test_a_web_page_is_a_wrong_address(server: FineTuningServer) -> None:
    server.faults[LIST].append(After.PAGE)
    with pytest.raises(
        TrainingError,
        match=r"what cannot be read when asked for its jobs: a list that is not JSON \(check its base_url\)",
    ):
        await _backend(server).check()


async def test_a_wrong_key_is_told_and_not_repeated(server: FineTuningServer) -> None:
    with pytest.raises(TrainingError) as caught:
        await _backend(server, api_key="sk-of-mine").check()
    assert str(caught.value) == (
        f"the fine-tuning API at {server.url} answered 401 when asked for its jobs: Incorrect API key provided: *** "
        "(check its api_key)"
    )


async def test_a_missing_permission_is_told(server: FineTuningServer) -> None:
    server.faults[LIST].append(403)
    with pytest.raises(
        TrainingError, match=r"answered 403 when asked for its jobs: the server says 403 .*may not fine-tune there"
    ):
        await _backend(server).check()


async def test_nobody_at_the_address_is_told() -> None:
    settings = OpenAISettings(
        model=MODEL, base_url="http://user:secret@127.0.0.1:9/v1?key=hidden", api_key=KEY, request_timeout=5
    )
    with pytest.raises(TrainingError) as caught:
        await OpenAIBackend(settings).check()
    told = str(caught.value)
    assert "http://127.0.0.1:9/v1 cannot be reached" in told
    assert not any(secret in told for secret in ("secret", "hidden", KEY))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base_url": "api.openai.com/v1"}, "base_url must be like https://host/v1, got 'api.openai.com/v1'"),
        ({"base_url": "https://api.openai.com/v1", "api_key": ""}, "needs a key: set OPENAI_API_KEY or api_key"),
        ({"api_key": "sk-\u2026"}, "holds characters that no key has"),
        ({"api_key": "sk-one\nsk-two"}, "holds characters that no key has"),
    ],
)
async def test_what_cannot_work_is_told_without_a_request(
    server: FineTuningServer, settings: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        await _backend(server, **settings).check()
    assert server.requests == []


def test_a_key_is_not_shown_with_the_settings() -> None:
    assert "sk-" not in repr(OpenAISettings(model=MODEL, base_url="https://host/v1", api_key="sk-mine"))


# --- submit


async def test_a_job_is_created_from_two_files(server: FineTuningServer) -> None:
    hyperparameters = {"beta": 0.2, "n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    backend = _backend(server, suffix="mine", **hyperparameters)
    job = await backend.submit(_data())
    assert server.created == [
        {
            "model": MODEL,
            "training_file": "file-0",
            "validation_file": "file-1",
            "method": {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
            "seed": 7,
            "suffix": "mine",
            "metadata": {"run_id": "run-1"},
        }
    ]
    names = [(file["filename"], file["purpose"]) for file in server.files.values()]
    assert names == [("run-1-training.jsonl", "fine-tune"), ("run-1-validation.jsonl", "fine-tune")]
    assert server.rows(0)[0] == {
        "input": {
            "messages": [{"role": "user", "content": "question 0"}],
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": "good 0"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad 0"}],
    }
    assert (len(server.rows(0)), len(server.rows(1))) == (12, 1)
    assert (job.backend, job.id, job.run_id) == ("openai", "ftjob-0", "run-1")
    assert job.facts == {
        "base_url": server.url,
        "model": MODEL,
        "training_file": "file-0",
        "validation_file": "file-1",
        "rows": {"train": 12, "validation": 1},
        "refused": {},
    }
    assert KEY not in json.dumps(job.facts)
    assert server.deleted == []


async def test_without_held_out_rows_there_is_one_file(server: FineTuningServer) -> None:
    job = await _backend(server).submit(_data(validation=[]))
    assert "validation_file" not in server.created[0]
    assert len(server.files) == 1
    assert job.facts["validation_file"] is None


async def test_extra_body_goes_over_the_request(server: FineTuningServer) -> None:
    azure = {"method": {"type": "dpo", "dpo": {"beta": 0.1, "l2_multiplier": 0.1}}, "trainingType": "globalStandard"}
    await _backend(server, extra_body=azure).submit(_data())
    assert server.created[0]["method"] == azure["method"]
    assert server.created[0]["trainingType"] == "globalStandard"
    assert server.created[0]["metadata"] == {"run_id": "run-1"}


async def test_the_query_of_the_address_goes_with_every_request(server: FineTuningServer) -> None:
    backend = _backend(server, base_url=f"{server.url}/?api-version=preview")
    await backend.submit(_data())
    assert server.queries
    assert all("api-version=preview" in query for query in server.queries)


async def test_rows_that_cannot_be_used_are_left_out_and_counted(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    unfit = [
        PreferenceRow("same", "equal ", "equal"),
        PreferenceRow("empty", "good", " \n"),
        PreferenceRow(" ", "good", "bad"),
        PreferenceRow((Message("tool", "42"),), "good", "bad"),
        PreferenceRow("half a pair", "good \ud800", "bad"),
    ]
    both = PreferenceRow("question 1", "another", "answer")
    job = await _backend(server).submit(_data(ROWS + unfit, [*HELD_OUT, both]))
    assert job.facts["rows"] == {"train": 12, "validation": 1}
    assert job.facts["refused"] == {
        "equal_sides": 1,
        "empty_answer": 1,
        "empty_prompt": 1,
        "unknown_role": 1,
        "invalid_unicode": 1,
        "prompt_on_both_sides": 1,
    }
    assert "left out of what is trained on: " in caplog.text
    assert "1 prompt_on_both_sides" in caplog.text


async def test_too_few_rows_are_not_sent(server: FineTuningServer) -> None:
    rows = [*ROWS[:9], PreferenceRow("same", "equal", "equal")]
    with pytest.raises(TrainingError, match="9 rows to train on, and min_rows is 10; left out: 1 equal_sides"):
        await _backend(server).submit(_data(rows))
    assert server.requests == []
    await _backend(server, min_rows=9).submit(_data(rows))
    assert len(server.created) == 1


async def test_a_file_that_cannot_be_processed_ends_the_submission(server: FineTuningServer) -> None:
    server.file_states, server.file_details = ["uploaded", "error"], "line 3 is no\nexample"
    with pytest.raises(TrainingError, match="cannot use the train file: line 3 is no example"):
        await _backend(server).submit(_data())
    assert server.created == []
    assert server.deleted == ["file-0", "file-1"]


async def test_a_file_that_is_never_processed_is_given_up(server: FineTuningServer) -> None:
    server.file_states = ["uploaded"]
    with pytest.raises(TrainingError, match=r"did not process the train file within 0\.05 s"):
        await _backend(server, pauses=OpenAIPauses(file_poll=0.01, file_wait=0.05)).submit(_data())
    assert server.created == []
    assert server.deleted == ["file-0", "file-1"]


async def test_an_upload_that_fails_leaves_nothing_behind(server: FineTuningServer) -> None:
    server.faults["POST /files"].extend([413])
    with pytest.raises(TrainingError, match=r"answered 413 when sent training\.jsonl"):
        await _backend(server).submit(_data())
    assert server.created == []


async def test_a_page_in_place_of_a_file_is_told(server: FineTuningServer) -> None:
    server.faults["POST /files"].append(After.PAGE)
    with pytest.raises(TrainingError, match=r"answered with something that is no file when sent training\.jsonl"):
        await _backend(server).submit(_data())
    assert server.created == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429])
async def test_a_refused_job_is_told_and_its_files_are_deleted(server: FineTuningServer, status: int) -> None:
    server.faults[CREATE].append(status)
    with pytest.raises(TrainingError, match=rf"answered {status} when sent a job: the server says {status}"):
        await _backend(server).submit(_data())
    assert server.asked(CREATE) == 1
    assert server.created == []
    assert server.deleted == ["file-0", "file-1"]


# --- a job is created once


@pytest.mark.parametrize("keeps_metadata", [True, False])
@pytest.mark.parametrize("fault", After)
async def test_a_job_whose_creation_was_not_confirmed_is_found(
    server: FineTuningServer, fault: After, keeps_metadata: bool
) -> None:
    server.faults[CREATE].append(fault)
    server.keeps_metadata = keeps_metadata
    backend = _backend(server, request_timeout=0.5 if fault is After.SILENCE else 120.0)
    job = await backend.submit(_data())
    assert job.id == "ftjob-0"
    assert job.facts["rows"] == {"train": 12, "validation": 1}
    assert len(server.created) == server.asked(CREATE) == 1
    assert server.deleted == []


async def test_a_job_that_is_listed_late_and_on_a_later_page_is_found(server: FineTuningServer) -> None:
    server.faults[CREATE].append(After.ERROR_500)
    server.hidden_looks = 2
    server.others_after_creation = 230
    job = await _backend(server).submit(_data())
    assert job.id == "ftjob-0"
    assert len(server.created) == server.asked(CREATE) == 1


async def test_looking_goes_on_when_it_fails_once(server: FineTuningServer) -> None:
    server.faults[CREATE].append(After.ERROR_500)
    server.faults_after_creation[LIST].extend([403, After.PAGE])
    assert (await _backend(server).submit(_data())).id == "ftjob-0"
    assert len(server.created) == server.asked(CREATE) == 1


async def test_a_job_that_is_not_found_is_not_sent_again(server: FineTuningServer) -> None:
    server.faults[CREATE].append(500)
    with pytest.raises(TrainingError) as caught:
        await _backend(server).submit(_data())
    assert str(caught.value) == (
        f"the fine-tuning API at {server.url} answered 500 when sent a job: the server says 500; no job of this run is "
        "listed there, and it was not sent again, as a second job would be paid for too: before you start again look "
        "there for one with run_id run-1 in its metadata"
    )
    assert server.asked(CREATE) == 1
    assert server.deleted == [], "a job that appears late would need its files"


async def test_a_job_that_cannot_be_looked_for_is_not_sent_again(server: FineTuningServer) -> None:
    server.faults[CREATE].append(After.LOST_CONNECTION)
    server.faults_after_creation[LIST].extend([403] * 3)
    with pytest.raises(
        TrainingError, match=r"cannot be reached.*; its jobs could not be listed, and it was not sent again"
    ):
        await _backend(server).submit(_data())
    assert len(server.created) == server.asked(CREATE) == 1


async def test_a_run_that_is_submitted_again_finds_its_job(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(120):
        server.add_job(metadata={"run_id": "another"})
    first = await _backend(server).submit(_data())
    for _ in range(120):
        server.add_job(metadata=None)
    again = await _backend(server).submit(_data())
    assert again.id == first.id
    assert again.facts["training_file"] == first.facts["training_file"]
    assert len(server.created) == server.asked(CREATE) == 1
    assert len(server.files) == 2
    assert f"job {first.id} of run run-1 is there already" in caplog.text


async def test_a_server_that_does_not_list_jobs_gets_one_all_the_same(server: FineTuningServer) -> None:
    server.faults[LIST].append(405)
    assert (await _backend(server).submit(_data())).id == "ftjob-0"


@pytest.mark.parametrize("fault", [None, After.ERROR_500])
async def test_a_job_whose_creation_is_interrupted_is_cancelled(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture, fault: After | None
) -> None:
    if fault is not None:
        server.faults[CREATE].append(fault)
    submitting = asyncio.create_task(_backend(server).submit(_data()))
    server.on_create = lambda: loop.call_soon_threadsafe(submitting.cancel)
    loop = asyncio.get_running_loop()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert len(server.created) == server.asked(CREATE) == 1
    assert server.jobs["ftjob-0"]["status"] == "cancelled"
    assert "job ftjob-0 was cancelled" in caplog.text


async def test_an_interruption_tells_that_a_job_may_have_been_left(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults[CREATE].append(After.ERROR_500)
    server.hidden_looks = 99
    submitting = asyncio.create_task(_backend(server).submit(_data()))
    loop = asyncio.get_running_loop()
    server.on_create = lambda: loop.call_soon_threadsafe(submitting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert "no job of this run is listed there, and it was not sent again" in caplog.text
    assert len(server.created) == server.asked(CREATE) == 1


# --- status


async def test_a_job_is_followed_to_its_model(server: FineTuningServer) -> None:
    job, backend = _job(server, model="m"), _backend(server)
    states = [await backend.status(job) for _ in range(4)]
    assert states == [
        JobStatus(JobState.PENDING, "validating_files"),
        JobStatus(JobState.PENDING, "queued"),
        JobStatus(JobState.RUNNING),
        JobStatus(JobState.SUCCEEDED, progress=100.0, metrics={"trained_tokens": 1234.0}, result="ft:m:mine"),
    ]


async def test_progress_and_metrics_come_from_the_newest_event_that_tells_them(server: FineTuningServer) -> None:
    server.states = ["running"]
    server.events = [
        message_event("Evaluating"),
        metrics_event(30, 40, train_loss=0.25, train_accuracy=float(1)),
        metrics_event(10, 40, train_loss=0.69),
    ]
    assert await _backend(server).status(_job(server)) == JobStatus(
        JobState.RUNNING,
        "Evaluating",
        progress=75.0,
        metrics={"step": 30.0, "total_steps": 40.0, "train_loss": 0.25, "train_accuracy": 1.0},
    )


@pytest.mark.parametrize(
    "events",
    [
        [],
        [message_event("Created")],
        [metrics_event(3, None)],
        [metrics_event(3, 0)],
        [metrics_event(3, 2)],
        [{"id": "e", "data": "text"}, {"id": "e", "data": {"step": "3", "total_steps": True}}],
    ],
    ids=["none", "message", "no total", "total of 0", "more than all", "no numbers"],
)
async def test_progress_that_is_not_told_is_unknown(server: FineTuningServer, events: list[dict[str, Any]]) -> None:
    server.states, server.events = ["running"], events
    status = await _backend(server).status(_job(server))
    assert (status.state, status.progress) == (JobState.RUNNING, None)


@pytest.mark.parametrize("said", ["paused", "compressing", "RUNNING"])
async def test_a_status_that_is_not_known_is_told_and_taken_for_running(server: FineTuningServer, said: str) -> None:
    server.states = [said]
    assert await _backend(server).status(_job(server)) == JobStatus(JobState.RUNNING, said)


@pytest.mark.parametrize("said", ["cancelled", "canceled"])
async def test_a_cancelled_job_has_ended(server: FineTuningServer, said: str) -> None:
    server.states = [said]
    assert (await _backend(server).status(_job(server))).state is JobState.CANCELED


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            {"code": "invalid_n_examples", "message": "has 2 examples,\nneeds 10", "param": "training_file"},
            "invalid_n_examples: has 2 examples, needs 10 (training_file)",
        ),
        ({"code": "server_error", "message": "out of memory", "param": None}, "server_error: out of memory"),
        ({"code": None, "message": "out of memory"}, "out of memory"),
        ({"message": f"key {KEY} has expired"}, "key *** has expired"),
        (None, None),
        ({}, None),
    ],
)
async def test_a_failed_job_says_why(server: FineTuningServer, error: dict[str, Any] | None, told: str | None) -> None:
    server.states, server.job_error = ["failed"], error
    assert await _backend(server).status(_job(server)) == JobStatus(JobState.FAILED, told)


async def test_an_ended_job_tells_its_checkpoints(server: FineTuningServer) -> None:
    server.states = ["succeeded"]
    server.checkpoints = [
        {
            "id": "ftckpt-1",
            "object": "fine_tuning.job.checkpoint",
            "created_at": 0,
            "fine_tuning_job_id": "ftjob-0",
            "fine_tuned_model_checkpoint": "ft:m:mine:ckpt-step-20",
            "step_number": 20,
            "metrics": {"train_loss": 0.4, "valid_loss": None},
        },
        {"id": "ftckpt-2"},
    ]
    status = await _backend(server).status(_job(server))
    assert status.facts == {
        "checkpoints": [
            {"model": "ft:m:mine:ckpt-step-20", "step": 20, "metrics": {"train_loss": 0.4}},
            {"model": None, "step": None, "metrics": {}},
        ]
    }


async def test_a_server_without_events_and_checkpoints_is_enough(server: FineTuningServer) -> None:
    job = _job(server)
    server.states = ["succeeded"]
    server.missing.update(f"/fine_tuning/jobs/{job.id}/{part}" for part in ("events", "checkpoints"))
    assert (await _backend(server).status(job)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, After.LOST_CONNECTION, After.PAGE])
async def test_a_failure_that_may_pass_leaves_the_status_unknown(server: FineTuningServer, fault: int | After) -> None:
    job = _job(server)
    server.faults[f"GET /fine_tuning/jobs/{job.id}"].append(fault)
    with pytest.raises(StatusUnknown, match="fine-tuning API at"):
        await _backend(server).status(job)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_failure_that_will_not_pass_ends_the_waiting(server: FineTuningServer, status: int) -> None:
    job = _job(server)
    server.faults[f"GET /fine_tuning/jobs/{job.id}"].append(status)
    with pytest.raises(TrainingError, match=f"answered {status}") as caught:
        await _backend(server).status(job)
    assert not isinstance(caught.value, StatusUnknown)


# --- cancel and cleanup


async def test_a_running_job_is_cancelled(server: FineTuningServer) -> None:
    server.states = ["running"]
    job, backend = _job(server), _backend(server)
    await backend.cancel(job)
    assert (await backend.status(job)).state is JobState.CANCELED


async def test_cancelling_a_job_that_has_ended_is_no_error(server: FineTuningServer) -> None:
    job = _job(server, status="succeeded")
    await _backend(server).cancel(job)
    assert server.jobs[job.id]["status"] == "succeeded"


async def test_a_job_that_goes_on_although_it_was_to_be_cancelled_is_an_error(server: FineTuningServer) -> None:
    job = _job(server, status="running")
    server.faults[f"POST /fine_tuning/jobs/{job.id}/cancel"].append(400)
    with pytest.raises(TrainingError, match=f"answered 400 when asked to cancel job {job.id}"):
        await _backend(server).cancel(job)


async def test_a_job_that_is_not_there_cannot_be_cancelled(server: FineTuningServer) -> None:
    with pytest.raises(TrainingError, match="answered 404"):
        await _backend(server).cancel(Job("openai", "ftjob-9", "run-1"))


@pytest.mark.parametrize(
    ("delete_files", "state", "deleted"),
    [(False, "succeeded", []), (True, "running", []), (True, "failed", ["file-0", "file-1"])],
)
async def test_files_are_deleted_if_that_is_wanted_and_their_job_has_ended(
    server: FineTuningServer, delete_files: bool, state: str, deleted: list[str]
) -> None:
    backend = _backend(server, delete_files=delete_files)
    server.states = [state]
    job = await backend.submit(_data())
    await backend.cleanup(job)
    assert server.deleted == deleted


async def test_files_that_cannot_be_deleted_are_told_and_no_error(
    server: FineTuningServer, caplog: pytest.LogCaptureFixture
) -> None:
    backend = _backend(server, delete_files=True)
    server.states = ["succeeded"]
    job = await backend.submit(_data())
    server.faults["DELETE /files/file-0"].append(404)
    server.faults["DELETE /files/file-1"].append(403)
    with caplog.at_level(logging.WARNING):
        await backend.cleanup(job)
    told = [message for message in caplog.messages if "asked to delete" in message]
    assert len(told) == 1
    assert "answered 403 when asked to delete file file-1" in told[0]


async def test_a_job_is_followed_by_a_back_end_that_did_not_create_it(server: FineTuningServer, tmp_path: Path) -> None:
    job = await _backend(server).submit(_data())
    saved = tmp_path / "job.json"
    saved.write_text(json.dumps({"backend": job.backend, "id": job.id, "run_id": job.run_id, "facts": job.facts}))
    loaded = Job(**json.loads(saved.read_text()))
    assert loaded == job
    assert (await _backend(server).status(loaded)).state is JobState.PENDING

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow
from nat_dpo_pipeline.errors import ConfigurationError, OutputError, TrainingError
from nat_dpo_pipeline.testing.server import Fault, LoopbackServer, Request, Response, serving
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, StatusUnknown, TrainingData
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from nat_dpo_pipeline.trainers.nemo.http import TRIES
from nat_dpo_pipeline.trainers.settings import Patience
from nat_dpo_pipeline.trainers.waiting import wait
from tests.servers.nemo import CONFIG, NemoService
from tests.waiting import ticking, until

MakeBackend = Callable[..., NemoCustomizerBackend]
MakeData = Callable[..., TrainingData]
TRAINING, VALIDATION = "training/training_file.jsonl", "validation/validation_file.jsonl"
JOBS = "/v1/customization/jobs"
QUICK = Patience(poll_interval=0.002, longest_pause=0.002)


@pytest.fixture
def backend(nemo: NemoService, make_backend: MakeBackend) -> NemoCustomizerBackend:
    """Over a service that has the namespace."""
    nemo.namespaces.add("ns")
    nemo.datastore_namespaces.add("ns")
    return make_backend()


async def test_what_is_there_is_not_made_again(nemo: NemoService, backend: NemoCustomizerBackend) -> None:
    await backend.check()
    assert {one.method for one in nemo.requests} == {"GET"}


async def test_a_namespace_that_is_missing_is_made_in_both_places(nemo: NemoService, make_backend: MakeBackend) -> None:
    await make_backend().check()
    assert (nemo.namespaces, nemo.datastore_namespaces) == ({"ns"}, {"ns"})


async def test_a_missing_namespace_that_may_not_be_made_is_told(nemo: NemoService, make_backend: MakeBackend) -> None:
    nemo.namespaces.add("ns")
    with pytest.raises(ConfigurationError, match=r"there is no namespace 'ns' in NeMo Data Store at http"):
        await make_backend(create_namespace_if_missing=False).check()
    assert nemo.datastore_namespaces == set()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/namespaces/ns"), ("GET", "/v1/datastore/namespaces/ns"), ("POST", "/v1/namespaces")],
)
async def test_a_refused_credential_is_told_before_any_work(
    nemo: NemoService, make_backend: MakeBackend, method: str, path: str
) -> None:
    nemo.trouble(method, path, Response(401, {"detail": "who are you?"}))
    with pytest.raises(ConfigurationError, match=r"refused with 401: who are you\?; check (access|hf)_token"):
        await make_backend().check()


async def test_a_service_that_is_not_there_is_told(make_backend: MakeBackend) -> None:
    with pytest.raises(TrainingError, match="got no answer"):
        await make_backend(entity_host="http://127.0.0.1:9").check()
    with pytest.raises(TrainingError, match="got no answer"):
        await make_backend(datastore_host="http://127.0.0.1:9").check()


@pytest.mark.parametrize("config", ["meta/llama-3.2-1b-instruct", "llama"])
async def test_an_unknown_configuration_is_told_and_nothing_is_made(
    nemo: NemoService, make_backend: MakeBackend, config: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"has no customization_config '{config}'; there are meta/llama-3\.2"):
        await make_backend(customization_config=config).check()
    assert nemo.namespaces == set()
    nemo.configs = ()
    with pytest.raises(ConfigurationError, match="there is none at all"):
        await make_backend(customization_config=config).check()


async def test_a_folder_that_cannot_be_written_is_told_first(
    nemo: NemoService, make_backend: MakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigurationError, match="dataset_output_dir: cannot write"):
        await make_backend(dataset_output_dir=tmp_path / "taken").check()
    assert nemo.requests == []


@pytest.mark.parametrize("stored_apart", [False, True])
async def test_both_files_are_uploaded_in_one_commit_registered_and_trained_on(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, stored_apart: bool
) -> None:
    nemo.stored_apart = stored_apart
    job = await backend.submit(make_data())

    name = str(job.facts["dataset_name"])
    repo = f"ns/{name}"
    assert name.startswith("nat-dpo-dpo-1-")
    assert nemo.commits == [(repo, [TRAINING, VALIDATION])]
    assert nemo.rows(repo, TRAINING) == [
        {
            "prompt": [{"role": "user", "content": f"Why {n}?"}],
            "chosen_response": f"So {n}.",
            "rejected_response": "No.",
        }
        for n in range(3)
    ]
    assert [row["prompt"][0]["content"] for row in nemo.rows(repo, VALIDATION)] == ["Why not?"]
    assert nemo.datasets[repo]["files_url"] == f"hf://datasets/{repo}"
    assert len(nemo.asked("PUT", "")) == (2 if stored_apart else 0)
    (asked,) = nemo.asked("POST", JOBS)
    assert asked.json == {
        "name": name,
        "namespace": "ns",
        "description": "Run dpo_1 of nat_dpo_pipeline",
        "config": CONFIG,
        "dataset": {"name": name, "namespace": "ns"},
        "hyperparameters": {**backend.settings.hyperparameters.to_json(), "seed": 7},
        "output_model": repo,
    }
    assert job == Job("nemo-customizer", "cust-1", "dpo_1", job.facts)
    assert job.facts == {"output_model": repo, "dataset_name": name, "namespace": "ns", "name": name}


async def test_without_a_token_an_upload_goes_through(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    await backend.submit(make_data())
    assert {one.authorization for one in nemo.requests} == {None}


async def test_a_second_submission_leaves_the_data_of_the_first_one_alone(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    first = await backend.submit(make_data())
    before = dict(nemo.repos[f"ns/{first.facts['dataset_name']}"])
    second = await backend.submit(make_data(train=[PreferenceRow("Other?", "Yes.", "No.")]))
    assert nemo.repos[f"ns/{first.facts['dataset_name']}"] == before
    assert first.facts["dataset_name"] != second.facts["dataset_name"]
    assert len(nemo.jobs) == 2


@pytest.mark.usefixtures("backend")
async def test_output_model_and_description_can_be_said(
    nemo: NemoService, make_backend: MakeBackend, make_data: MakeData
) -> None:
    job = await make_backend(output_model="ns/mine@v1", description="A try").submit(make_data())
    assert nemo.jobs[job.id]["description"] == "A try"
    assert (nemo.jobs[job.id]["output_model"], job.facts["output_model"]) == ("ns/mine@v1", "ns/mine@v1")


async def test_an_empty_side_is_not_uploaded_and_no_row_is_on_both(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    await backend.submit(make_data(train=[PreferenceRow("Only?", "Yes.", "No.")], validation=[]))
    assert nemo.commits[0][1] == [TRAINING]


async def test_pairs_that_teach_nothing_are_not_uploaded(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [PreferenceRow("Why?", "So.", "No."), PreferenceRow("Why?", "So.", "So. "), PreferenceRow("", "So.", "No.")]
    job = await backend.submit(make_data(train=rows))
    assert len(nemo.rows(f"ns/{job.facts['dataset_name']}", TRAINING)) == 1
    assert "left out of the dataset: 1 identical_responses, 1 empty_prompt" in caplog.text
    with pytest.raises(TrainingError, match="none of the 2 pairs can be trained on: 1 identical_responses, 1 empty"):
        await backend.submit(make_data(train=rows[1:]))


@pytest.mark.usefixtures("backend")
async def test_the_last_message_alone_is_sent_when_asked(
    nemo: NemoService, make_backend: MakeBackend, make_data: MakeData
) -> None:
    row = PreferenceRow((Message("system", "Be brief."), Message("user", "Why?")), "So.", "No.")
    job = await make_backend(use_full_message_history=False).submit(make_data(train=[row]))
    assert nemo.rows(f"ns/{job.facts['dataset_name']}", TRAINING)[0]["prompt"] == "Why?"


@pytest.mark.usefixtures("backend")
async def test_files_are_kept_where_asked(
    nemo: NemoService, make_backend: MakeBackend, make_data: MakeData, tmp_path: Path
) -> None:
    job = await make_backend(dataset_output_dir=tmp_path / "kept").submit(make_data())
    name = str(job.facts["dataset_name"])
    kept = tmp_path / "kept" / name / "training_file.jsonl"
    assert kept.read_bytes() == nemo.repos[f"ns/{name}"][TRAINING]
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="taken"):
        await make_backend(dataset_output_dir=tmp_path / "taken").submit(make_data())


@pytest.mark.parametrize("path", ["/v1/datasets", "/repos/create", "/preupload/main", "/commit/main"])
async def test_no_job_is_started_on_data_that_is_not_there(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, path: str
) -> None:
    nemo.trouble("POST", path, Response(403, {"error": "not yours"}))
    with pytest.raises(ConfigurationError, match="refused with 403: not yours"):
        await backend.submit(make_data())
    assert nemo.asked("POST", JOBS) == []


@pytest.mark.parametrize("path", ["/v1/datasets", "/repos/create", "/preupload/main", "/commit/main"])
async def test_an_upload_outlives_a_bad_moment_and_a_lost_answer(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, path: str
) -> None:
    nemo.trouble("POST", path, Response(502), afterwards=True)
    nemo.trouble("POST", path, Response(503))
    job = await backend.submit(make_data())
    assert len(nemo.rows(f"ns/{job.facts['dataset_name']}", TRAINING)) == 3


# A job is started once


async def test_a_job_whose_answer_was_lost_is_found_and_not_started_again(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.page_size = 2
    nemo.jobs = {f"other-{number}": {"id": f"other-{number}", "name": "other"} for number in range(5)}
    nemo.trouble("POST", JOBS, Response(504), afterwards=True)
    job = await backend.submit(make_data())
    assert job.id == "cust-6"
    assert len(nemo.asked("POST", JOBS)) == 1


@pytest.mark.parametrize("what", [Response(503), Fault.RESET])
async def test_a_job_that_was_not_started_is_started_later(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, what: Fault | Response
) -> None:
    nemo.trouble("POST", JOBS, what, times=2)
    await backend.submit(make_data())
    assert len(nemo.jobs) == 1


async def test_a_job_that_appears_late_is_not_started_twice(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    """The first look misses it; its name is taken when it is sent again, and then it is found."""
    nemo.trouble("POST", JOBS, Response(504), afterwards=True)
    nemo.trouble("GET", JOBS, Response(200, {"data": []}))
    assert (await backend.submit(make_data())).id == "cust-1"
    assert len(nemo.jobs) == 1


async def test_a_job_that_may_have_been_started_is_not_sent_again_unseen(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.trouble("POST", JOBS, Response(504), afterwards=True)
    nemo.trouble("GET", JOBS, Response(503), times=TRIES)
    with pytest.raises(TrainingError, match=r"job 'nat-dpo-dpo-1-\w+' may have been started, look for it before"):
        await backend.submit(make_data())
    assert len(nemo.asked("POST", JOBS)) == 1


async def test_a_job_that_cannot_be_started_says_why(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.trouble("POST", JOBS, Response(422, {"detail": "batch_size is too large"}))
    with pytest.raises(TrainingError, match="batch_size is too large"):
        await backend.submit(make_data())
    nemo.trouble("POST", JOBS, Response(503, {"detail": "no room"}), times=TRIES)
    with pytest.raises(TrainingError, match=r"could not be started: .* no room"):
        await backend.submit(make_data())
    nemo.trouble("POST", JOBS, Response(200, {}))
    with pytest.raises(TrainingError, match="did not say its id"):
        await backend.submit(make_data())


# What a job says


async def _submitted(backend: NemoCustomizerBackend, make_data: MakeData) -> Job:
    return await backend.submit(make_data())


async def test_a_job_is_followed_to_its_end_while_nothing_is_known_of_its_progress(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    said: list[tuple[str, float | None]] = [("created", None), ("pending", None), ("unknown", None), ("running", 50)]
    nemo.statuses = [{"status": status, "percentage_done": done} for status, done in said]
    nemo.statuses.append({"status": "completed", "percentage_done": 100, "val_loss": 0.25})
    job = await _submitted(backend, make_data)
    told: list[JobStatus] = []
    status = await wait(backend, job, QUICK, on_status=told.append)
    assert [(one.state, one.progress) for one in told[:4]] == [
        (JobState.PENDING, None),
        (JobState.PENDING, None),
        (JobState.RUNNING, None),
        (JobState.RUNNING, 50.0),
    ]
    assert (status.state, status.result) == (JobState.SUCCEEDED, job.facts["output_model"])
    assert status.metrics == {"val_loss": 0.25}


async def test_a_job_that_failed_says_why(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    logs = [{"updated_at": "1", "message": "failed", "detail": "CUDA out of memory"}]
    nemo.statuses = [{"status": "failed", "status_logs": logs, "epochs_completed": 1}]
    status = await wait(backend, await _submitted(backend, make_data), QUICK)
    assert (status.state, status.message) == (JobState.FAILED, "failed: CUDA out of memory")


@pytest.mark.parametrize("what", [Response(500), Response(429), Fault.RESET, Fault.WRONG_CONTENT_TYPE])
async def test_a_bad_moment_of_the_service_is_no_failure_of_the_job(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData, what: Fault | Response
) -> None:
    job = await _submitted(backend, make_data)
    nemo.trouble("GET", "/status", what, times=2)
    with pytest.raises(StatusUnknown):
        await backend.status(job)
    assert (await wait(backend, job, QUICK)).state is JobState.SUCCEEDED


async def test_looks_that_fail_too_often_end_the_waiting_and_not_the_job(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    job = await _submitted(backend, make_data)
    patience = Patience(0.001, longest_pause=0.001, max_failures=3)
    nemo.trouble("GET", "/status", Response(500, {"detail": "restarting"}), times=3)
    with pytest.raises(TrainingError, match=r"job cust-1 could not be asked .* may still be going on: .* restarting"):
        await wait(backend, job, patience)
    assert len(nemo.asked("GET", "/status")) == 3
    assert nemo.cancelled == []


async def test_looks_that_fail_now_and_then_do_not_end_the_waiting(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    job = await _submitted(backend, make_data)
    nemo.statuses = [{"status": "running"}, {"status": "running"}, {"status": "completed"}]
    nemo.trouble("GET", "/status", Response(500), times=2)

    def fail_twice_again(_: JobStatus) -> None:
        nemo.trouble("GET", "/status", Response(500), times=2)

    patience = Patience(0.001, longest_pause=0.001, max_failures=3)
    assert (await wait(backend, job, patience, on_status=fail_twice_again)).state is JobState.SUCCEEDED


async def test_a_job_that_is_not_there_is_no_bad_moment(backend: NemoCustomizerBackend) -> None:
    with pytest.raises(TrainingError, match="refused with 404") as told:
        await backend.status(Job("nemo-customizer", "cust-9", "dpo_1"))
    assert not isinstance(told.value, StatusUnknown)


async def test_a_job_that_takes_too_long_is_cancelled(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.statuses = [{"status": "unknown"}]
    job = await _submitted(backend, make_data)
    with pytest.raises(TrainingError, match=r"job cust-1 was not done after 0\.05 s and was cancelled"):
        await wait(backend, job, Patience(0.002, timeout=0.05))
    assert nemo.cancelled == ["cust-1"]


async def test_a_job_is_cancelled_with_the_task_that_waits_for_it(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.statuses = [{"status": "running"}]
    job = await _submitted(backend, make_data)
    looked = asyncio.Event()
    waiting = asyncio.create_task(wait(backend, job, QUICK, on_status=lambda _: looked.set()))
    await looked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert nemo.cancelled == ["cust-1"]
    assert (await backend.status(job)).state is JobState.CANCELED


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("refused", [False, True])
async def test_a_job_that_starts_while_its_submission_is_cancelled_is_cancelled_too(
    nemo: NemoService, make_backend: MakeBackend, make_data: MakeData, refused: bool
) -> None:
    arrived, may_answer = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    nemo.statuses = [{"status": "running"}]

    async def slow(request: Request) -> Response:
        response = await nemo.answer(request)
        if request.method == "POST" and request.path == JOBS:
            loop.call_soon_threadsafe(arrived.set)
            await asyncio.to_thread(may_answer.wait)
            return Response(422) if refused else response
        return response

    with serving(LoopbackServer(slow)) as url:
        host = url.removesuffix("/v1")
        submitting = asyncio.create_task(make_backend(entity_host=host).submit(make_data()))
        await arrived.wait()
        submitting.cancel()
        await asyncio.sleep(0)
        may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    assert nemo.cancelled == ([] if refused else ["cust-1"])


async def test_the_end_of_a_job_that_ended_is_no_error(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    job = await _submitted(backend, make_data)
    await backend.cancel(job)
    assert nemo.cancelled == []
    nemo.statuses = [{"status": "running"}]
    nemo.trouble("POST", "/cancel", Response(409, {"detail": "not now"}))
    with pytest.raises(TrainingError, match="not now"):
        await backend.cancel(job)
    await backend.cleanup(job)


async def test_the_model_of_a_job_is_asked_for_where_the_reference_does_not_name_it(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    job = await _submitted(backend, make_data)
    known = Job(job.backend, job.id, job.run_id, {"output_model": None, "dataset_name": "nat-dpo"})
    assert (await backend.status(known)).result == nemo.jobs[job.id]["output_model"]


@pytest.mark.usefixtures("backend")
async def test_the_facts_of_a_job_are_json_without_secrets(
    make_backend: MakeBackend, make_data: MakeData, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    job = await make_backend(access_token="nvapi-secret", hf_token="hf-secret").submit(make_data())
    text = json.dumps(dict(job.facts)) + caplog.text
    assert "secret" not in text


# The event loop


async def test_the_event_loop_is_never_blocked(
    nemo: NemoService, make_backend: MakeBackend, make_data: MakeData
) -> None:
    """No request is answered before a coroutine beside it has gone on twenty times."""

    async def slow(request: Request) -> Response:
        begin = ticks.count
        await until(lambda: ticks.count >= begin + 20)
        return await nemo.answer(request)

    async with ticking() as ticks:
        with serving(LoopbackServer(slow)) as url:
            nemo.url = url.removesuffix("/v1")
            nemo.stored_apart = True
            backend = make_backend(entity_host=nemo.url, datastore_host=nemo.url)
            await backend.check()
            job = await backend.submit(make_data())
            assert (await wait(backend, job, QUICK)).state is JobState.SUCCEEDED
            await backend.cancel(job)

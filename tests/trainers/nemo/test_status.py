import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.trainers.backend import JobState
from nat_dpo_pipeline.trainers.nemo.status import deployment_status, job_status

NUMBERS = ("percentage_done", "train_loss", "val_loss", "epochs_completed", "steps_completed", "elapsed_time")


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("created", JobState.PENDING),
        ("pending", JobState.PENDING),
        ("running", JobState.RUNNING),
        ("cancelling", JobState.RUNNING),
        ("unknown", JobState.RUNNING),
        ("something new", JobState.RUNNING),
        (None, JobState.RUNNING),
        ("completed", JobState.SUCCEEDED),
        ("READY", JobState.SUCCEEDED),
        ("failed", JobState.FAILED),
        ("cancelled", JobState.CANCELED),
        ("canceled", JobState.CANCELED),
    ],
)
def test_every_status_is_a_state(said: str | None, state: JobState) -> None:
    assert job_status({"status": said}).state is state


def test_numbers_that_are_not_known_yet_are_left_out() -> None:
    status = job_status({"status": "running", "metrics": None, "status_logs": None, **dict.fromkeys(NUMBERS)})
    assert (status.progress, dict(status.metrics)) == (None, {})


def test_progress_losses_epochs_and_steps_are_told() -> None:
    body = {
        "status": "running",
        "percentage_done": 40,
        "train_loss": 0.5,
        "val_loss": None,
        "epochs_completed": 1,
        "steps_completed": 20,
        "steps_per_epoch": 25,
        "metrics": {
            "keys": ["val_loss", "train_loss"],
            "metrics": {"val_loss": [{"step": 1, "value": 0.9}, {"step": 2, "value": 0.6}], "train_loss": []},
        },
    }
    status = job_status(body)
    assert status.progress == 40.0
    assert status.metrics == {
        "train_loss": 0.5,
        "val_loss": 0.6,
        "epochs_completed": 1.0,
        "steps_completed": 20.0,
        "steps_per_epoch": 25.0,
    }


def test_the_reason_of_a_failure_is_the_newest_line_with_a_detail() -> None:
    logs = [
        {"updated_at": "2026-01-01T00:00:03", "message": "job ended", "detail": None},
        {"updated_at": "2026-01-01T00:00:02", "message": "training failed", "detail": "CUDA out\nof memory"},
        {"updated_at": "2026-01-01T00:00:01", "message": "created", "detail": "on node 3"},
    ]
    assert job_status({"status": "failed", "status_logs": logs}).message == "training failed: CUDA out of memory"
    assert job_status({"status": "failed", "status_logs": logs[:1]}).message == "job ended"
    assert job_status({"status": "failed"}).message is None


def test_a_running_job_tells_its_newest_line() -> None:
    logs = [{"updated_at": "2", "message": "training"}, {"updated_at": "1", "message": "pulling the image"}]
    assert job_status({"status": "running", "status_logs": logs}).message == "running: training"


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["status", "status_logs", "metrics", "status_details", *NUMBERS])


@given(body=st.dictionaries(keys, anything))
def test_no_answer_breaks_the_reading(body: dict[str, object]) -> None:
    for status in (job_status(body), deployment_status("d", body)):
        assert status.message is None or "\n" not in status.message


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("ready", JobState.SUCCEEDED),
        ("completed", JobState.RUNNING),
        ("pending", JobState.RUNNING),
        ("unknown", JobState.RUNNING),
        ("failed", JobState.FAILED),
        ("error", JobState.FAILED),
        ("cancelled", JobState.FAILED),
    ],
)
def test_only_ready_is_deployed(said: str, state: JobState) -> None:
    body = {"status_details": {"status": said, "description": "no GPU\n is free"}}
    status = deployment_status("ns/d", body)
    assert status.state is state
    assert status.message == f"deployment ns/d is {said}: no GPU is free"

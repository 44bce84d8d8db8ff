"""What NeMo Customizer says of a job and of a deployment, as JobStatus."""

from collections.abc import Iterator

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import mapping, objects
from nat_dpo_pipeline.trainers.backend import JobState, JobStatus
from nat_dpo_pipeline.trainers.nemo.http import Json

_STATES = {
    "created": JobState.PENDING,
    "pending": JobState.PENDING,
    "completed": JobState.SUCCEEDED,
    "ready": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELED,
    "canceled": JobState.CANCELED,
}
_DEPLOYMENT_STATES = {
    "ready": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "error": JobState.FAILED,
    "cancelled": JobState.FAILED,
    "canceled": JobState.FAILED,
}
_NUMBERS = (
    "train_loss",
    "val_loss",
    "epochs_completed",
    "steps_completed",
    "steps_per_epoch",
    "best_epoch",
    "elapsed_time",
)
_LONGEST_MESSAGE = 500


def job_status(body: Json) -> JobStatus:
    """The answer of GET /v1/customization/jobs/{id}/status; every number of it may be null."""
    said = str(body.get("status") or "unknown").lower()
    state = _STATES.get(said, JobState.RUNNING)
    return JobStatus(
        state=state,
        message=_message(said, state, body.get("status_logs")),
        progress=finite_number(body.get("percentage_done")),
        metrics=dict(_metrics(body)),
    )


def deployment_status(name: str, body: Json) -> JobStatus:
    """The answer of GET /v1/deployment/model-deployments/{namespace}/{name}: SUCCEEDED only once it is ready."""
    details = mapping(body.get("status_details"))
    said = str(details.get("status") or "unknown").lower()
    described = _one_line(details.get("description"))
    state = _DEPLOYMENT_STATES.get(said, JobState.RUNNING)
    message = f"deployment {name} is {said}" + (f": {described}" if described else "")
    return JobStatus(state, message)


def _message(said: str, state: JobState, logs: object) -> str | None:
    if state is JobState.SUCCEEDED:
        return None
    lines = list(_log_lines(logs))
    if state.is_final:
        # The reason stands beside a detail; what follows it only says that the job ended.
        return next((line for line, is_detailed in lines if is_detailed), lines[0][0] if lines else None)
    return f"{said}: {lines[0][0]}" if lines else said


def _log_lines(logs: object) -> Iterator[tuple[str, bool]]:
    """The lines of the job's log, newest first, and whether each has a detail."""
    for entry in sorted(objects(logs), key=lambda entry: str(entry.get("updated_at") or ""), reverse=True):
        message, detail = _one_line(entry.get("message")), _one_line(entry.get("detail"))
        if message or detail:
            yield ": ".join(filter(None, (message, detail))), bool(detail)


def _one_line(value: object) -> str:
    return " ".join(str(value or "").split())[:_LONGEST_MESSAGE]


def _metrics(body: Json) -> Iterator[tuple[str, float]]:
    """The numbers of a status, and of the series in it the last values."""
    for name, points in mapping(mapping(body.get("metrics")).get("metrics")).items():
        last = points[-1] if isinstance(points, list) and points else None
        number = finite_number(mapping(last).get("value"))
        if number is not None:
            yield str(name), number
    for name in _NUMBERS:
        number = finite_number(body.get(name))
        if number is not None:
            yield name, number

"""What a fine-tuning API says of a job, read with care: compatible servers leave out whatever they like."""

from collections.abc import Mapping, Sequence

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import numbers
from nat_dpo_pipeline.trainers.backend import JobState, JobStatus

#: Where the run is named in a job's metadata.
RUN_KEY = "run_id"
_STATES = {
    "validating_files": JobState.PENDING,
    "queued": JobState.PENDING,
    "running": JobState.RUNNING,
    "succeeded": JobState.SUCCEEDED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELED,
    "canceled": JobState.CANCELED,
}


def state_of(job: object) -> JobState | None:
    """None when this is no job at all; a status that is not known is RUNNING."""
    said = getattr(job, "status", None)
    return _STATES.get(said, JobState.RUNNING) if isinstance(said, str) else None


def is_of_run(job: object, run_id: str, training_file: str | None) -> bool:
    """Whether the job was created for this run: a server that drops its metadata still tells its file."""
    metadata = getattr(job, "metadata", None)
    if isinstance(metadata, Mapping) and metadata.get(RUN_KEY) == run_id:
        return True
    return training_file is not None and getattr(job, "training_file", None) == training_file


def status_of(job: object, events: Sequence[object], checkpoints: Sequence[object]) -> JobStatus:
    """The status of a job with its events, newest first."""
    state = state_of(job) or JobState.RUNNING
    newest = _newest_metrics(events)
    tokens = finite_number(getattr(job, "trained_tokens", None))
    return JobStatus(
        state=state,
        message=_message(state, job, events),
        progress=100.0 if state is JobState.SUCCEEDED else _percent(newest),
        metrics=newest if tokens is None else {**newest, "trained_tokens": tokens},
        result=_text(job, "fine_tuned_model") if state is JobState.SUCCEEDED else None,
        facts={"checkpoints": [_checkpoint(one) for one in checkpoints]} if checkpoints else {},
    )


def _newest_metrics(events: Sequence[object]) -> Mapping[str, float]:
    for event in events:
        data = getattr(event, "data", None)
        if found := numbers(data):
            return found
    return {}


def _percent(metrics: Mapping[str, float]) -> float | None:
    step, steps = metrics.get("step"), metrics.get("total_steps")
    if step is None or steps is None or not 0 <= step <= steps or not steps:
        return None
    return 100.0 * step / steps


def _message(state: JobState, job: object, events: Sequence[object]) -> str | None:
    said = _text(job, "status")
    if state is JobState.FAILED:
        return _reason(getattr(job, "error", None))
    if state is JobState.PENDING or said not in _STATES:
        return said
    if state is JobState.RUNNING:
        return next((text for event in events if (text := _text(event, "message"))), None)
    return None


def _reason(error: object) -> str | None:
    code, message, parameter = (_text(error, name) for name in ("code", "message", "param"))
    told = ": ".join(part for part in (code, message) if part)
    return f"{told} ({parameter})" if told and parameter else told or None


def _checkpoint(checkpoint: object) -> dict[str, object]:
    metrics = getattr(checkpoint, "metrics", None)
    return {
        "model": _text(checkpoint, "fine_tuned_model_checkpoint"),
        "step": getattr(checkpoint, "step_number", None),
        "metrics": numbers(vars(metrics)) if hasattr(metrics, "__dict__") else {},
    }


def _text(holder: object, name: str) -> str | None:
    value = getattr(holder, name, None)
    return value if isinstance(value, str) and value else None

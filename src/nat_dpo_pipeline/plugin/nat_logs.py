"""What NAT only logs: kept for the report, and shown as one line where the user can mend it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nat_dpo_pipeline.errors import DPOPipelineError
from nat_dpo_pipeline.plugin.nat_api import Config

_SHORTENED = "nat_dpo_pipeline_error"
_EVALUATION_LOGS = ("nat.plugins.eval.runtime.evaluate", "nat.plugins.eval.runtime.remote_workflow")


class _EvaluationRecords(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else getattr(record, _SHORTENED, None)
        if error is not None:
            self.errors.append(" ".join(str(error).split()) or type(error).__name__)
        if isinstance(error, DPOPipelineError | OSError):
            # The user needs the message; a traceback is for bugs. Outer blocks see the error too.
            setattr(record, _SHORTENED, error)
            record.exc_info = None
        # NAT logs the whole configuration, some thousand characters, when it gets one that is not a path.
        return not (isinstance(record.args, tuple) and any(isinstance(arg, Config) for arg in record.args))


@contextmanager
def evaluation_errors() -> Iterator[list[str]]:
    """The errors that evaluations log while the block runs; an evaluation reports a failed item nowhere else."""
    records = _EvaluationRecords()
    logs = [logging.getLogger(name) for name in _EVALUATION_LOGS]
    for log in logs:
        log.addFilter(records)
    try:
        yield records.errors
    finally:
        for log in logs:
            log.removeFilter(records)

"""Every error of the package.

DPOPipelineError
├── ConfigurationError    a setting, credential or file path that the user can mend
├── InputError            an input row or file that does not say what it should
│   └── CandidateRefused  something that claims to be a scored candidate and is none
├── ItemDropped           an item of a pipeline that a step does not want
├── ParseError            a model's reply that is not in the form that was asked for
├── ModelError            a call to a model that failed; `fatal` when no other call to it can succeed
├── CollectionError       an evaluation from which nothing could be collected
├── OutputError           a dataset that could not be written
└── TrainingError         a training job that was not submitted or did not succeed
"""

from enum import StrEnum


class DPOPipelineError(Exception):
    """Base of all errors that this package raises on purpose; its message is meant for the user."""


class ConfigurationError(DPOPipelineError):
    """A setting, credential or path that the user can mend."""


class InputError(DPOPipelineError):
    """An input row or file that does not say what it should."""


class CandidateRefused(InputError):  # noqa: N818 - it reads as what happened to the candidate
    """Something that claims to be a scored candidate and is none; `reason` is a RefusalReason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a candidate: {reason}")
        self.reason = reason


class ItemDropped(DPOPipelineError):  # noqa: N818 - it reads as what happened to the item
    """An item of a pipeline that a step does not want; `reason` is one word to count it under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ParseError(DPOPipelineError):
    """A model's reply that is not in the form that was asked for."""

    def __init__(self, reason: str, reply: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class Concern(StrEnum):
    """Concern of a refusal, as far as the refusal names one.

    `REQUEST`: this request alone, which is too long or asks for something forbidden. `ACCOUNT`: key or credit,
    `CREDIT`: credit, which may be enough for another request, and `NAME`: model or address; if the refusal is not fatal
    it may also be about this request. `UNKNOWN`: it does not say.
    """

    REQUEST = "request"
    ACCOUNT = "account"
    CREDIT = "credit"
    NAME = "name"
    UNKNOWN = "unknown"


class ModelError(DPOPipelineError):
    """A call to a model that failed.

    `fatal`: no other call to this model can succeed (its credential, its credit, its name). `transient`: the same call
    may succeed later; `throttled` with it: because the model said that it is asked too much, for `retry_after` seconds
    if it said how long; `overloaded` with it: because the server failed or was too slow. `unsent`: the call never left.
    `concern` of one that is neither fatal nor transient is what the refusal is about. `llm` is the model's name in the
    configuration, `requests` how often it was asked, and `passed_over` are the errors of models that should have
    answered before it.
    """

    def __init__(
        self,
        message: str,
        *,
        fatal: bool = False,
        transient: bool = False,
        throttled: bool = False,
        retry_after: float | None = None,
        overloaded: bool = False,
        unsent: bool = False,
        concern: Concern = Concern.REQUEST,
    ) -> None:
        super().__init__(message)
        self.fatal = fatal
        self.transient = transient or throttled or overloaded
        self.throttled = throttled
        self.retry_after = retry_after
        self.overloaded = overloaded
        self.unsent = unsent
        self.concern = concern
        self.llm: str | None = None
        self.requests = 0
        self.passed_over: tuple[ModelError, ...] = ()

    @property
    def may_concern_the_model(self) -> bool:
        """True when other requests may be refused for the same reason."""
        return not self.transient and self.concern is not Concern.REQUEST


class CollectionError(DPOPipelineError):
    """An evaluation from which nothing could be collected."""


class OutputError(DPOPipelineError):
    """A dataset that could not be written."""


class TrainingError(DPOPipelineError):
    """A training job that was not submitted or did not succeed."""

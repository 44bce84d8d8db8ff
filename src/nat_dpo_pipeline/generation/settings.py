"""What the recipe can be told; light to import, so that configurations can be made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

_NO_EXTRAS: Mapping[str, object] = MappingProxyType({})
_NO_SAMPLING: "Mapping[StepName, StepSampling]" = MappingProxyType({})


class StepName(StrEnum):
    """The steps of the recipe, and the reading of rows that need none."""

    INPUT = "input"
    SUBTOPICS = "subtopics"
    QUESTIONS = "questions"
    RESPONSES = "responses"
    REWARDS = "rewards"


class ResponseMode(StrEnum):
    """Both responses in one reply, as the recipe has it, or one call per response."""

    PAIRED = "paired"
    INDEPENDENT = "independent"


class Spread(StrEnum):
    """How the calls of a step are spread over the members of its pool."""

    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    ALL = "all"


class JournalBy(StrEnum):
    """Key of a finished call in a journal: its model, or the address of the model's server too."""

    MODEL = "model"
    SERVER = "server"


class AskTogether(StrEnum):
    """Whether samples of one question are asked for in one request."""

    AUTO = "auto"
    NEVER = "never"


class InputKind(StrEnum):
    """What a plain text input is; AUTO takes a text that ends with a question mark for a question."""

    AUTO = "auto"
    TOPIC = "topic"
    QUESTION = "question"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a call is sampled. None, or an empty `extra_body`, leaves it to the model's own settings."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    extra_body: Mapping[str, object] = field(default_factory=lambda: _NO_EXTRAS)
    reasoning_effort: str | None = None

    def given(self) -> dict[str, object]:
        """The parameters that are set, as the body of a request has them, without `extra_body`."""
        values = ((name, getattr(self, name)) for name in _PARAMETERS)
        return {name: value for name, value in values if value is not None}


_PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "reasoning_effort")


#: Nothing is said, so that the model's own settings hold.
AS_CONFIGURED = Sampling()


@dataclass(frozen=True, slots=True)
class StepSampling:
    """How the calls of a step are sampled; of several temperatures the n-th sample of a question has the n-th."""

    temperatures: tuple[float, ...] = ()
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    extra_body: Mapping[str, object] = field(default_factory=lambda: _NO_EXTRAS)
    reasoning_effort: str | None = None


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """How much is asked for, and what becomes of it.

    `n_responses` counts in independent mode, for each model that answers; a paired reply always holds two. A list that
    is short, and a response that is there already, are asked for again up to `max_top_ups` times. Questions and
    subtopics are the same when their words overlap by `near_duplicate`. A question none of whose responses is scored
    `min_best_score` or more is set aside.
    """

    n_subtopics: int = 10
    n_questions: int = 10
    n_responses: int = 2
    responses: ResponseMode = ResponseMode.PAIRED
    seed: int | None = None
    keep_truncated: bool = False
    keep_refusals: bool = False
    max_top_ups: int = 3
    near_duplicate: float = 0.8
    min_best_score: float | None = None
    sampling: Mapping[StepName, StepSampling] = field(default_factory=lambda: _NO_SAMPLING)

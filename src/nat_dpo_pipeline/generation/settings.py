"""What the recipe can be told; light to import, so that configurations can be made of it."""

from dataclasses import dataclass
from enum import StrEnum


class ResponseMode(StrEnum):
    """Both responses in one reply, as the recipe has it, or one call per response."""

    PAIRED = "paired"
    INDEPENDENT = "independent"


class InputKind(StrEnum):
    """What a plain text input is; AUTO takes a text that ends with a question mark for a question."""

    AUTO = "auto"
    TOPIC = "topic"
    QUESTION = "question"


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """How much is asked for. `n_responses` counts in independent mode; a paired reply always holds two."""

    n_subtopics: int = 10
    n_questions: int = 10
    n_responses: int = 2
    responses: ResponseMode = ResponseMode.PAIRED
    seed: int | None = None
    keep_truncated: bool = False

"""Scored candidates, and the turns in which they compete."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from types import MappingProxyType

from nat_dpo_pipeline.core.messages import Prompt

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NO_ATTRIBUTES: Mapping[str, float] = MappingProxyType({})


class RefusalReason(StrEnum):
    """Why something that claimed to be a candidate is none."""

    MISSING_DATA = "missing_data"
    MISSING_TURN_ID = "missing_turn_id"
    MISSING_SCORE = "missing_score"
    SCORE_NOT_FINITE = "score_not_finite"
    MISSING_PROMPT = "missing_prompt"
    MISSING_RESPONSE = "missing_response"
    HOSTED_TOOL = "hosted_tool"
    MEDIA = "image_audio_or_file"
    CONTENT_NOT_TEXT = "content_not_text"
    INVALID_UNICODE = "invalid_unicode"
    PROMPT_ENDS_WITH_ASSISTANT = "prompt_ends_with_assistant"
    MALFORMED = "malformed"
    SET_ASIDE = "set_aside"
    VOID_REWARD = "void_reward"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One response to a prompt, with the score it earned. Raises ValueError unless the score is finite."""

    example_id: str
    turn_id: str
    candidate_index: int
    prompt: Prompt
    response: str
    score: float
    attributes: Mapping[str, float] = field(default_factory=lambda: _NO_ATTRIBUTES)
    model: str | None = None
    metadata: Mapping[str, object] = field(default_factory=lambda: _NOTHING)

    def __post_init__(self) -> None:
        if not isfinite(self.score):
            raise ValueError(f"a candidate's score must be finite, got {self.score!r}")


@dataclass(frozen=True, slots=True)
class Turn:
    """Candidates that answer one prompt of one example, in the order they arrived."""

    example_id: str
    turn_id: str
    prompt: Prompt
    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Turns, and how many turn ids had to be split because their prompts differed."""

    turns: list[Turn]
    split: int


def group_turns(candidates: Iterable[Candidate]) -> Grouping:
    """Group the candidates of ONE example by turn id; a turn whose prompts differ becomes one turn per prompt."""
    by_turn_id: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_turn_id.setdefault(candidate.turn_id, []).append(candidate)
    turns: list[Turn] = []
    split = 0
    for group in by_turn_id.values():
        parts = _split_by_prompt(group)
        split += len(parts) > 1
        turns.extend(Turn(part[0].example_id, part[0].turn_id, part[0].prompt, part) for part in parts)
    return Grouping(turns, split)


def _split_by_prompt(group: list[Candidate]) -> list[list[Candidate]]:
    prompt = group[0].prompt
    if all(candidate.prompt is prompt or candidate.prompt == prompt for candidate in group):
        return [group]
    parts: dict[Prompt, list[Candidate]] = {}
    for candidate in group:
        parts.setdefault(candidate.prompt, []).append(candidate)
    return list(parts.values())


def own_number(value: object) -> object:
    """Return a scalar of numpy or torch, and an array without dimensions, as Python's own; else the value."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def finite_number(value: object) -> float | None:
    """`value` as a finite float, or None; a bool is no number, a scalar of numpy or torch is one."""
    if not isinstance(value, int | float):
        value = own_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None

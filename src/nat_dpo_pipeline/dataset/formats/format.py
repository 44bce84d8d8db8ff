"""What a format is: how rows become its rows, and what its readers expect of the files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol, TypeVar

import orjson

from nat_dpo_pipeline.core.messages import Prompt, message_of
from nat_dpo_pipeline.dataset.formats.rows import (
    DatasetRow,
    PreferenceRow,
    SplitName,
    UnpairedRow,
    has_objects_as_arguments,
    row_has_calls,
)

T = TypeVar("T")
Row = Mapping[str, object]
#: A type by its name in Arrow and on the hub; a struct as a mapping; a list as a list of the one type in it.
Column = str | Mapping[str, "Column"] | list["Column"]


class RowRefusal(StrEnum):
    """Why a row has no place in a format."""

    INVALID_UNICODE = "invalid_unicode"
    PROMPT_OF_SEVERAL_MESSAGES = "prompt_of_several_messages"
    SYSTEM_PROMPT = "system_prompt"
    ROLES_DO_NOT_ALTERNATE = "roles_do_not_alternate"
    UNKNOWN_ROLE = "unknown_role"
    TURN_MARKER_IN_TEXT = "turn_marker_in_text"
    NO_ATTRIBUTES = "no_attributes"
    TOOL_CALLS = "tool_calls"
    CALL_IN_ANSWER = "call_in_answer"
    TEXT_BESIDE_CALL = "text_beside_call"
    TOOLS_ON_OFFER = "tools_on_offer"
    NOT_RENDERED = "not_rendered"
    CALL_LOST = "call_lost"
    ALIKE_WHEN_RENDERED = "alike_when_rendered"
    ARGUMENTS_NOT_AN_OBJECT = "arguments_not_an_object"
    CHOSEN_AND_REJECTED = "chosen_and_rejected"


class Once(Protocol):
    """Makes a part of a row. It may be made once for all the rows of a turn: `make` must be a function of a module."""

    def __call__(self, make: Callable[[T], object], value: T) -> object: ...


def plain(make: Callable[[T], object], value: T) -> object:
    """The part as it is."""
    return make(value)


class EncodedOnce:
    """Parts as JSON, each encoded once: the texts of a turn of n are in up to n - 1 pairs, in several formats."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, object], orjson.Fragment] = {}

    def __call__(self, make: Callable[[T], object], value: T) -> object:
        try:
            return self._known[make, value]
        except KeyError:
            part = self._known[make, value] = orjson.Fragment(orjson.dumps(make(value)))
            return part

    def clear(self) -> None:
        self._known.clear()


@dataclass(frozen=True, slots=True)
class Answer:
    """A candidate as far as the pairs of its turn show it."""

    text: str
    score: float | None
    attributes: Mapping[str, float] | None
    model: str | None
    was_chosen: bool
    was_rejected: bool


@dataclass(eq=False)
class TurnRows:
    """The rows of one turn, one after the other; they share the prompt."""

    pairs: Sequence[PreferenceRow]
    singles: Sequence[UnpairedRow] = ()

    @classmethod
    def of(cls, rows: Sequence[DatasetRow]) -> "TurnRows":
        pairs = [row for row in rows if isinstance(row, PreferenceRow)]
        singles = [row for row in rows if isinstance(row, UnpairedRow)] if len(pairs) < len(rows) else ()
        return cls(pairs, singles)

    @cached_property
    def has_calls(self) -> bool:
        """True when the prompt or an answer has tool calls."""
        return any(map(row_has_calls, self.pairs)) or any(map(row_has_calls, self.singles))

    def those(self, is_kept: Callable[[DatasetRow], bool]) -> "TurnRows":
        """Return some of the rows."""
        return TurnRows(list(filter(is_kept, self.pairs)), list(filter(is_kept, self.singles)))

    def __len__(self) -> int:
        return len(self.pairs) + len(self.singles)

    @cached_property
    def answers(self) -> list[Answer]:
        """The distinct texts in the pairs, best score first."""
        chosen = {row.chosen for row in self.pairs}
        rejected = {row.rejected for row in self.pairs}
        found: dict[str, Answer] = {}
        for row in self.pairs:
            sides = (
                (row.chosen, row.chosen_score, row.chosen_attributes, row.chosen_model),
                (row.rejected, row.rejected_score, row.rejected_attributes, row.rejected_model),
            )
            for text, score, attributes, model in sides:
                if text not in found:
                    found[text] = Answer(text, score, attributes, model, text in chosen, text in rejected)
        return sorted(found.values(), key=_by_score)


def _by_score(answer: Answer) -> tuple[bool, float]:
    return answer.score is None, -(answer.score or 0.0)


Rows = Callable[[TurnRows, Once], Iterable[Row | RowRefusal]]
_FILES = {SplitName.TRAIN: "train.jsonl", SplitName.VALIDATION: "validation.jsonl"}


@dataclass(frozen=True, slots=True)
class Format:
    """One target. `read_by` is who reads it, `cannot_carry` what is refused, in words; `source` says where it is from.

    `takes_calls`: its trainer reads calls and tools on offer. `columns` is None where a column's type differs from
    dataset to dataset. `extra` are files beside the rows. `template` is the model whose chat template made texts of
    prompts and answers.
    """

    name: str
    rows: Rows
    read_by: str
    source: str
    columns: Mapping[str, Column] | None
    files: Mapping[SplitName, str] = field(default_factory=lambda: _FILES)
    parquet: bool = False
    cannot_carry: str = "nothing is left out"
    extra: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    takes_calls: bool = False
    template: str | None = None

    def rows_of(self, turn: TurnRows, once: Once) -> Iterable[Row | RowRefusal]:
        """Return the rows of a turn; what its trainer cannot read is refused."""
        if not turn.has_calls:
            return self.rows(turn, once)
        reason = RowRefusal.ARGUMENTS_NOT_AN_OBJECT if self.takes_calls else RowRefusal.TOOL_CALLS
        kept = turn.those(has_objects_as_arguments if self.takes_calls else lambda row: not row_has_calls(row))
        return [*[reason] * (len(turn) - len(kept)), *self.rows(kept, once)]


def each_pair(make: Callable[[PreferenceRow, Once], Row | RowRefusal]) -> Rows:
    """A format with one row a pair."""

    def rows(turn: TurnRows, once: Once) -> Iterable[Row | RowRefusal]:
        return [make(pair, once) for pair in turn.pairs]

    return rows


MESSAGE: Column = {"role": "string", "content": "string"}
MESSAGES: Column = [MESSAGE]


def as_text(value: str) -> str:
    """A text as a part of a row."""
    return value


def as_answer(reply: str) -> list[dict[str, object]]:
    """Return an answer as a part of a row: the only message of an assistant."""
    return [message_of(reply).as_json()]


def only_text(prompt: Prompt) -> str | None:
    """The prompt's text if it is nothing but one message of the user."""
    if isinstance(prompt, str):
        return prompt
    return prompt[0].content if len(prompt) == 1 and prompt[0].role == "user" else None


def roles_problem(prompt: Prompt) -> RowRefusal | None:
    """What a chat trainer would object to: after a system prompt user and assistant take turns, and the user ends."""
    if isinstance(prompt, str):
        return None
    roles = [message.role for message in prompt]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not {"user", "assistant", "system"}.issuperset(roles):
        return RowRefusal.UNKNOWN_ROLE
    expected = ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))]
    return None if len(turns) % 2 == 1 and turns == expected else RowRefusal.ROLES_DO_NOT_ALTERNATE

"""Rows of either kind as columns: what is no candidate stays, with the reason, as it still belongs to a turn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite

import numpy as np

from nat_dpo_pipeline.core.candidates import Prompt, RefusalReason
from nat_dpo_pipeline.core.decoding import score_of
from nat_dpo_pipeline.core.filters import FLAWS
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.dataset.formats.rows import is_utf8
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.columns import ACCEPTED, REFUSALS, Columns, objects

_CODES = {reason: place for place, reason in enumerate(REFUSALS, start=1)}
#: `Columns.line` of rows that are no turn by themselves.
FLAT = -1
#: Where a row keeps nothing else than what is in columns of its own.
_NOTHING: Mapping[str, object] = {}


@dataclass(slots=True)
class Rows:
    """Rows on their way to columns."""

    _line: list[int] = field(default_factory=list)
    _run_id: list[str] = field(default_factory=list)
    _example_id: list[str] = field(default_factory=list)
    _turn_id: list[str] = field(default_factory=list)
    _prompt: list[Prompt] = field(default_factory=list)
    _response: list[str] = field(default_factory=list)
    _score: list[float] = field(default_factory=list)
    _is_flawed: list[bool] = field(default_factory=list)
    _refusal: list[int] = field(default_factory=list)
    _raw: list[Mapping[str, object]] = field(default_factory=list)
    _asked: object = None
    _asked_prompt: Prompt = ""

    def __len__(self) -> int:
        return len(self._line)

    def add(self, row: Mapping[str, object], text: bytes, line: int) -> None:
        """Take a row of either kind; `text` is its JSON, and `line` tells it from the other rows."""
        if is_turn_row(row):
            # What a generation run set aside is not to be paired.
            refused = RefusalReason.SET_ASIDE if "set_aside" in row else None
            for flat in _flat_rows(row, text):
                self.add_flat(flat, line, refused)
        else:
            self.add_flat(row)

    def add_flat(self, row: Mapping[str, object], line: int = FLAT, refused: RefusalReason | None = None) -> None:
        """Take a row of one candidate; `refused` is why it is none, where that is known."""
        if refused is None and not isinstance(row.get("metadata"), Mapping | str | None):
            refused = RefusalReason.MALFORMED
        self.add_values(
            row.get("run_id"),
            row.get("example_id"),
            row.get("turn_id"),
            row.get("prompt"),
            row.get("response"),
            row.get("score"),
            row,
            line,
            refused,
        )

    def add_values(
        self,
        run_id: object,
        example_id: object,
        turn_id: object,
        prompt: object,
        response: object,
        score: object,
        raw: Mapping[str, object] = _NOTHING,
        line: int = FLAT,
        refused: RefusalReason | None = None,
    ) -> None:
        """Take the values of a row. A hot path: what has the type it should have is taken as it is, without a call."""
        refusal = ACCEPTED
        try:
            if refused is not None:
                raise CandidateRefused(refused)
            if type(run_id) is not str or not run_id.isascii():
                run_id = "" if run_id is None else _id(run_id)
            if type(example_id) is not str or not example_id.isascii():
                example_id = _id(example_id)
            if type(turn_id) is not str or not turn_id.isascii():
                turn_id = _id(turn_id)
            if type(score) is not float or not isfinite(score):
                score = score_of(score)
            asked = self._rendered(prompt if type(prompt) is str else without_reply(prompt, response))
            if type(response) is not str or not response.isascii():
                response = render_response(response)
        except CandidateRefused as error:
            refusal, asked, response, score = _CODES[RefusalReason(error.reason)], "", "", 0.0
            run_id, example_id, turn_id = (_text(one) for one in (run_id, example_id, turn_id))
        self._line.append(line)
        self._run_id.append(run_id)
        self._example_id.append(example_id)
        self._turn_id.append(turn_id)
        self._prompt.append(asked)
        self._response.append(response)
        self._score.append(score)
        self._is_flawed.append(_is_flawed(raw) if raw else False)
        self._refusal.append(refusal)
        self._raw.append(raw)

    def _rendered(self, raw: object) -> Prompt:
        # The candidates of a turn follow one another; equal prompts become one object.
        if self._asked is None or (raw is not self._asked and raw != self._asked):
            self._asked_prompt = render_prompt(raw)
            self._asked = raw
        return self._asked_prompt

    def columns(self) -> Columns:
        """What was taken."""
        count = len(self)
        return Columns(
            line=np.array(self._line, dtype=np.int64),
            run_id=objects(self._run_id, count),
            example_id=objects(self._example_id, count),
            turn_id=objects(self._turn_id, count),
            prompt=objects(self._prompt, count),
            response=objects(self._response, count),
            score=np.array(self._score, dtype=np.float64),
            is_flawed=np.array(self._is_flawed, dtype=bool),
            refusal=np.array(self._refusal, dtype=np.int8),
            raw=objects(self._raw, count),
        )


def is_turn_row(row: Mapping[str, object]) -> bool:
    """Whether a row holds all candidates of a turn rather than one."""
    return "candidates" in row and "response" not in row


def turn_of(row: Mapping[str, object]) -> tuple[str, str, str] | None:
    """The run, example and turn that a flat row names, as in its columns; None for one that names no turn."""
    run_id, example_id, turn_id = (row.get(name) for name in ("run_id", "example_id", "turn_id"))
    return None if example_id is None or turn_id is None else (_text(run_id), _text(example_id), _text(turn_id))


def columns_of(rows: Iterable[Mapping[str, object]]) -> Columns:
    """The rows of one candidate each as columns."""
    taken = Rows()
    for row in rows:
        taken.add_flat(row)
    return taken.columns()


def _flat_rows(row: Mapping[str, object], text: bytes) -> Iterable[Mapping[str, object]]:
    """The candidates of a turn row, each with what it shares with the others."""
    candidates = row["candidates"]
    if not isinstance(candidates, Sequence) or isinstance(candidates, str):
        return
    shared = {name: value for name, value in row.items() if name not in ("candidates", "unscored", "id")}
    shared["example_id"] = row.get("example_id", row.get("id")) or f"line-{sha256(text).hexdigest()[:16]}"
    shared.setdefault("turn_id", "turn-0")
    for one in candidates:
        yield {**shared, **one} if isinstance(one, Mapping) else shared


def _id(raw: object) -> str:
    if isinstance(raw, str):
        if not is_utf8(raw):
            raise CandidateRefused(RefusalReason.INVALID_UNICODE)
        return raw
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_TURN_ID)
    return str(raw)


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else "" if raw is None else str(raw)


def _is_flawed(raw: Mapping[str, object]) -> bool:
    return says_flaw(raw.get("flaw"), raw.get("metadata"))


def says_flaw(flaw: object, metadata: object) -> bool:
    """As `core.filters.is_flawed` of the candidate's metadata, of which the row may hold some beside the others."""
    if isinstance(metadata, Mapping) and "flaw" in metadata:
        flaw = metadata["flaw"]
    return isinstance(flaw, str) and flaw in FLAWS

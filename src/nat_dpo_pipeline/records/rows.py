"""Rows of candidates, flat or one a turn, on their way to columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite

import numpy as np

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.decoding import score_of
from nat_dpo_pipeline.core.filters import FLAWS
from nat_dpo_pipeline.core.marks import MARKS, flaw_of, is_void
from nat_dpo_pipeline.core.messages import Prompt, prompt_name
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.core.thoughts import may_hold_thoughts
from nat_dpo_pipeline.dataset.formats.rows import is_utf8
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.columns import FLAT, Columns, objects
from nat_dpo_pipeline.records.mapping import GROUPS, QUESTION, with_question

# Of a row without a turn: what else is part of its question, and what names its task.
_OF_THE_QUESTION = QUESTION | GROUPS
# Where a row keeps nothing else than what is in columns of its own.
_NOTHING: Mapping[str, object] = {}


@dataclass(slots=True)
class Rows:
    """Rows on their way to columns. What is no candidate is not taken: `add` and `add_flat` say why."""

    _line: list[int] = field(default_factory=list)
    _run_id: list[str] = field(default_factory=list)
    _example_id: list[str] = field(default_factory=list)
    _turn_id: list[str] = field(default_factory=list)
    _prompt: list[Prompt] = field(default_factory=list)
    _response: list[str] = field(default_factory=list)
    _score: list[float] = field(default_factory=list)
    _is_flawed: list[bool] = field(default_factory=list)
    _raw: list[Mapping[str, object]] = field(default_factory=list)
    _asked: object = None
    _tools: object = None
    _asked_prompt: Prompt = ""

    def __len__(self) -> int:
        return len(self._line)

    def add(self, row: Mapping[str, object], text: bytes, line: int) -> list[str]:
        """Take a row of either kind; gives the reasons of the candidates in it that are none.

        `text` is its JSON, and `line` tells it from the other rows.
        """
        if not is_turn_row(row):
            return self._refusals(row, FLAT)
        if "turn_id" not in row and not _OF_THE_QUESTION.isdisjoint(row):
            row = with_question(row)
        candidates = row["candidates"]
        if not isinstance(candidates, Sequence) or isinstance(candidates, str):
            return [str(RefusalReason.MALFORMED)]
        if "set_aside" in row:  # a generation run keeps such turns in a file of their own: they shall not be paired
            return [str(RefusalReason.SET_ASIDE)] * len(candidates)
        return [reason for flat in _flat_rows(row, candidates, text) for reason in self._refusals(flat, line)]

    def _refusals(self, row: Mapping[str, object], line: int) -> list[str]:
        try:
            self.add_flat(row, line)
        except CandidateRefused as refused:
            return [str(refused.reason)]
        return []

    def add_flat(self, row: Mapping[str, object], line: int = FLAT) -> None:
        """Take a row of one candidate. Raises CandidateRefused.

        A row without a `turn_id` is of the only turn of its example, one without an `example_id` of that of its prompt;
        null is what a recorder writes of a step that has no turn. A hot path: what has the type it should have is taken
        as it is, without a call.
        """
        if "turn_id" not in row and not _OF_THE_QUESTION.isdisjoint(row):
            row = with_question(row)
        if not MARKS.isdisjoint(row) and is_void(row):
            raise CandidateRefused(RefusalReason.VOID_REWARD)
        run_id, example_id, turn_id = row.get("run_id"), row.get("example_id"), row.get("turn_id", "")
        score, prompt, response = row.get("score"), row.get("prompt"), row.get("response")
        if type(run_id) is not str or not run_id.isascii():
            run_id = _id(run_id)
        if type(example_id) is not str or not example_id.isascii():
            example_id = _id(example_id)
        if type(turn_id) is not str or not turn_id.isascii():
            if turn_id is None:
                raise CandidateRefused(RefusalReason.MISSING_TURN_ID)
            turn_id = _id(turn_id)
        if type(score) is not float or not isfinite(score):
            score = score_of(score)
        asked = self._rendered(prompt if type(prompt) is str else without_reply(prompt, response), row.get("tools"))
        if type(response) is not str or not response.isascii() or may_hold_thoughts(response):
            response = render_response(response)
        self._append(line, run_id, example_id or prompt_name(asked), turn_id, asked, response, score, row)

    def add_candidate(self, scope: Sequence[str], candidate: Candidate) -> None:
        """Take a candidate that competes with those of the same scope."""
        raw = {"candidate_index": candidate.candidate_index, "metadata": candidate.metadata}
        self._append(
            FLAT,
            "\x1f".join(scope),
            candidate.example_id,
            candidate.turn_id,
            candidate.prompt,
            candidate.response,
            candidate.score,
            raw,
        )

    def _append(
        self,
        line: int,
        run_id: str,
        example_id: str,
        turn_id: str,
        prompt: Prompt,
        response: str,
        score: float,
        raw: Mapping[str, object],
    ) -> None:
        self._line.append(line)
        self._run_id.append(run_id)
        self._example_id.append(example_id)
        self._turn_id.append(turn_id)
        self._prompt.append(prompt)
        self._response.append(response)
        self._score.append(score)
        self._is_flawed.append(says_flaw(raw))
        self._raw.append(raw)

    def _rendered(self, raw: object, tools: object) -> Prompt:
        # The candidates of a turn follow one another; equal prompts become one object.
        if self._asked is None or (raw is not self._asked and raw != self._asked) or tools != self._tools:
            self._asked_prompt = render_prompt(raw, tools)
            self._asked, self._tools = raw, tools
        return self._asked_prompt

    def clear(self) -> None:
        """Forget what was taken."""
        for name in self.__slots__:
            if isinstance(values := getattr(self, name), list):
                values.clear()

    def columns(self) -> Columns:
        """Return what was taken."""
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
            raw=objects(self._raw, count),
        )


def is_turn_row(row: Mapping[str, object]) -> bool:
    """Whether a row holds all candidates of a turn rather than one."""
    return "candidates" in row and "response" not in row


def says_flaw(row: Mapping[str, object]) -> bool:
    """Return True for a reply with a flaw, as `core.filters.is_flawed` has it, or that did not end well."""
    flaw, metadata = row.get("flaw"), row.get("metadata")
    if isinstance(metadata, Mapping) and "flaw" in metadata:
        flaw = metadata["flaw"]
    if isinstance(flaw, str) and flaw in FLAWS:
        return True
    places = (row, metadata) if isinstance(metadata, Mapping) else (row,)
    return any(not MARKS.isdisjoint(one) and flaw_of(one) is not None for one in places)


def _flat_rows(row: Mapping[str, object], candidates: Sequence[object], text: bytes) -> Iterator[Mapping[str, object]]:
    """Yield the candidates of a turn row, each with what it shares with the others."""
    shared = {name: value for name, value in row.items() if name not in ("candidates", "unscored")}
    shared["example_id"] = row.get("example_id") or row.get("id") or f"row-{sha256(text.strip()).hexdigest()[:16]}"
    shared["turn_id"] = row.get("turn_id") or "turn-0"
    for one in candidates:
        yield {**shared, **one} if isinstance(one, Mapping) else shared


def _id(raw: object) -> str:
    name = "" if raw is None else str(raw)
    if not is_utf8(name):
        raise CandidateRefused(RefusalReason.INVALID_UNICODE)
    return name

"""A step's fields to a candidate, whoever recorded the step: what is refused, and what is read generously."""

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason, own_number
from nat_dpo_pipeline.core.marks import MARKS, is_void
from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.core.thoughts import may_hold_thoughts
from nat_dpo_pipeline.errors import CandidateRefused

_NO_ATTRIBUTES: Mapping[str, float] = MappingProxyType({})
# Of an index: a whole number that JSON's readers hold exactly, also as a float.
_MOST = 2**53


class CandidateDecoder:
    """Reads the steps of one example; the candidates of a turn follow one another, so the last prompt is kept."""

    def __init__(self, example_id: str) -> None:
        self._example_id = example_id
        self._turn_sizes: dict[str, int] = {}
        self._raw_prompt: object = None
        self._prompt: Prompt = ""

    def decode(
        self, fields: Mapping[str, object], own: Mapping[str, object], metadata: Mapping[str, object]
    ) -> Candidate:
        """The candidate; equal prompts become one object. Raises CandidateRefused.

        `fields` hold `input` and `output`, `own` holds `turn_id`, `score` and `candidate_index`: NAT has them apart.
        """
        # A hot path: what has the type it should have is taken as it is, without a call.
        turn_id, score, index = own.get("turn_id"), own.get("score"), own.get("candidate_index")
        if type(turn_id) is not str:
            turn_id = _turn_id(turn_id)
        if type(score) is not float or not isfinite(score):
            score = score_of(score)
        if metadata and not MARKS.isdisjoint(metadata) and is_void(metadata):
            raise CandidateRefused(RefusalReason.VOID_REWARD)
        response = fields.get("output")
        prompt = self._rendered(without_reply(fields.get("input"), response))
        if type(response) is not str or not response.isascii() or may_hold_thoughts(response):
            response = render_response(response)
        position = self._turn_sizes.get(turn_id, 0)
        self._turn_sizes[turn_id] = position + 1
        if type(index) is not int or not -_MOST <= index <= _MOST:
            index = index_of(index, position)
        return Candidate(self._example_id, turn_id, index, prompt, response, score, _NO_ATTRIBUTES, None, metadata)

    def _rendered(self, raw: object) -> Prompt:
        if self._raw_prompt is None or (raw is not self._raw_prompt and raw != self._raw_prompt):
            self._prompt = render_prompt(raw)
            self._raw_prompt = raw
        return self._prompt


def score_of(raw: object) -> float:
    """A score as a finite float, also where it was recorded as text. Raises CandidateRefused."""
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_SCORE)
    if not isinstance(raw, float):
        raw = own_number(raw)
        if not isinstance(raw, int | float | str) or "_" in str(raw):
            raise CandidateRefused(RefusalReason.MALFORMED)
        try:
            raw = float(raw)
        except (ValueError, OverflowError) as error:
            raise CandidateRefused(RefusalReason.MALFORMED) from error
    if not isfinite(raw):
        raise CandidateRefused(RefusalReason.SCORE_NOT_FINITE)
    return raw


def _turn_id(raw: object) -> str:
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_TURN_ID)
    return raw if isinstance(raw, str) else str(raw)


def index_of(raw: object, position: int) -> int:
    """Return the index of a candidate, also where it was recorded as text. Raises CandidateRefused."""
    if raw is None:
        return position
    if isinstance(raw, str) and raw.isdecimal() and len(raw) <= len(str(_MOST)):
        raw = int(raw)
    if isinstance(raw, int | float) and not isinstance(raw, bool) and raw == raw // 1 and abs(raw) <= _MOST:
        return int(raw)
    raise CandidateRefused(RefusalReason.MALFORMED)

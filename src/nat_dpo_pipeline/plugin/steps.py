"""Candidates to TTC_START/TTC_END steps, and back; attributes and model travel in the metadata and stay there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Protocol
from uuid import uuid4

from nat_dpo_pipeline.core.candidates import Candidate, Prompt, RefusalReason, as_messages
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.plugin.nat_api import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    TTCEventData,
)

_NO_ATTRIBUTES: Mapping[str, float] = MappingProxyType({})


class StepManager(Protocol):
    """NAT's intermediate step manager. `Context.get().intermediate_step_manager` is a new one each time: keep one."""

    def push_intermediate_step(self, payload: IntermediateStepPayload) -> None: ...


def push_candidate(manager: StepManager, step_name: str, candidate: Candidate, turn_index: int) -> None:
    """Push the steps of one scored candidate."""
    metadata = dict(candidate.metadata)
    if candidate.attributes:
        metadata["attributes"] = dict(candidate.attributes)
    if candidate.model is not None:
        metadata["model"] = candidate.model
    push_step(
        manager,
        step_name,
        turn_id=candidate.turn_id,
        turn_index=turn_index,
        candidate_index=candidate.candidate_index,
        messages=as_messages(candidate.prompt),
        response=candidate.response,
        score=candidate.score,
        metadata=metadata,
    )


def push_step(
    manager: StepManager,
    step_name: str,
    *,
    turn_id: str,
    turn_index: int,
    candidate_index: int,
    messages: list[dict[str, str]],
    response: str,
    score: float | None,
    metadata: Mapping[str, object],
) -> None:
    """Push one TTC_START and its TTC_END, at once: an END without its START in the same manager is lost."""
    asked = TTCEventData(turn_id=turn_id, turn_index=turn_index, candidate_index=candidate_index, input=messages)
    answered = asked.model_copy(update={"output": response, "score": score})
    uuid = str(uuid4())
    for event_type, data in ((IntermediateStepType.TTC_START, asked), (IntermediateStepType.TTC_END, answered)):
        manager.push_intermediate_step(
            IntermediateStepPayload(
                event_type=event_type, name=step_name, UUID=uuid, data=data, metadata=dict(metadata)
            )
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A TTC step that holds no candidate, and why."""

    example_id: str
    step_uuid: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """The candidates in one example's steps, and the steps that were refused."""

    candidates: list[Candidate]
    refusals: list[Refusal]


def decode_candidates(steps: Iterable[IntermediateStep], step_name: str, example_id: str) -> Decoded:
    """The candidates in the TTC_END steps called `step_name`, in order; equal prompts become one object."""
    decoder = _Decoder(example_id)
    for step in steps:
        payload = step.payload
        if payload.event_type is IntermediateStepType.TTC_END and payload.name == step_name:
            decoder.add(payload)
    return Decoded(decoder.candidates, decoder.refusals)


class _Decoder:
    """Reads the steps of one example; the candidates of a turn follow one another, so the last prompt is kept."""

    def __init__(self, example_id: str) -> None:
        self.candidates: list[Candidate] = []
        self.refusals: list[Refusal] = []
        self._example_id = example_id
        self._turn_sizes: dict[str, int] = {}
        self._raw_prompt: object = None
        self._prompt: Prompt = ""

    def add(self, payload: IntermediateStepPayload) -> None:
        try:
            self.candidates.append(self._candidate(payload))
        except CandidateRefused as refused:
            self.refusals.append(Refusal(self._example_id, payload.UUID, refused.reason))

    def _candidate(self, payload: IntermediateStepPayload) -> Candidate:
        # A hot path: what has the type it should have is taken as it is, without a call.
        fields, own = values_of(payload.data)
        turn_id, score, index = own.get("turn_id"), own.get("score"), own.get("candidate_index")
        if type(turn_id) is not str:
            turn_id = _turn_id(turn_id)
        if type(score) is not float or not isfinite(score):
            score = _score(score)
        response = fields.get("output")
        prompt = self._rendered(without_reply(fields.get("input"), response))
        if type(response) is not str or not response.isascii():
            response = render_response(response)
        position = self._turn_sizes.get(turn_id, 0)
        self._turn_sizes[turn_id] = position + 1
        if type(index) is not int:
            index = _index(index, position)
        metadata = payload.metadata
        if metadata is not None and not isinstance(metadata, dict):
            metadata = metadata.model_dump()
        return Candidate(
            self._example_id, turn_id, index, prompt, response, score, _NO_ATTRIBUTES, None, metadata or {}
        )

    def _rendered(self, raw: object) -> Prompt:
        if self._raw_prompt is None or (raw is not self._raw_prompt and raw != self._raw_prompt):
            self._prompt = render_prompt(raw)
            self._raw_prompt = raw
        return self._prompt


def values_of(data: object) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Where a step's data keeps input and output, and where the TTC fields: StreamEventData has those as extras."""
    if isinstance(data, Mapping):
        return data, data
    fields: Mapping[str, object] | None = getattr(data, "__dict__", None)
    if not fields:
        raise CandidateRefused(RefusalReason.MISSING_DATA)
    extras: Mapping[str, object] | None = getattr(data, "__pydantic_extra__", None)
    return fields, extras if extras and "turn_id" in extras else fields


def _turn_id(raw: object) -> str:
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_TURN_ID)
    return raw if isinstance(raw, str) else str(raw)


def _score(raw: object) -> float:
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_SCORE)
    if not isinstance(raw, float):
        if not isinstance(raw, int | str) or "_" in str(raw):
            raise CandidateRefused(RefusalReason.MALFORMED)
        try:
            raw = float(raw)
        except (ValueError, OverflowError) as error:
            raise CandidateRefused(RefusalReason.MALFORMED) from error
    if not isfinite(raw):
        raise CandidateRefused(RefusalReason.SCORE_NOT_FINITE)
    return raw


def _index(raw: object, position: int) -> int:
    if raw is None:
        return position
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.isdecimal():
        return int(raw)
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    raise CandidateRefused(RefusalReason.MALFORMED)

"""Candidates to TTC_START/TTC_END steps, and back; attributes and model travel in the metadata and stay there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.core.messages import prompt_json, reply_json
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.plugin.nat_api import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    TTCEventData,
)


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
        prompt=prompt_json(candidate.prompt),
        response=reply_json(candidate.response),
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
    prompt: object,
    response: object,
    score: float | None,
    metadata: Mapping[str, object],
) -> None:
    """Push one TTC_START and its TTC_END, at once: an END without its START in the same manager is lost."""
    asked = TTCEventData(turn_id=turn_id, turn_index=turn_index, candidate_index=candidate_index, input=prompt)
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
    decode = CandidateDecoder(example_id).decode
    decoded = Decoded([], [])
    for step in steps:
        payload = step.payload
        if payload.event_type is IntermediateStepType.TTC_END and payload.name == step_name:
            try:
                fields, own = values_of(payload.data)
                decoded.candidates.append(decode(fields, own, _metadata(payload)))
            except CandidateRefused as refused:
                decoded.refusals.append(Refusal(example_id, payload.UUID, refused.reason))
    return decoded


def _metadata(payload: IntermediateStepPayload) -> Mapping[str, object]:
    metadata = payload.metadata
    if metadata is not None and not isinstance(metadata, dict):
        return metadata.model_dump()
    return metadata or {}


def values_of(data: object) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Where a step's data keeps input and output, and where the TTC fields: StreamEventData has those as extras."""
    if isinstance(data, Mapping):
        return data, data
    fields: Mapping[str, object] | None = getattr(data, "__dict__", None)
    if not fields:
        raise CandidateRefused(RefusalReason.MISSING_DATA)
    extras: Mapping[str, object] | None = getattr(data, "__pydantic_extra__", None)
    return fields, extras if extras and "turn_id" in extras else fields

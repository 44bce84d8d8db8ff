"""Rollouts of NeMo Gym: what was asked, what was answered, and one reward (NVIDIA-NeMo/Gym, `BaseVerifyResponse`).

`{"responses_create_params": {"input"}, "response": {"output"}, "reward"}`, both sides in the items of OpenAI's
Responses API; `_ng_task_index` says which runs are of one task, and `_ng_rollout_index` which of them it is.
"""

from collections.abc import Iterator, Mapping

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.json_values import items, mapping
from nat_dpo_pipeline.core.marks import is_void
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.rollouts import rollout
from nat_dpo_pipeline.records.values import (
    Cut,
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    named,
)

_FAILED = "_ng_failure_class"


def _recognises(value: object) -> bool:
    keys = mapping(value).keys()
    return "responses_create_params" in keys and ({"response", "reward"} <= keys or _FAILED in keys)


def _reader(_shared: Shared) -> Read:
    return _read


def _read(record: Record) -> Iterator[Found | Refused]:
    row = mapping(record.value)
    if _FAILED in row:
        # Of the file of failures beside the rollouts: their reward is of no response.
        yield Refused(RefusalReason.SET_ASIDE)
        return
    asked, answered = mapping(row.get("responses_create_params")), mapping(row.get("response"))
    if is_void(row) or is_void(answered):
        yield Refused(RefusalReason.VOID_REWARD)
        return
    try:
        candidate = rollout(
            _asked(asked),
            items(answered.get("output")),
            row.get("reward"),
            index=row.get("_ng_rollout_index"),
            metadata=_metadata(row, answered),
            tools=asked.get("tools"),
        )
    except CandidateRefused as refused:
        yield Refused(refused.reason)
    else:
        agent = named(mapping(row.get("agent_ref")).get("name")) or ""
        yield Found((agent, named(row.get("_ng_task_index")) or ""), candidate)


def _asked(params: Mapping[str, object]) -> list[object]:
    instructions, given = params.get("instructions"), params.get("input")
    system = [{"role": "system", "content": instructions}] if isinstance(instructions, str) and instructions else []
    return [*system, *([{"role": "user", "content": given}] if isinstance(given, str) else items(given))]


def _metadata(row: Mapping[str, object], answered: Mapping[str, object]) -> dict[str, object]:
    known = ("responses_create_params", "response", "reward")
    metadata = {name: value for name, value in row.items() if name not in known and not name.startswith("_ng_")}
    if model := named(answered.get("model")):
        metadata["model"] = model
    if answered.get("status") == "incomplete":
        metadata["flaw"] = "truncated"
    return metadata


NEMO_GYM = RecordedFormat(
    name="NeMo Gym rollouts",
    looks_like='{"responses_create_params": {"input"}, "response": {"output"}, "reward"}',
    recognises=_recognises,
    reader=_reader,
    cut=Cut.LINES,
)

"""ATIF trajectories (Harbor's RFC 0001, ATIF-v1.0 to v1.7), scored by a table of ids and scores in another file.

Written by Harbor and NeMo Relay one a file, by `nat eval` (`write_atif_workflow_output`) as an array of
`{"item_id", "trajectory"}`. Trajectories of the same prompt compete.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from nat_dpo_pipeline.core.json_values import items, mapping
from nat_dpo_pipeline.errors import CandidateRefused, InputError
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.rollouts import rollout
from nat_dpo_pipeline.records.values import (
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    named,
)

_IDS_SHOWN = 3


def _trajectory(value: object) -> Mapping[str, object]:
    item = mapping(value)
    return mapping(item["trajectory"]) if "trajectory" in item else item


def _recognises(value: object) -> bool:
    return str(_trajectory(value).get("schema_version")).startswith("ATIF-")


def _reader(shared: Shared) -> Read:
    def read(record: Record) -> Iterator[Found | Refused]:
        trajectory = _trajectory(record.value)
        ids = _ids(record.value)
        score = next((shared.scores[one] for one in map(named, ids) if one in shared.scores), None)
        metadata = {key: value for key, value in zip(_IDS, ids, strict=True) if value is not None}
        if model := named(mapping(trajectory.get("agent")).get("model_name")):
            metadata["model"] = model
        try:
            tools = mapping(trajectory.get("agent")).get("tool_definitions")
            candidate = rollout(_steps(trajectory), (), score, index=None, metadata=metadata, tools=tools)
        except CandidateRefused as refused:
            yield Refused(refused.reason)
        else:
            yield Found((candidate.example_id,), candidate)

    return read


_IDS = ("item_id", "trajectory_id", "session_id")


def _ids(value: object) -> tuple[object, ...]:
    trajectory = _trajectory(value)
    return mapping(value).get("item_id"), trajectory.get("trajectory_id"), trajectory.get("session_id")


def ids_of(value: object) -> list[str]:
    """Return the ids by which a table of scores may name the trajectory."""
    return [name for name in map(named, _ids(value)) if name is not None]


def _steps(trajectory: Mapping[str, object]) -> list[object]:
    """Return the steps; of several of the agent in a row, without calls, the last, which is what it came to."""
    found: list[object] = []
    for step in items(trajectory.get("steps")):
        if found and _only_says(found[-1]) and mapping(step).get("source") == "agent":
            found.pop()
        found.append(step)
    return found


def _only_says(step: object) -> bool:
    fields = mapping(step)
    return fields.get("source") == "agent" and not fields.get("tool_calls") and not fields.get("observation")


ATIF = RecordedFormat(
    name="ATIF trajectories",
    looks_like='{"schema_version": "ATIF-v1.7", "trajectory_id", "steps": [{"source", "message"}]}',
    recognises=_recognises,
    reader=_reader,
    hint="a trajectory gets its score from a table (CSV or JSONL of id and score) that is given with it",
)


def check_scores(scores: Mapping[str, object], trajectories: Iterable[Place]) -> None:
    """Read trajectories up to the first one with a score. Raises InputError with ids of both sides if there is none."""
    seen: dict[str, None] = {}
    for place in trajectories if scores else ():
        for piece in pieces(place):
            ids = ids_of(parsed(piece.text))
            if any(one in scores for one in ids):
                return
            seen.update(dict.fromkeys(ids))
    if seen:
        raise InputError(
            f"no trajectory has an id that the table of scores has: the first ids of the table are {_first(scores)}, "
            f"those of the trajectories {_first(seen)}; trajectory_id, session_id and item_id are compared"
        )


def _first(ids: Iterable[str]) -> str:
    return ", ".join(f"{one!r:.60}" for one in islice(ids, _IDS_SHOWN))

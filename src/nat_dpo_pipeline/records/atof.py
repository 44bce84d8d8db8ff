"""ATOF JSONL, as NeMo Relay writes it: events of scopes and marks (ATOF 0.1, the models are in `nat.atof.events`).

A mark is a candidate when its name is the configured step name; its `data` hold the fields of NAT's TTCEventData
(`input`, `output`, `score`, `turn_id`, `candidate_index`), its `metadata` what else is known. What is below one
outermost scope is one example. NAT itself emits no ATOF for TTC steps.
"""

from collections.abc import Iterator

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.steps import Runs, decoded
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


def _recognises(value: object) -> bool:
    event = mapping(value)
    return "atof_version" in event and event.get("kind") in ("scope", "mark")


def _reader(shared: Shared) -> Read:
    runs = Runs()

    def read(record: Record) -> Iterator[Found | Refused]:
        event = mapping(record.value)
        uuid, parent = str(event.get("uuid")), named(event.get("parent_uuid")) or "root"
        # Relay names the outermost scope itself; the specification does not ask for it.
        root = named(event.get("propagation_root_uuid"))
        if event.get("scope_category") == "start":
            runs.started(uuid, root or (parent if runs.knows(parent) else "root"))
        if event.get("scope_category") == "end":
            runs.ended(uuid)
        if event.get("kind") == "mark":
            run = root or runs.of(parent)
            yield from _candidate(event.get("name"), event.get("data"), event.get("metadata"), run)

    def _candidate(name: object, data: object, metadata: object, run: str) -> Iterator[Found | Refused]:
        if name == shared.step_name:
            yield decoded(data, metadata, (run,), runs.decoder(run))
        elif {"output", "score"} <= mapping(data).keys():
            shared.other_names.add(str(name))

    return read


ATOF = RecordedFormat(
    name="ATOF",
    looks_like='{"atof_version", "kind": "mark", "name", "data": {"input", "output", "score", "turn_id"}}',
    recognises=_recognises,
    reader=_reader,
    cut=Cut.TOGETHER,
)

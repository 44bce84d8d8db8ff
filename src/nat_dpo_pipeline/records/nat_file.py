"""The JSONL of NAT's `file` exporter: a step a line, the runs of several items mixed."""

from collections.abc import Iterator

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.steps import Runs, decoded, is_asked_for, is_step
from nat_dpo_pipeline.records.values import Cut, Found, Read, Record, RecordedFormat, Refused, Shared


def _reader(shared: Shared) -> Read:
    runs = Runs()

    def read(record: Record) -> Iterator[Found | Refused]:
        step = mapping(record.value)
        payload = mapping(step.get("payload"))
        kind, uuid, parent = str(payload.get("event_type")), str(payload.get("UUID")), str(step.get("parent_id"))
        if kind.endswith("_START"):
            runs.started(uuid, parent)
        if is_asked_for(payload, shared):
            run = runs.of(parent)
            yield decoded(payload.get("data"), payload.get("metadata"), (run,), runs.decoder(run))
        if kind.endswith("_END"):
            runs.ended(uuid)

    return read


NAT_FILE = RecordedFormat(
    name="NAT file exporter",
    looks_like='{"parent_id", "function_ancestry", "payload": {"event_type": "TTC_END", …}}',
    recognises=is_step,
    reader=_reader,
    cut=Cut.TOGETHER,
    hint="NAT's file exporter loses most steps of a fast run",
)

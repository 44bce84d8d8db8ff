"""Replies of `POST /generate/full` of `nat serve`, saved as they came: one or several after the other in a file.

Lines are `intermediate_data: {"id", "parent_id", "type", "name", "payload": "<JSON>"}`, between them `data: {"value"}`.
With `?filter_steps=TTC_END` the starts are missing, and the step above stands for the run.
"""

from collections.abc import Iterator

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.pieces import parsed
from nat_dpo_pipeline.records.steps import Runs, decoded, is_asked_for
from nat_dpo_pipeline.records.values import Cut, Found, Read, Record, RecordedFormat, Refused, Shared

_STEP = "intermediate_data:"
_PREFIXES = (_STEP, "data:", "observability_trace:")
# A failure of the workflow comes as an object without a prefix.
_OTHERS = ("data:", "observability_trace:", "{")


def _recognises(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_PREFIXES)


def _reader(shared: Shared) -> Read:
    runs = Runs()

    def read(record: Record) -> Iterator[Found | Refused]:
        line = str(record.value)
        step = mapping(parsed(line.removeprefix(_STEP).encode())) if line.startswith(_STEP) else {}
        kind, uuid, parent = str(step.get("type")), str(step.get("id")), str(step.get("parent_id"))
        if not step and not line.startswith(_OTHERS):
            yield Refused(RefusalReason.MALFORMED)
        if kind.endswith("_START"):
            runs.started(uuid, parent)
        if is_asked_for({"event_type": kind, "name": step.get("name")}, shared):
            run = runs.of(parent)
            payload = mapping(parsed(str(step.get("payload")).encode(errors="surrogatepass")))
            yield decoded(payload.get("data"), payload.get("metadata"), (run,), runs.decoder(run))
        if kind.endswith("_END"):
            runs.ended(uuid)

    return read


GENERATE_FULL = RecordedFormat(
    name="NAT /generate/full stream",
    looks_like='intermediate_data: {"type": "TTC_END", "payload": "…"}',
    recognises=_recognises,
    reader=_reader,
    cut=Cut.TOGETHER,
    is_json=False,
)

"""`workflow_output.json`, which `nat eval` writes: an array of items with their steps.

NAT leaves TTC steps out unless `eval.general.output.workflow_output_step_filter` names TTC_END, and writes no file
without an evaluator. Keys can be renamed (`dataset.structure`), so the steps are found by what they are.
"""

from collections.abc import Iterator, Mapping

from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.steps import decoded, is_asked_for, is_step
from nat_dpo_pipeline.records.values import (
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    named,
)

_USUAL_KEY = "intermediate_steps"


def _steps(item: Mapping[str, object]) -> list[object]:
    usual = item.get(_USUAL_KEY)
    if isinstance(usual, list):
        return usual
    return next((value for value in item.values() if isinstance(value, list) and value and is_step(value[0])), [])


def _recognises(value: object) -> bool:
    item = mapping(value)
    return isinstance(item.get(_USUAL_KEY), list) or bool(_steps(item))


def _reader(shared: Shared) -> Read:
    def read(record: Record) -> Iterator[Found | Refused]:
        item = mapping(record.value)
        decoder = CandidateDecoder(named(item.get("id")) or f"row-{record.place}")
        for step in _steps(item):
            payload = mapping(mapping(step).get("payload"))
            if is_asked_for(payload, shared):
                scope = (str(record.file), str(record.place))
                yield decoded(payload.get("data"), payload.get("metadata"), scope, decoder)

    return read


WORKFLOW_OUTPUT = RecordedFormat(
    name="NAT workflow output",
    looks_like='[{"id", "intermediate_steps": [{"payload": {"event_type": "TTC_END", …}}]}]',
    recognises=_recognises,
    reader=_reader,
    hint="NAT leaves TTC steps out unless eval.general.output.workflow_output_step_filter is [TTC_END]",
)

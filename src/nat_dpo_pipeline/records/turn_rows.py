"""One row a turn: `candidates.jsonl` of `nat dpo generate`, and what `scored_candidates` reads."""

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.values import Cut, RecordedFormat


def _recognises(value: object) -> bool:
    return "prompt" in mapping(value) and isinstance(mapping(value).get("candidates"), list)


TURN_ROWS = RecordedFormat(
    name="turn rows",
    looks_like='{"prompt", "candidates": [{"response", "score"}, …]}',
    recognises=_recognises,
    cut=Cut.LINES,
)

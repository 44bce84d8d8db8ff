"""Rows of candidates: one a turn, as `nat dpo generate` leaves them, or one a candidate, as the exporter writes them;
rollouts with a reward each. `records/rows.py` reads them all.
"""

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.values import Cut, RecordedFormat


def _is_turn_row(value: object) -> bool:
    return "prompt" in mapping(value) and isinstance(mapping(value).get("candidates"), list)


TURN_ROWS = RecordedFormat(
    name="turn rows",
    looks_like='{"prompt", "candidates": [{"response", "score"}, …]}',
    recognises=_is_turn_row,
    cut=Cut.LINES,
)


def _is_row(value: object, score: str) -> bool:
    return {"prompt", "response", score} <= mapping(value).keys()


FLAT_ROWS = RecordedFormat(
    name="flat candidate rows",
    looks_like='{"example_id", "turn_id", "prompt", "response", "score"}',
    recognises=lambda value: _is_row(value, "score"),
    cut=Cut.LINES,
)
ROLLOUT_ROWS = RecordedFormat(
    name="rollout rows",
    looks_like='{"prompt", "response", "reward"}',
    recognises=lambda value: _is_row(value, "reward"),
    cut=Cut.LINES,
    score_name="reward",
)

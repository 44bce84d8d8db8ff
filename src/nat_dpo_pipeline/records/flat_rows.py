"""One row a candidate: what the `dpo_candidates` exporter writes, and rollouts with a reward each."""

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.values import Cut, RecordedFormat


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

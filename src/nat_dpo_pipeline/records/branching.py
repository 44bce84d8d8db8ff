"""Columns with rollouts → columns with single replies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from nat_dpo_pipeline.core.branches import Branch, Path, branches_of
from nat_dpo_pipeline.core.messages import Prompt, Rollout, without_thoughts
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason
from nat_dpo_pipeline.core.strategies import Thoughts
from nat_dpo_pipeline.records.columns import Columns, joined, objects


def without_rollouts(columns: Columns, rules: PairingRules, skipped: Counter[SkipReason]) -> Columns:
    """Return whole turns, those of rollouts as turns of single replies; what `rules` leave out is counted."""
    kinds = set(map(type, columns.response.tolist()))
    if rules.thoughts is Thoughts.DROP and kinds - {str}:
        columns = replace(columns, response=objects(map(without_thoughts, columns.response), len(columns)))
    if Rollout not in kinds:
        return columns
    cuts = [0, *(np.flatnonzero(columns.borders()) + 1).tolist(), len(columns)]
    parts = [one for start, stop in pairwise(cuts) for one in _parts(columns, range(start, stop), rules, skipped)]
    return joined(parts) if parts else columns.take(slice(0, 0))


def _parts(columns: Columns, rows: range, rules: PairingRules, skipped: Counter[SkipReason]) -> list[Columns]:
    by_prompt: dict[Prompt, list[int]] = {}
    for row in rows:
        by_prompt.setdefault(columns.prompt[row], []).append(row)
    return [part for same in by_prompt.values() for part in _of_task(columns, same, rules, skipped)]


def _of_task(columns: Columns, rows: Sequence[int], rules: PairingRules, skipped: Counter[SkipReason]) -> list[Columns]:
    if not any(isinstance(columns.response[row], Rollout) for row in rows):
        return [columns.take(np.array(rows))]
    paths = [
        Path.of(columns.candidate(row, place), is_flawed=bool(columns.is_flawed[row])) for place, row in enumerate(rows)
    ]
    return [_as_columns(columns, rows[0], branches) for branches in branches_of(paths, rules, skipped)]


def _as_columns(columns: Columns, row: int, branches: Sequence[Branch]) -> Columns:
    """Return the candidates of a turn as rows, of the run and the line of `row`."""
    count = len(branches)
    candidates = [branch.candidate for branch in branches]
    line, run_id, *_ = columns.key(row)
    return Columns(
        line=np.full(count, line, dtype=np.int64),
        run_id=objects([run_id] * count, count),
        example_id=objects((one.example_id for one in candidates), count),
        turn_id=objects((one.turn_id for one in candidates), count),
        prompt=objects([candidates[0].prompt] * count, count),
        response=objects((one.response for one in candidates), count),
        score=np.array([one.score for one in candidates], dtype=np.float64),
        is_flawed=np.array([branch.is_flawed for branch in branches], dtype=bool),
        raw=objects(({"candidate_index": one.candidate_index, "metadata": one.metadata} for one in candidates), count),
    )

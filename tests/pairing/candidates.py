"""Candidates for a run over files, and what the path in memory makes of them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
from pyarrow import parquet

from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, pair_turn
from nat_dpo_pipeline.core.selection import Selection, SelectionRules
from nat_dpo_pipeline.core.split import deduplicate, is_held_out, sample, stratified_validation_prompts
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName, formats_named, row_of
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset
from nat_dpo_pipeline.pairing.options import PairingOptions
from nat_dpo_pipeline.records.turns import read_turns
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

Row = dict[str, Any]


def make_rows(turns: int, seed: int = 0, *, most: int = 6) -> list[Row]:
    """Candidates with ties, twins, blanks, texts and prompts that repeat, and everything else that a row may say."""
    draw = Random(seed)
    rows = []
    for turn in range(turns):
        # Some ask the same and answer it alike, so that pairs repeat and contradict each other.
        pool = ("yes", "no", " no") if draw.random() < 0.4 else ()
        prompt: Any = (
            "Is it 1, 2 or 3?" if pool else f"Why is {draw.randrange(turns)} so, «{draw.choice(['a', 'b  c', 'ü'])}»?"
        )
        if draw.random() < 0.2:
            system = [{"role": "system", "content": "Be brief."}] if draw.random() < 0.5 else []
            prompt = [*system, {"role": "user", "content": prompt}]
        for index in range(draw.randrange(most)):
            text = draw.choice(
                pool or ["", " ", "\u3000", *(f"It is {draw.randrange(9)}. " * draw.randrange(1, 30) for _ in range(9))]
            )
            rows.append(
                {
                    "example_id": f"example-{turn // 3}",
                    "turn_id": f"turn-{turn}",
                    "candidate_index": index,
                    "prompt": prompt,
                    "response": text,
                    "score": draw.choice([None, 0.5, 1.5, draw.gauss(0, 2), draw.gauss(0, 2)]),
                    "model": draw.choice(["m", "n"]),
                    "attributes": {"helpfulness": draw.random()},
                    "metadata": {"flaw": "truncated"} if draw.random() < 0.1 else {},
                }
            )
    return rows


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], rows_a_group: int = 7) -> Path:
    """Prompts of messages in a list, or else texts: a column has one type."""
    flat = [{name: value for name, value in row.items() if name != "metadata"} for row in rows]
    flaws = [{"flaw": row.get("metadata", {}).get("flaw")} for row in rows]
    table = pyarrow.Table.from_pylist([{**row, **flaw} for row, flaw in zip(flat, flaws, strict=True)])
    parquet.write_table(table, path, row_group_size=rows_a_group)
    return path


def by_the_core(
    folder: Path, path: Path, rules: PairingRules, selection: SelectionRules, options: PairingOptions
) -> Counter[str]:
    """What the core and the writer of datasets make of all turns at once, and the pairs left out by reason."""
    skipped: Counter[SkipReason] = Counter()
    turns = read_turns([str(path)], DEFAULT_STEP_NAME)
    pairs = [pair for turn in turns for pair in pair_turn(turn, rules, skipped)]
    if options.decontamination is not None:
        evaluation = EvaluationSet(options.decontamination.texts, options.decontamination.ngram)
        selection = SelectionRules(
            evaluation, *(getattr(selection, name) for name in list(SelectionRules.__slots__)[1:])
        )
    if not selection.is_empty:
        verdicts = Selection.of(selection, pairs)
        skipped += verdicts.skipped
        pairs = list(verdicts.kept(pairs))
    left_out = Counter({str(reason): count for reason, count in skipped.items()})
    if options.deduplicate:
        distinct = deduplicate(pairs, lambda pair: (pair.chosen.prompt, pair.chosen.response, pair.rejected.response))
        left_out["duplicate_pairs"] += len(pairs) - len(distinct)
        pairs = distinct
    if options.max_pairs is not None:
        left_out["over_max_pairs"] += max(len(pairs) - options.max_pairs, 0)
        pairs = sample(pairs, options.max_pairs, options.seed)
    rows = [row_of(pair) for pair in pairs]
    write_dataset(folder, _split(rows, options), Provenance(0, {}, {}), Target(options.formats))
    return +left_out


def _split(rows: Sequence[PreferenceRow], options: PairingOptions) -> dict[SplitName, list[PreferenceRow]]:
    fraction, seed = options.validation_fraction, options.seed
    keyed = [(prompt_key(row.prompt), row.subtopic or "") for row in rows]
    late = stratified_validation_prompts(keyed if options.stratify else [(key, "") for key, _ in keyed], fraction, seed)
    sides: dict[SplitName, list[PreferenceRow]] = {side: [] for side in SplitName}
    for row, (key, _) in zip(rows, keyed, strict=True):
        is_out = key in late if options.is_split_late else is_held_out(key, fraction, seed)
        sides[SplitName.VALIDATION if is_out else SplitName.TRAIN].append(row)
    return sides


def lines_in(folder: Path, one: str, side: SplitName, *, shards: bool) -> list[bytes]:
    """The lines of a side of a format."""
    if shards:
        found = sorted((folder / one).glob(f"{side}-*.jsonl"))
    else:
        found = [folder / one / formats_named([one])[0].files[side]]
    return [line for path in found for line in path.read_bytes().splitlines(keepends=True)]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but its lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

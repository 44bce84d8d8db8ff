"""One task in this process makes what any number of tasks make, and what the core makes of the same turns."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.formats import FORMATS, SplitName
from nat_dpo_pipeline.dataset.writer import Target
from nat_dpo_pipeline.pairing import engines
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import Decontamination, EngineName, PairedFiles, PairingOptions, Written
from tests.pairing.candidates import by_the_core, lines_in, make_rows, snapshot, write_jsonl, write_parquet

ALL = SelectionRules()
SELECTIONS = st.builds(
    SelectionRules,
    drop_contradictions=st.booleans(),
    max_prompts_per_chosen=st.none() | st.integers(1, 3),
    min_margin_quantile=st.none() | st.sampled_from([0.1, 0.5, 0.9]),
    length_balance=st.none() | st.sampled_from([0.2, 0.5]),
)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # What carries the shards makes no difference; tests of that are elsewhere.
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())


def check_same(
    folder: Path, path: Path, rules: PairingRules, selection: SelectionRules, options: PairingOptions
) -> PairedFiles:
    whole = pair_files(
        [str(path)],
        str(folder / "whole"),
        rules,
        selection,
        replace(options, engine=EngineName.MEMORY),
        written=Written(Target(options.formats)),
    )
    result = pair_files([str(path)], str(folder / "shards"), rules, selection, options)
    assert (whole.skipped, whole.refused, whole.pairs) == (result.skipped, result.refused, result.pairs)
    assert (whole.candidates, whole.turns, whole.turns_split) == (result.candidates, result.turns, result.turns_split)
    for name in options.formats:
        for side in SplitName:
            assert lines_in(folder / "shards", name, side, shards=True) == lines_in(
                folder / "whole", name, side, shards=False
            )
    return result


def check_core(
    folder: Path, path: Path, rules: PairingRules, selection: SelectionRules, options: PairingOptions
) -> PairedFiles:
    """As check_same, and against the core, which has no singles."""
    result = check_same(folder, path, rules, selection, options)
    assert result.skipped == by_the_core(folder / "core", path, rules, selection, options)
    for name in options.formats:
        for side in SplitName:
            assert lines_in(folder / "shards", name, side, shards=True) == lines_in(
                folder / "core", name, side, shards=False
            )
    return result


def test_every_format_is_written_byte_for_byte_as_by_the_core(tmp_path: Path) -> None:
    rows = make_rows(120)
    options = PairingOptions(formats=tuple(one.name for one in FORMATS), shard_bytes=5000, validation_fraction=0.3)
    result = check_core(tmp_path, write_jsonl(tmp_path / "rows.jsonl", rows), PairingRules(), ALL, options)
    assert result.shards > 10
    assert result.pairs[SplitName.VALIDATION] > 10
    assert result.candidates + sum(result.refused.values()) == len(rows)
    assert not result.scattered


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    SELECTIONS,
    st.booleans(),
    st.none() | st.integers(1, 60),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_what_the_whole_run_decides_is_decided_as_by_the_core(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    selection: SelectionRules,
    deduplicate: bool,
    max_pairs: int | None,
    is_decontaminated: bool,
    is_exact: bool,
    is_stratified: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    rows = make_rows(25, seed)
    against = Decontamination([f"Why is {n} so, a" for n in range(12)], 4) if is_decontaminated else None
    options = PairingOptions(
        deduplicate=deduplicate,
        max_pairs=max_pairs,
        seed=seed,
        decontamination=against,
        shard_bytes=2000,
        exact_split=is_exact,
        stratify=is_stratified,
    )
    check_core(folder, write_jsonl(folder / "rows.jsonl", rows), PairingRules(), selection, options)


@pytest.mark.parametrize("rows_a_group", [1, 7, 1000])
def test_parquet_and_jsonl_give_the_same_pairs(tmp_path: Path, rows_a_group: int) -> None:
    rows = [row for row in make_rows(80) if isinstance(row["prompt"], str)]
    options = PairingOptions(shard_bytes=3000, formats=("trl", "kto"))
    path = write_parquet(tmp_path / "rows.parquet", rows, rows_a_group)
    check_core(tmp_path, path, PairingRules(), ALL, options)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("files", [1, 4])
def test_scattered_candidates_meet(tmp_path: Path, kind: str, files: int) -> None:
    rows = [row for row in make_rows(80) if isinstance(row["prompt"], str)]
    Random(1).shuffle(rows)
    write = write_jsonl if kind == "jsonl" else write_parquet
    (tmp_path / "rows").mkdir()
    for number in range(files):
        write(tmp_path / "rows" / f"part-{number}.{kind}", rows[number::files])
    options = PairingOptions(shard_bytes=3000)
    result = check_same(tmp_path, tmp_path / "rows", PairingRules(), ALL, options)
    assert result.scattered
    by_the_core(tmp_path / "core", tmp_path / "rows", PairingRules(), ALL, options)
    for side in SplitName:
        found, expected = (
            lines_in(tmp_path / name, "trl", side, shards=name == "shards") for name in ("shards", "core")
        )
        assert sorted(found) == sorted(expected)


def test_a_turn_that_goes_on_in_a_later_file_is_found_at_the_end(tmp_path: Path) -> None:
    rows = [
        {"example_id": "e", "turn_id": f"turn-{turn}", "prompt": "p", "response": f"{turn} {n}", "score": float(n)}
        for turn in range(40)
        for n in range(4)
    ]
    write_jsonl(tmp_path / "a.jsonl", [*rows[:100], rows[-1]])
    write_jsonl(tmp_path / "b.jsonl", rows[100:-1])
    result = pair_files(
        [str(tmp_path)], str(tmp_path / "out"), PairingRules(), options=PairingOptions(shard_bytes=1000)
    )
    assert result.scattered
    assert (result.turns, sum(result.pairs.values())) == (40, 40 * 6)


def test_turn_rows_are_turns_whatever_they_are_called(tmp_path: Path) -> None:
    turns = [
        {"id": "same", "prompt": "p", "candidates": [{"response": f"{n} {k}", "score": k} for k in range(3)]}
        for n in range(30)
    ]
    path = write_jsonl(tmp_path / "turns.jsonl", [*turns, {**turns[0], "set_aside": "too few"}])
    result = pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=PairingOptions(shard_bytes=300))
    assert (result.turns, sum(result.pairs.values()), result.scattered) == (30, 90, False)


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", make_rows(30))
    options = PairingOptions(shard_bytes=2000)
    first = pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options)
    before = snapshot(tmp_path / "out")
    again = pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options)
    assert snapshot(tmp_path / "out") == before
    assert (again.pairs, again.resumed, first.resumed) == (first.pairs, first.shards, 0)

"""What is killed, at any moment, loses and doubles nothing; what is already there is not made again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import PairingOptions
from tests.pairing.candidates import make_rows, snapshot, write_jsonl
from tests.pairing.killing import (
    children,
    command,
    count_files,
    killing,
    moments,
    run_and_kill,
    run_counting_files,
    run_to_its_end,
)

TURNS = 700
#: A shard that is looked at once, twice because the whole run decides, and one that is partitioned first.
WAYS: dict[str, dict[str, Any]] = {
    "at once": {},
    "decided": {"deduplicate": True, "max_pairs": 1400, "min_margin_quantile": 0.2},
    "scattered": {"scattered": True, "deduplicate": True},
}
MOMENTS = 5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("input") / "rows.jsonl", make_rows(TURNS))


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert not workers()


def workers() -> list[int]:
    return children("nat_dpo_pipeline.pairing.worker")


def options_of(way: str) -> dict[str, Any]:
    return {"shard_bytes": 40_000, "workers": 2, "formats": ["trl", "kto"], **WAYS[way]}


@pytest.mark.parametrize("way", WAYS)
def test_a_command_killed_at_any_moment_leaves_what_the_next_one_completes(
    tmp_path: Path, path: Path, way: str
) -> None:
    most = run_counting_files(command(path, tmp_path / "whole", options_of(way)), tmp_path / "whole")
    expected = snapshot(tmp_path / "whole")
    killed = 0
    for files in moments(most, MOMENTS if way == "decided" else 3, way):
        output = tmp_path / f"killed-at-{files}"
        options = options_of(way)
        killed += run_and_kill(
            command(path, output, options), lambda at=files, folder=output: count_files(folder) >= at
        )
        run_to_its_end(command(path, output, {**options, "workers": 1}))
        assert snapshot(output) == expected
    assert killed


def test_a_worker_killed_at_any_moment_is_replaced(tmp_path: Path, path: Path) -> None:
    options = PairingOptions(shard_bytes=40_000, workers=2, deduplicate=True)
    pair_files([str(path)], str(tmp_path / "whole"), PairingRules(), options=options)
    expected = snapshot(tmp_path / "whole")
    killed = 0
    for files in moments(len(expected), MOMENTS, "worker"):
        output = tmp_path / f"killed-at-{files}"
        with killing(workers, lambda at=files, folder=output: count_files(folder) >= at, files) as victims:
            pair_files([str(path)], str(output), PairingRules(), options=options)
        killed += len(victims)
        assert snapshot(output) == expected
    assert killed > MOMENTS // 2


def test_a_shard_that_ends_its_process_each_time_is_named(tmp_path: Path, path: Path) -> None:
    options = PairingOptions(workers=1, retries=0)
    with (
        killing(workers, lambda: True),
        pytest.raises(OutputError, match=r"shard 0 ended its process 1 times, at last with signal 9.*shard_bytes"),
    ):
        pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options)


def test_only_what_is_missing_is_made(tmp_path: Path, path: Path) -> None:
    heard: list[tuple[str, int, int]] = []

    def stop_in_the_middle(stage: str, done: int, tasks: int) -> None:
        heard.append((stage, done, tasks))
        if done >= tasks // 2:
            raise KeyboardInterrupt

    options = PairingOptions(shard_bytes=40_000, workers=2)
    with pytest.raises(KeyboardInterrupt):
        pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options, told=stop_in_the_middle)
    _, done, tasks = heard[-1]
    again: list[tuple[str, int, int]] = []
    result = pair_files(
        [str(path)], str(tmp_path / "out"), PairingRules(), options=options, told=lambda *one: again.append(one)
    )
    assert again[0] == ("pair", done, tasks)
    assert result.resumed == done
    assert again[-1] == ("pair", tasks, tasks)


def test_another_run_into_the_same_folder_is_refused_with_what_differs(tmp_path: Path, path: Path) -> None:
    output = str(tmp_path / "out")
    pair_files([str(path)], output, PairingRules(), options=PairingOptions(workers=1))
    with pytest.raises(OutputError, match=r"min_score_diff, now 0\.5 and then 0\.0.*overwrite"):
        pair_files([str(path)], output, PairingRules(min_score_diff=0.5), options=PairingOptions(workers=1))
    with pytest.raises(OutputError, match=r"min_margin_quantile, now 0\.5"):
        pair_files(
            [str(path)], output, PairingRules(), SelectionRules(min_margin_quantile=0.5), PairingOptions(workers=1)
        )
    with path.open("a") as file:
        file.write('{"turn_id": null, "score": 1.0, "prompt": "p", "response": "r"}\n')
    with pytest.raises(OutputError, match=r"the input '.*rows\.jsonl'"):
        pair_files([str(path)], output, PairingRules(), options=PairingOptions(workers=1))
    result = pair_files([str(path)], output, PairingRules(), options=PairingOptions(workers=1, overwrite=True))
    assert result.refused["missing_turn_id"] == 1


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, path: Path) -> None:
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="was not written by this package"):
        pair_files([str(path)], str(tmp_path), PairingRules(), options=PairingOptions(workers=1, overwrite=True))
    assert (tmp_path / "trl" / "mine.txt").read_text() == "mine"

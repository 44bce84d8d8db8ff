import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_dpo_pipeline.trainers.trl.checkpoints import damage, is_due, newest_valid, remove_damaged


def _weights(path: Path) -> None:
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


def _checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    _weights(path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(path / name, "w") as file:
            file.writestr("data", "x" * 100)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _rename_tensor_file(path: Path) -> None:
    path.with_name("model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "model-00002-of-00002.safetensors"}}'
    )


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state missing": lambda path: (path / "trainer_state.json").unlink(),
    "state cut": lambda path: _cut(path / "trainer_state.json"),
    "state of another step": lambda path: (path / "trainer_state.json").write_text('{"global_step": 1}'),
    "state no object": lambda path: (path / "trainer_state.json").write_text("[]"),
    "weights missing": lambda path: (path / "model.safetensors").unlink(),
    "weights cut": lambda path: _cut(path / "model.safetensors"),
    "weights empty": lambda path: (path / "model.safetensors").write_bytes(b""),
    "weights are something else": lambda path: (path / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]"),
    "shard missing": lambda path: _rename_tensor_file(path / "model.safetensors"),
    "index damaged": lambda path: (path / "model.safetensors.index.json").write_text("{"),
    "optimizer cut": lambda path: _cut(path / "optimizer.pt"),
    "scheduler missing": lambda path: (path / "scheduler.pt").unlink(),
    "scaler cut": lambda path: (path / "scaler.pt").write_bytes(b"PK"),
    "random state missing": lambda path: (path / "rng_state.pth").unlink(),
}


@pytest.mark.parametrize("harm", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_removed(harm: Callable[[Path], object], tmp_path: Path) -> None:
    older, newer = _checkpoint(tmp_path, 9), _checkpoint(tmp_path, 10)
    assert damage(newer) is None
    harm(newer)
    assert newest_valid(tmp_path) == older
    assert set(remove_damaged(tmp_path)) == {"checkpoint-10"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]


def test_the_newest_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    for step in (2, 100, 20):
        _checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-999-copy").mkdir()
    assert newest_valid(tmp_path) == tmp_path / "checkpoint-100"
    assert remove_damaged(tmp_path) == {}


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path / "missing") is None


def test_one_is_due_every_ten_minutes_but_not_when_the_model_is_written_anyway() -> None:
    assert not is_due(599.0, 7, 100)
    assert is_due(600.0, 7, 100)
    assert not is_due(6000.0, 100, 100)

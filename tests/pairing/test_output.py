"""What is written: Parquet that readers of datasets take, a card, a manifest, and object storage."""

import hashlib
import json
from pathlib import Path

import pytest
from datasets import load_dataset
from pyarrow import parquet

from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.split import is_held_out
from nat_dpo_pipeline.dataset.formats import FORMATS, SplitName
from nat_dpo_pipeline.pairing import engines
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import FileKind, PairingOptions
from nat_dpo_pipeline.records.places import place
from tests.pairing.candidates import lines_in, make_rows, write_jsonl

PARQUET = [one.name for one in FORMATS if one.columns is not None]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", make_rows(60))


def test_parquet_holds_what_jsonl_holds(tmp_path: Path, path: Path) -> None:
    for kind in FileKind:
        options = PairingOptions(formats=tuple(PARQUET), kind=kind, shard_bytes=4000)
        pair_files([str(path)], str(tmp_path / kind), PairingRules(), options=options)
    for name in PARQUET:
        for side in SplitName:
            lines = [json.loads(line) for line in lines_in(tmp_path / "jsonl", name, side, shards=True)]
            shards = sorted((tmp_path / "parquet" / name).glob(f"{side}-*.parquet"))
            assert [row for shard in shards for row in parquet.read_table(shard).to_pylist()] == lines
            assert lines or name == "steerlm"


@pytest.mark.parametrize("kind", list(FileKind))
def test_datasets_loads_the_shards_by_the_card(tmp_path: Path, path: Path, kind: FileKind) -> None:
    options = PairingOptions(kind=kind, shard_bytes=4000)
    result = pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options)
    loaded = load_dataset(str(tmp_path / "out"), "trl", cache_dir=str(tmp_path / "cache"))
    assert {side: len(loaded[side]) for side in loaded} == {str(side): n for side, n in result.pairs.items()}
    assert loaded["train"][0]["chosen"][0]["role"] == "assistant"


def test_the_manifest_lists_each_file_with_its_hash(tmp_path: Path, path: Path) -> None:
    result = pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=PairingOptions(shard_bytes=4000))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert len(manifest["files"]) == len(result.files) > 5
    for file in manifest["files"]:
        content = (tmp_path / "out" / file["path"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert (file["size"], file["rows"]) == (len(content), content.count(b"\n"))
    assert not (tmp_path / "out" / ".scale").exists()


def test_a_prompt_is_on_one_side_in_every_run(tmp_path: Path, path: Path) -> None:
    options = PairingOptions(validation_fraction=0.4, seed=3)
    pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=options)
    for side in SplitName:
        for line in lines_in(tmp_path / "out", "trl", side, shards=True):
            messages = json.loads(line)["prompt"]
            key = (
                prompt_key(messages[0]["content"])
                if len(messages) == 1
                else "\x1e".join(f"{one['role']}\x1f{prompt_key(one['content'])}" for one in messages)
            )
            assert is_held_out(key, 0.4, 3) is (side is SplitName.VALIDATION)


def test_fsspec_reaches_what_pyarrow_does_not(path: Path) -> None:
    root = place("memory://candidates")
    (root / "rows.jsonl").write(path.read_bytes())
    options = PairingOptions(shard_bytes=4000, deduplicate=True)
    result = pair_files(["memory://candidates"], "memory://pairs", PairingRules(), options=options)
    again = pair_files(["memory://candidates"], "memory://pairs", PairingRules(), options=options)
    assert sum(result.pairs.values()) > 30
    assert again.resumed == result.shards
    assert len((place("memory://pairs") / "trl").files()) == len(result.files) + 1

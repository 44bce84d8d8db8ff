"""Whatever bytes a file holds: one line and exit code 1, or the rest of it. No traceback, and nothing half made.

`pytest tests/test_damaged_files.py --fuzz 5000` damages each file so many times; the same number is the same damage.
"""

import gzip
import json
import resource
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pytest
import yaml
from click.testing import CliRunner, Result
from pyarrow import parquet

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.core.printable import printable
from nat_dpo_pipeline.dataset.candidate_log import CandidateLog
from nat_dpo_pipeline.pairing import engines
from nat_dpo_pipeline.plugin.finetuning.saved_job import SavedJob
from nat_dpo_pipeline.plugin.finetuning_config import OpenAITrainerAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import TrainingJobRef
from tests.damage import damaged
from tests.recordings import Recordings

ROOT = Path(__file__).parents[1]
FORMATS = (
    *("trl", "trl_standard", "nemo_customizer", "helix", "helpsteer3", "tulu3", "nemo_rl", "openai"),
    *("llama_factory", "axolotl", "hh", "kto", "steerlm", "ultrafeedback"),
)
RULES = {
    "min_score_diff": 0.5,
    "strategy": "best_vs_worst",
    "source": ["rows.jsonl"],
    "near_duplicate": 0.9,
    "decontaminate_against": "evaluation.jsonl",
    "drop_contradictions": True,
    "max_pairs_per_turn": 3,
}
DAMAGED = (
    *(
        "candidates.jsonl",
        "flat.jsonl",
        "rollouts.jsonl",
        "gym.jsonl",
        "workflow_output.json",
        "steps.jsonl",
        "full.txt",
    ),
    *("events.jsonl", "atif.json", "scores.jsonl", "scores.csv", "flat.parquet", "rules.yml", "evaluation.jsonl"),
    *("inputs.jsonl", "inputs.json", "config.yml", "dataset.jsonl", "dataset.json", "dataset.parquet"),
    *("run/candidates.jsonl", "run/set_aside.jsonl", "run/manifest.json", "run/dataset/manifest.json"),
    *("training/result.json", "training/metrics.jsonl", "job/training_job.json"),
    *("flat.jsonl.gz", "again/journal.sqlite", "again/manifest.json"),
)
_NO_KEYS = dict.fromkeys(("NVIDIA_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "NVIDIA_BASE_URL"))


@dataclass(frozen=True)
class _Files:
    """Sound files by name; the formats of `dataset.jsonl` take turns."""

    sound: Mapping[str, bytes]
    datasets: Mapping[str, bytes]

    def write(self, folder: Path, name: str, number: int, draw: Random | None) -> None:
        for other in self.sound:
            if other == name or other.split("/")[0] == name.split("/")[0] or name in _NEEDS.get(other, ()):
                (folder / other).parent.mkdir(parents=True, exist_ok=True)
                (folder / other).write_bytes(self.sound[other])
        content = self.sound[name]
        if name == "dataset.jsonl":
            content = self.datasets[FORMATS[number % len(FORMATS)]]
        (folder / name).write_bytes(content if draw is None else damaged(content, draw, Path(name).suffix))


# Which files others need beside them.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "flat.jsonl": ("rules.yml", "evaluation.jsonl"),
    "rules.yml": ("evaluation.jsonl",),
    "config.yml": ("inputs.jsonl", "inputs.json", "again/journal.sqlite", "again/manifest.json"),
    "inputs.jsonl": ("config.yml",),
    "evaluation.jsonl": ("rules.yml",),
    "atif.json": ("scores.jsonl", "scores.csv"),
    "scores.jsonl": ("atif.json",),
}


def _commands(name: str, number: int) -> Iterator[list[str]]:
    out = ["-o", "out"]
    match name.split("/")[0]:
        case "candidates.jsonl" | "flat.jsonl" | "flat.jsonl.gz" | "flat.parquet" as rows:
            engine = "local" if rows.endswith(".parquet") or number % 2 else "memory"
            yield ["pairs", rows, *out, "--engine", engine, "-f", FORMATS[number % len(FORMATS)]]
        case "rules.yml" | "evaluation.jsonl":
            yield ["pairs", "flat.jsonl", "--rules", "rules.yml", *out, *(["--engine", "local"] if number % 2 else [])]
        case "atif.json" | "scores.jsonl" | "scores.csv" as given:
            yield ["pairs", "atif.json", given if given != "atif.json" else "scores.jsonl", *out]
        case "inputs.jsonl" | "inputs.json" | "config.yml" as given:
            inputs = "inputs.jsonl" if given == "config.yml" else given
            yield ["generate", "--config_file", "config.yml", "--dry-run", "--dataset", inputs]
        case "dataset.jsonl" | "dataset.json" | "dataset.parquet" as given:
            yield ["inspect", given]
        case "run":
            yield ["report", "run", "--text"]
            yield ["report", "run"]
            yield ["export", "run", *out, "-f", "trl", "-f", "kto", "-f", "helpsteer3"]
        case "again":
            yield ["generate", "--config_file", "config.yml", "-o", "again", "--topic", "Text"]
        case "training":
            yield ["report", "training", "--text"]
            yield ["report", "training"]
        case "job":
            yield ["status", "job"]
        case given:
            yield ["pairs", given, *out]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _flat(questions: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "run_id": "r",
            "example_id": f"e{question}",
            "turn_id": "t",
            "candidate_index": place,
            "prompt": [{"role": "user", "content": f"Why {question}?"}],
            "response": f"So {question} {place}.",
            "score": float(place),
            "model": "m",
            "attributes": {"truth": 1.5, "helpfulness": 3.0},
            "metadata": {"topic": "chess", "flaw": None, "scores": {"a": [1, 2]}},
        }
        for question in range(questions)
        for place in range(3)
    ]


def _gym() -> list[dict[str, Any]]:
    return [
        {
            "responses_create_params": {
                "input": [{"role": "user", "content": f"Why {task}?"}],
                "instructions": "Be brief.",
            },
            "response": {
                "model": "m",
                "status": "completed",
                "output": [
                    {"type": "reasoning", "summary": []},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"{place}"}]},
                ],
            },
            "reward": float(place),
            "agent_ref": {"name": "simple"},
            "_ng_task_index": task,
            "_ng_rollout_index": place,
        }
        for task in range(3)
        for place in range(2)
    ]


def _parquet(path: Path, rows: list[dict[str, Any]]) -> bytes:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.read_bytes()


def _log(path: Path) -> bytes:
    log = CandidateLog(path, 1 << 20)
    for row in _flat():
        log.append(row)
    log.close()
    return path.read_bytes()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, recordings: Recordings) -> _Files:
    """As the package, NAT and NeMo Relay write them, where they do."""
    folder, recorded = tmp_path_factory.mktemp("sound"), recordings.folder
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    source["workflow"] |= {"n_subtopics": 2, "n_questions": 2, "n_responses": 3}
    (folder / "config.yml").write_text(yaml.safe_dump(source))
    words = ["--config_file", str(folder / "config.yml"), "-o", str(folder / "run"), "--topic", "Text"]
    _sound(["generate", *words])
    exported = [word for name in FORMATS for word in ("-f", name)]
    _sound(["export", str(folder / "run"), "-o", str(folder / "exported"), "--parquet", *exported])
    datasets = {name: next((folder / "exported" / name).rglob("*.jsonl")).read_bytes() for name in FORMATS}
    job = TrainingJobRef(run_id="run", backend="openai", metadata={"job_id": "ftjob-1"})
    adapter = OpenAITrainerAdapterConfig(model="gpt", base_url="http://127.0.0.1:9", request_timeout=5)
    SavedJob.of(job, adapter).write(folder)
    aside = {
        "set_aside": "near_identical",
        "unscored": [{"response": "a", "flaw": "truncated", "reason": "truncated_reply"}],
    }
    rows = _flat()
    result = {
        "model": {"base": "tiny"},
        "sentence": "It learned.",
        "learned": True,
        "figures": {"held_out_accuracy_before": 0.5, "held_out_accuracy_after": 0.9, "p_value": 0.01},
        "training": {"steps": 20, "pairs": 100},
        "settings": {"beta": 0.1, "lora": {"rank": 8}, "loss_type": ["sigmoid"]},
        "versions": {"trl": "1"},
    }
    curves = [{"step": step, "loss": 1 / step, "rewards/accuracies": 0.5, "eval_accuracy": 0.5} for step in range(1, 5)]
    first = datasets["llama_factory"].splitlines()
    relay = [json.loads((recorded / f"relay-{number}.atif.json").read_text()) for number in range(3)]
    sound = {
        "candidates.jsonl": (folder / "run" / "candidates.jsonl").read_bytes(),
        "flat.jsonl": _log(folder / "flat.jsonl"),
        "rollouts.jsonl": _lines(
            [{"prompt": row["prompt"], "response": row["response"], "reward": row["score"]} for row in rows]
        ),
        "gym.jsonl": _lines(_gym()),
        "workflow_output.json": (recorded / "recorded_candidates" / "workflow_output.json").read_bytes(),
        "steps.jsonl": (recorded / "recorded_candidates.jsonl").read_bytes(),
        "full.txt": (recorded / "full.txt").read_bytes(),
        "events.jsonl": (recorded / "events.jsonl").read_bytes(),
        "atif.json": json.dumps(relay).encode(),
        "scores.jsonl": _lines([{"id": one["session_id"], "score": place} for place, one in enumerate(relay)]),
        "scores.csv": "".join(
            ["id,score\n", *(f"{one['session_id']},{place}\n" for place, one in enumerate(relay))]
        ).encode(),
        "flat.parquet": _parquet(folder / "flat.parquet", rows),
        "rules.yml": yaml.safe_dump(RULES).encode(),
        "evaluation.jsonl": _lines(
            [{"question": "What is tea?"}, {"messages": [{"role": "user", "content": "Why 9?"}]}]
        ),
        "inputs.jsonl": _lines([{"id": "a", "topic": "Text"}, {"question": "Why?"}, {"messages": rows[0]["prompt"]}]),
        "inputs.json": json.dumps([{"id": "a", "topic": "Text"}, "Why?", rows[0]["prompt"]]).encode(),
        "config.yml": (folder / "config.yml").read_bytes(),
        "dataset.jsonl": datasets["trl"],
        "dataset.json": b"[" + b",\n".join(first) + b"]",
        "dataset.parquet": next((folder / "exported" / "trl").rglob("*.parquet")).read_bytes(),
        "run/candidates.jsonl": (folder / "run" / "candidates.jsonl").read_bytes(),
        "run/set_aside.jsonl": _lines([{**row, "candidates": [row], **aside} for row in rows[:3]]),
        "run/manifest.json": (folder / "run" / "manifest.json").read_bytes(),
        "run/dataset/manifest.json": (folder / "run" / "dataset" / "manifest.json").read_bytes(),
        "training/result.json": json.dumps(result).encode(),
        "training/metrics.jsonl": _lines(curves),
        "flat.jsonl.gz": gzip.compress(_lines(rows)),
        "again/journal.sqlite": (folder / "run" / "journal.sqlite").read_bytes(),
        "again/manifest.json": (folder / "run" / "manifest.json").read_bytes(),
        "job/training_job.json": (folder / "training_job.json").read_bytes(),
    }
    return _Files(sound, datasets)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _nothing(path: Path) -> None:
    """Leave it away."""


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("put", [Path.mkdir, _loop, _nothing, Path.touch, _socket])
def test_what_is_no_file_is_one_line(
    put: Callable[[Path], None], name: str, files: _Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        files.write(folder, name, 0, None)
        (folder / name).unlink()
        monkeypatch.chdir((folder / name).parent)
        put(folder / name)
        monkeypatch.chdir(folder)
        for words in _commands(name, number):
            done = CliRunner(env=_NO_KEYS).invoke(dpo, words)
            assert (done.exit_code == 2 and done.stderr.startswith("Usage: ")) or _wrong(done, folder) is None, words


@pytest.mark.parametrize("size", [0, 100, 2_000])
@pytest.mark.parametrize(
    "name", ["flat.jsonl", "gym.jsonl", "run/candidates.jsonl", "training/result.json", "config.yml"]
)
def test_a_full_disk_is_one_line(
    size: int, name: str, files: _Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not grow stands in for it: Python reports EFBIG where it would report ENOSPC."""
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())
    generate = ["generate", "--config_file", "config.yml", "-o", "run", "--topic", "Text"]
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        files.write(folder, name, number, None)
        monkeypatch.chdir(folder)
        for words in [generate] if name == "config.yml" else _commands(name, number):
            with _files_of_at_most(size):
                done = CliRunner(env=_NO_KEYS).invoke(dpo, words)
            assert _wrong(done, folder) is None, words
            assert done.exit_code == ("--text" not in words), done.output


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _sound(words: list[str]) -> None:
    done = CliRunner().invoke(dpo, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def _wrong(done: Result, folder: Path) -> str | None:
    """What is wrong with how a command ended."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        frames = traceback.extract_tb(done.exception.__traceback__)
        own = next((one for one in reversed(frames) if "nat_dpo_pipeline" in one.filename), frames[-1])
        kind = f"{type(done.exception).__name__} in {Path(own.filename).name}:{own.lineno}"
        return f"{kind}: {str(done.exception)[:150]!r}"
    lines = done.output.split("\n")
    if unseen := next((line for line in lines if printable(line) != line), None):
        return f"prints {unseen!r:.200}"
    if done.exit_code == 1 and done.stderr and not done.stderr.split("\n")[-2].startswith("Error: "):
        return f"ends with {done.stderr[-200:]!r}"
    if left := [
        path.name for path in folder.rglob("*") if path.name.startswith((".cand", ".trl.")) or ".partial" in path.name
    ]:
        return f"leaves {left}"
    return None if done.exit_code in (0, 1) else f"ends with exit code {done.exit_code}: {done.output!r:.200}"


@pytest.mark.parametrize("name", DAMAGED)
def test_undamaged_files_are_read(name: str, files: _Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())
    monkeypatch.chdir(tmp_path)
    for number in range(len(FORMATS) if name == "dataset.jsonl" else 2):
        files.write(tmp_path, name, number, None)
        for words in _commands(name, number):
            done = CliRunner(env=_NO_KEYS).invoke(dpo, [*words, "--overwrite"] if words[0] == "pairs" else words)
            # Nobody answers where the job was submitted.
            assert done.exit_code == (words[0] == "status"), done.output


@pytest.mark.parametrize("name", DAMAGED)
def test_no_bytes_end_in_a_traceback(
    name: str, files: _Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())
    wrong: dict[str, str] = {}
    for number in range(pytestconfig.getoption("--fuzz")):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        files.write(folder, name, number, Random(f"{name} {number}"))
        for words in _commands(name, number):
            done = CliRunner(env=_NO_KEYS).invoke(dpo, words)
            if (found := _wrong(done, folder)) is not None:
                wrong.setdefault(found, f"{' '.join(words)}  (in {folder})")
        if not any(str(folder) in one for one in wrong.values()):
            monkeypatch.chdir(tmp_path)
            shutil.rmtree(folder)
    assert not wrong, "\n".join(f"{found}\n    {where}" for found, where in wrong.items())

"""The `nat` command line, as a user starts it. Each start costs seconds, so a test looks at as much as it can."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
import yaml
from click.testing import CliRunner
from nat.cli.commands.validate import validate_command

from nat_dpo_pipeline.demo import create_app
from tests.commands import Done, run_nat

ROOT = Path(__file__).parents[1]
MAGPIE = ROOT.parent / "shared" / "data" / "magpie_5x5_armorm.jsonl"
QUESTION = "What does `heapq.nlargest` do?"


def _with_configs(folder: Path) -> Path:
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like the project's root, so that nothing is written there."""
    return _with_configs(tmp_path)


def _finetune(folder: Path, config: str, *arguments: str, afresh: bool = False) -> Done:
    return run_nat(folder, "finetune", "--config_file", f"configs/{config}", *arguments, afresh=afresh)


def _rows(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names for line in (folder / "trl" / name).read_text().splitlines()]


def _prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {json.dumps(row["prompt"]) for row in rows}


def _assert_quiet(done: Done) -> None:
    assert "Traceback" not in done.said
    warnings = [line for line in done.said.splitlines() if "WARNING" in line and "nat_dpo_pipeline" in line]
    assert warnings == []


def test_the_demo_goes_from_topics_to_a_dataset_and_is_the_same_every_time(place: Path) -> None:
    dataset = place / "runs" / "demo" / "dataset"
    done = _finetune(place, "demo.yml")
    assert done.code == 0, done.said
    _assert_quiet(done)
    assert (done.count("topics"), done.count("subtopics")) == (3, 15)
    assert done.count("candidates") == 4 * done.count("questions") > 0
    assert done.count("turns") == done.count("questions")
    assert 0 < done.count("pairs") <= 6 * done.count("turns")
    assert "  skipped pairs " in done.said
    files = {name: dataset / name for name in ("trl/train.jsonl", "trl/validation.jsonl", "manifest.json")}
    assert all(f"runs/demo/dataset/{name}" in done.said for name in files)

    train, validation = _rows(dataset, "train.jsonl"), _rows(dataset, "validation.jsonl")
    assert train
    assert validation
    assert not _prompts(train) & _prompts(validation)
    assert all(row["chosen_score"] - row["rejected_score"] >= 0.1 for row in train + validation)
    manifest = json.loads(files["manifest.json"].read_text())
    assert manifest["counts"] == {"train_pairs": len(train), "validation_pairs": len(validation)}

    before = {name: path.read_bytes() for name, path in files.items() if name.startswith("trl/")}
    assert _finetune(place, "demo.yml", afresh=True).code == 0
    assert {name: files[name].read_bytes() for name in before} == before


def test_a_topic_can_be_run_alone(place: Path) -> None:
    done = run_nat(place, "run", "--config_file", "configs/demo.yml", "--input", "Data structures")
    assert done.code == 0, done.said
    _assert_quiet(done)
    assert '"topics":1' in done.said
    assert '"candidates":80' in done.said


@dataclass(frozen=True)
class Server:
    """The demo model over HTTP, and the paths that it was asked for."""

    url: str
    requests: list[str]


@pytest.fixture
def server() -> Iterator[Server]:
    demo = create_app()
    requests: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        requests.append(scope["path"])
        await demo(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = Thread(target=serving.run, args=([listener],))
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", requests)
        finally:
            serving.should_exit = True
            thread.join()


def _change(folder: Path, config: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "configs" / config
    source = yaml.safe_load(path.read_text())
    change(source)
    path.write_text(yaml.safe_dump(source, sort_keys=False))


def test_a_question_is_asked_of_a_server_once_even_when_the_command_is_repeated(place: Path, server: Server) -> None:
    def served(source: dict[str, Any]) -> None:
        source["workflow"]["journal"] = "calls.sqlite"
        for entry in source["llms"].values():
            entry |= {"_type": "openai", "base_url": server.url}

    _change(place, "demo.yml", served)
    for _ in range(2):
        done = run_nat(place, "run", "--config_file", "configs/demo.yml", "--input", QUESTION)
        assert done.code == 0, done.said
        _assert_quiet(done)
        assert '"questions":1' in done.said
        assert '"candidates":4' in done.said
        assert server.requests == ["/v1/chat/completions"] * 8


def test_the_demo_can_be_evaluated(place: Path) -> None:
    done = run_nat(place, "eval", "--config_file", "configs/demo.yml")
    assert done.code == 0, done.said
    _assert_quiet(done)
    assert "3/3" in done.said
    assert "Workflow Status: COMPLETED" in done.said


@pytest.mark.parametrize("config", sorted(path.name for path in (ROOT / "configs").glob("*.yml")))
def test_a_configuration_is_valid(place: Path, config: str) -> None:
    """In this process, for speed: `nat validate` itself is what loads."""
    result = CliRunner().invoke(validate_command, ["--config_file", str(place / "configs" / config)])
    assert result.exit_code == 0, result.output
    assert "Configuration file is valid" in result.output


@pytest.mark.skipif(not MAGPIE.is_file(), reason=f"{MAGPIE} is not there")
def test_candidates_of_ones_own_become_pairs(place: Path) -> None:
    output = ("-o", "trainer_adapters.dataset.output_dir", str(place / "out"))
    done = _finetune(place, "candidates.yml", "--dataset", str(MAGPIE), *output)
    assert done.code == 0, done.said
    _assert_quiet(done)
    assert (done.count("turns"), done.count("candidates")) == (5, 25)
    expected = [
        (high["response"], low["response"])
        for row in map(json.loads, MAGPIE.read_text().splitlines())
        for high, low in combinations(sorted(row["candidates"], key=lambda one: -one["score"]), 2)
        if high["score"] > low["score"]
    ]
    assert done.count("pairs") == len(expected)
    train, validation = _rows(place / "out", "train.jsonl"), _rows(place / "out", "validation.jsonl")
    found = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in train + validation]
    assert sorted(found) == sorted(set(expected))
    assert len(_prompts(train)) + len(_prompts(validation)) == 5
    assert not _prompts(train) & _prompts(validation)


def test_nvidias_yaml_is_taken_and_malformed_rows_cost_no_good_one(place: Path) -> None:
    def as_nvidias(source: dict[str, Any]) -> None:
        source["workflow"]["ttc_step_name"] = "dpo_move"
        source["trajectory_builders"]["pairs"] = {
            "_type": "dpo_traj_builder",
            "custom_step_name": "dpo_move",
            "exhaustive_pairs": True,
            "min_score_diff": 0.01,
            "max_pairs_per_turn": 5,
            "reward_from_score_diff": True,
            "require_multiple_candidates": True,
        }

    _change(place, "candidates.yml", as_nvidias)
    good = [
        {"prompt": f"Why {n}?", "candidates": [{"response": "So.", "score": n}, {"response": "No.", "score": -1}]}
        for n in range(3)
    ]
    broken = ["not json", '{"prompt": "Why?"}', '{"candidates": []}', json.dumps({**good[0], "prompt": 3})]
    rows = [json.dumps(good[0]), *broken, *map(json.dumps, good[1:])]
    (place / "mine.jsonl").write_text("\n".join(rows))
    done = _finetune(place, "candidates.yml", "--dataset", "mine.jsonl")
    assert done.code == 0, done.said
    assert "Traceback" not in done.said
    assert "`custom_step_name` is an old name of `ttc_step_name`" in done.said
    assert (done.count("candidates"), done.count("pairs")) == (6, 3)
    assert "skipped input         4 malformed_input" in done.said
    runs = place / "runs" / "candidates"
    assert len(_rows(runs / "dataset", "train.jsonl", "validation.jsonl")) == 3
    (failures,) = (runs / "run").glob("failures_*.jsonl")
    assert [json.loads(line)["reason"] for line in failures.read_text().splitlines()] == ["malformed_input"] * 4


def _misspelt(source: dict[str, Any]) -> None:
    source["trainers"]["trainer"]["num_run"] = 2


def _unreachable(source: dict[str, Any]) -> None:
    source["llms"]["writer"] = {
        "_type": "openai",
        "model_name": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "max_retries": 0,
    }


@dataclass(frozen=True)
class Mistake:
    """What a user may get wrong, and what the last line must name."""

    config: str
    says: str
    change: Callable[[dict[str, Any]], None] | None = None
    arguments: tuple[str, ...] = ()
    files: Mapping[str, str] | None = None


MISTAKES = {
    "unknown key": Mistake("demo.yml", "dpo_trainer has no 'num_run'; did you mean 'num_runs'?", _misspelt),
    "unreachable model": Mistake("demo.yml", "m at http://127.0.0.1:9/v1) cannot be reached", _unreachable),
    "missing key": Mistake("nemotron.yml", "NVIDIA_API_KEY"),
    "empty dataset": Mistake(
        "candidates.yml",
        "empty.jsonl' holds no rows",
        arguments=("--dataset", "empty.jsonl"),
        files={"empty.jsonl": ""},
    ),
    "output that is a file": Mistake(
        "candidates.yml",
        "cannot write to 'taken'",
        arguments=("-o", "trainer_adapters.dataset.output_dir", "taken"),
        files={"taken": "a file"},
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """Every mistake, made at once: they share nothing."""

    def make(mistake: Mistake) -> Done:
        folder = _with_configs(tmp_path_factory.mktemp("mistake"))
        for name, text in (mistake.files or {}).items():
            (folder / name).write_text(text)
        if mistake.change:
            _change(folder, mistake.config, mistake.change)
        return _finetune(folder, mistake.config, *mistake.arguments)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(MISTAKES, pool.map(make, MISTAKES.values()), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_last_line(outcomes: dict[str, Done], name: str) -> None:
    done = outcomes[name]
    assert done.code != 0
    assert "Traceback" not in done.said
    assert done.last_line().startswith("Error: "), done.said
    assert MISTAKES[name].says in done.last_line()

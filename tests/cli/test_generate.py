"""The command in this process, over the embedded demo model; tests/test_generate_command.py starts the real one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.cli.generate import generate_command
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response, serving

ROOT = Path(__file__).parents[2]
HEAPS, LISTS, SETS = (f"What does `{name}` do?" for name in ("heapq.nlargest", "bisect.bisect_left", "textwrap.dedent"))
Generate = Callable[..., Result]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NVIDIA_API_KEY", "NVIDIA_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source() -> dict[str, Any]:
    """The demo's configuration, smaller."""
    source: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    source["workflow"] |= {"n_subtopics": 2, "n_questions": 2, "n_responses": 2}
    return source


@pytest.fixture
def generate(tmp_path: Path, source: dict[str, Any]) -> Generate:
    """Runs the command with the configuration as it is by then."""

    def run(*arguments: str) -> Result:
        (tmp_path / "config.yml").write_text(yaml.safe_dump(source))
        options = ["generate", "--config_file", "config.yml", "-o", "run", *arguments]
        return CliRunner().invoke(dpo, options, catch_exceptions=False)

    return run


def _rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def _manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(Path("run/manifest.json").read_bytes())
    return manifest


def test_a_topic_becomes_candidates_and_pairs(generate: Generate) -> None:
    done = generate("--topic", "Data structures", "--topic", HEAPS)
    assert done.exit_code == 0, done.output
    rows = _rows("run/candidates.jsonl")
    assert [row["example_id"] for row in rows] == ["input-1"] * 4 + ["input-2"]
    assert all(len(row["candidates"]) == 2 for row in rows)
    assert rows[-1]["prompt"] == [{"role": "user", "content": HEAPS}]
    assert Path("run/dataset/trl/train.jsonl").stat().st_size
    assert "Complete after" in done.stdout
    assert str(Path("run/candidates.jsonl")) in done.stdout
    assert "responses 10 / 10" in done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", json.dumps([{"id": "a", "question": HEAPS}, {"id": "a", "topic": "Text"}, {"no": "thing"}])),
        ("rows.jsonl", f'{{"id": "a", "question": "{HEAPS}"}}\n{{"id": "a", "topic": "Text"}}\n{{"topic": \n'),
    ],
)
def test_a_file_of_rows_is_read_and_a_bad_row_is_counted(generate: Generate, name: str, text: str) -> None:
    Path(name).write_text(text)
    done = generate("--dataset", name)
    assert done.exit_code == 0, done.output
    assert [row["example_id"] for row in _rows("run/candidates.jsonl")] == ["a"] + ["a#2"] * 4
    assert "1  input  malformed input" in done.stdout
    assert "one by one in run/failures.jsonl" in done.stdout
    (failure,) = _rows("run/failures.jsonl")
    assert failure["detail"].startswith("row-3: ")


def test_a_file_of_plain_lines_is_read(generate: Generate) -> None:
    Path("topics.txt").write_text(f"Text processing\n\n{HEAPS}\n")
    done = generate("--dataset", "topics.txt")
    assert done.exit_code == 0, done.output
    assert [row["topic"] for row in _rows("run/candidates.jsonl")] == ["Text processing"] * 4 + [None]


def test_the_dataset_of_the_evaluation_is_the_default(generate: Generate, source: dict[str, Any]) -> None:
    Path("mine.json").write_text(json.dumps([{"name": "one", "ask": HEAPS}]))
    source["eval"]["general"]["dataset"] = {
        "_type": "json",
        "file_path": "mine.json",
        "id_key": "name",
        "structure": {"question_key": "ask"},
    }
    done = generate()
    assert done.exit_code == 0, done.output
    assert [row["example_id"] for row in _rows("run/candidates.jsonl")] == ["one"]


def test_a_second_start_replays_and_leaves_the_same_bytes(generate: Generate) -> None:
    names = ("candidates.jsonl", "dataset/trl/train.jsonl", "dataset/trl/validation.jsonl")
    assert generate("--topic", "Text").exit_code == 0
    before = {name: Path("run", name).read_bytes() for name in names}
    done = generate("--topic", "Text")
    assert "replies from the journal" in done.stdout
    assert {name: Path("run", name).read_bytes() for name in names} == before
    assert sum(entry["requests"] for entry in _manifest()["spending"]) == 0


def test_without_a_trajectory_builder_there_are_candidates_only(generate: Generate, source: dict[str, Any]) -> None:
    for part in ("trajectory_builders", "trainers", "trainer_adapters", "finetuning"):
        del source[part]
    done = generate("--topic", "Text")
    assert done.exit_code == 0, done.output
    assert _rows("run/candidates.jsonl")
    assert not Path("run/dataset").exists()
    assert "pairs" not in done.stdout


def test_candidates_that_make_no_pair_are_kept_but_no_success(generate: Generate, source: dict[str, Any]) -> None:
    assert generate("--topic", "Text").exit_code == 0
    source["trajectory_builders"]["pairs"]["min_score_diff"] = 1000.0
    done = generate("--topic", "Text")
    assert done.exit_code == 1
    assert "below min score diff" in done.stdout
    assert "Complete" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Error: no pair was made")
    assert Path("run/dataset/trl/train.jsonl").read_bytes() == b""


def test_a_run_without_a_candidate_is_not_called_complete(generate: Generate, source: dict[str, Any]) -> None:
    with serving(LoopbackServer(lambda _: Response(body=completion("No.")))) as url:
        source["llms"]["writer"] = {"_type": "openai", "model_name": "m", "base_url": url}
        done = generate("--topic", "Text")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0].startswith("Ended after ")
    assert "Error: not one candidate was made" in done.stderr
    assert "Complete" not in done.output


def test_a_dry_run_needs_no_key_and_leaves_nothing(generate: Generate, source: dict[str, Any]) -> None:
    for entry in source["llms"].values():
        entry |= {"_type": "nim"}
    before = set(Path().iterdir())
    done = generate("--topic", "Text", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "1 topic → 4 questions → 8 responses" in done.stdout
    assert "4 characters a token" in done.stdout
    assert set(Path().iterdir()) - before == {Path("config.yml")}


def test_a_preview_shows_two_questions_and_what_all_would_take(generate: Generate, source: dict[str, Any]) -> None:
    source["workflow"]["prices"] = {"writer": {"prompt": 1, "completion": 2}, "reward": {"prompt": 1, "completion": 2}}
    done = generate("--topic", "Text", "--topic", "Data structures", "--preview")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("Question ") == 2
    assert "← chosen" in done.stdout
    assert "The whole run would take\n2 topics → 8 questions → 16 responses" in done.stdout
    assert "Tokens are those that the preview took" in done.stdout
    assert not Path("run").exists()


def test_a_preview_of_questions_takes_the_first_two_that_can_be_read(generate: Generate) -> None:
    Path("rows.jsonl").write_text("\n".join(['{"broken": 1}', HEAPS, LISTS, SETS]))
    done = generate("--dataset", "rows.jsonl", "--preview")
    assert done.exit_code == 0, done.output
    shown = [f"Question {place}: {text}" in done.stdout for place, text in enumerate((HEAPS, LISTS, SETS), start=1)]
    assert shown == [True, True, False]
    assert "3 questions (1 malformed input is left out) → 6 responses" in done.stdout
    assert "row-1: a JSON input needs" in done.stdout


def _dead(source: dict[str, Any]) -> None:
    source["llms"]["writer"] = {"_type": "openai", "model_name": "m", "base_url": "http://127.0.0.1:9/v1"}
    source["workflow"]["max_retries"] = 0


def _nim(source: dict[str, Any]) -> None:
    source["llms"]["reward"]["_type"] = "nim"


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown key": (lambda source: source["workflow"].update(n_subtopicz=1), "did you mean 'n_subtopics'?"),
    "unknown llm": (lambda source: source["workflow"].update(writer_llm="nobody"), "names the llm 'nobody'"),
    "missing key": (_nim, "llms.reward (demo/stdlib-reward) has no API key: set NVIDIA_API_KEY"),
    "dead server": (_dead, "not one candidate was made: model 'writer' (m at http://127.0.0.1:9/v1) cannot be reached"),
    "no workflow of ours": (lambda source: source["workflow"].update(_type="scored_candidates"), "cannot be used"),
    "a bad value": (lambda source: source["workflow"].update(n_questions=0), "n_questions is 0"),
    "csv": (
        lambda source: source["eval"]["general"].update(dataset={"_type": "csv", "file_path": "x.csv"}),
        "is of type 'csv', which generate does not read: give --dataset",
    ),
    "a filtered dataset": (
        lambda source: source["eval"]["general"]["dataset"].update(filter={"allowlist": {"field": {"id": ["a"]}}}),
        "has a filter",
    ),
    "nothing": (lambda source: source.pop("eval"), "there is nothing to generate from: give --topic or --dataset"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(generate: Generate, source: dict[str, Any], name: str) -> None:
    change, says = MISTAKES[name]
    change(source)
    inputs = () if name in ("nothing", "csv", "a filtered dataset") else ("--topic", "Text")
    done = generate(*inputs)
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert says in last


def test_a_mistake_costs_nothing_of_an_earlier_run(generate: Generate, source: dict[str, Any]) -> None:
    assert generate("--topic", "Text").exit_code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    _nim(source)
    assert generate("--topic", "Text").exit_code == 1
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_an_empty_file_and_one_of_bad_rows_are_told(generate: Generate) -> None:
    Path("empty.jsonl").touch()
    assert "there is nothing to generate from" in generate("--dataset", "empty.jsonl").stderr
    Path("bad.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert "all 2 inputs are malformed" in generate("--dataset", "bad.jsonl").stderr


def test_a_preview_of_what_cannot_be_reached_is_no_success(generate: Generate, source: dict[str, Any]) -> None:
    _dead(source)
    done = generate("--topic", "Text", "--preview")
    assert done.exit_code == 1
    assert "subtopics: model 'writer' (m at http://127.0.0.1:9/v1) cannot be reached" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Error: not one candidate was made: model 'writer'")


def test_a_bug_is_a_traceback_after_what_was_kept_is_told(
    generate: Generate, source: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "buggy_steps.py").write_text(
        "from nat_dpo_pipeline.generation.steps import Item, Map\n"
        "from nat_dpo_pipeline.generation.turns import Turn\n"
        "async def buggy(item: Item[Turn]) -> Turn:\n"
        "    raise ZeroDivisionError('a bug')\n"
        "def adapt(pipeline):\n"
        "    return pipeline >> Map(buggy)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source["workflow"]["pipeline"] = "buggy_steps.adapt"
    with pytest.raises(ZeroDivisionError, match="a bug"):
        generate("--topic", "Text")
    assert _manifest()["status"] == "failed"


@pytest.mark.parametrize("arguments", [(), ("--preview",)])
def test_a_model_that_ends_is_the_last_line(
    generate: Generate, source: dict[str, Any], arguments: tuple[str, ...]
) -> None:
    def refuse(_: Request) -> Response:
        return Response(402, {"error": {"message": "the credit is used up", "code": "spent"}})

    with serving(LoopbackServer(refuse)) as url:
        source["llms"]["reward"] |= {"_type": "openai", "base_url": url}
        done = generate("--topic", "Text", *arguments)
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: model 'reward'")
    assert "answered 402: the credit is used up" in last


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "out", "--override", "workflow.n_subtopics", "-1"),
        ("--run-dir", "out", "-o", "workflow.n_subtopics", "-1"),
        ("-o", "workflow.n_subtopics", "-1", "--run-dir=out"),
    ],
)
def test_old_spellings_of_options_are_accepted(words: tuple[str, ...]) -> None:
    context = generate_command.make_context("generate", ["--config_file", __file__, *words])
    assert context.params["output"] == Path("out")
    assert context.params["override"] == (("workflow.n_subtopics", "-1"),)


def test_old_spellings_of_options_are_not_shown() -> None:
    shown = CliRunner().invoke(dpo, ["generate", "--help"]).output
    assert "--run-dir" not in shown
    assert "-o, --output DIRECTORY" in shown

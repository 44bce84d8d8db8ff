"""Tables of other people: columns by usual names or by a mapping, in every shape, on every engine."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.options import EngineName, PairingOptions
from nat_dpo_pipeline.records.mapping import at, name_of, parse_mapping, table_named, table_of
from nat_dpo_pipeline.strict import checked
from tests.records.helpers import read

Row = dict[str, Any]
QUESTIONS = ("How many?", "Which one, and why?", "Where?")
SCORES = ((3, 1, 2), (1, 1, 5), (4, 4, 4))
FLAT = [(question, f"answer {place}, to {question}", score)
        for question, scores in zip(QUESTIONS, SCORES, strict=True) for place, score in enumerate(scores)]  # fmt: skip


def _long(prompt: str, response: str, score: str) -> list[Row]:
    return [{prompt: asked, response: said, score: scored} for asked, said, scored in FLAT]


def _of(question: str) -> list[tuple[str, int]]:
    return [(said, score) for asked, said, score in FLAT if asked == question]


LISTS = [{"question": q, "answers": [a for a, _ in _of(q)], "ratings": [s for _, s in _of(q)]} for q in QUESTIONS]
COMPLETIONS = [
    {"instruction": q, "completions": [{"model": "m", "response": a, "overall_score": s} for a, s in _of(q)]}
    for q in QUESTIONS
]


def _sides(question: str) -> Row:
    said = list(enumerate(_of(question), 1))
    answers, ratings = {f"output_{n}": a for n, (a, _) in said}, {f"rating_{n}": s for n, (_, s) in said}
    return {"prompt": question, **answers, **ratings}


SIDES = [_sides(question) for question in QUESTIONS]
MESSAGES = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}], "reward": s} for q, a, s in FLAT
]
SHAPES: dict[str, list[Row]] = {
    "own": _long("prompt", "response", "score"),
    "alpaca": _long("instruction", "output", "rating"),
    "question": _long("question", "answer", "reward"),
    "query": _long("query", "completion", "grade"),
    "lists": LISTS,
    "completions": COMPLETIONS,
    "sides": SIDES,
    "messages": MESSAGES,
}


def _written(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text)
    return path


def _pairs(
    path: Path, columns: Mapping[str, str] | None = None, engine: EngineName = EngineName.MEMORY
) -> list[tuple[str, str, str]]:
    builder = checked(BuilderSettings, {"map": columns})
    out = path.parent / f"out-{engine}-{path.name}"
    settings = (builder, SplitSettings(validation_fraction=0), DatasetSettings(formats=["trl"]))
    pair_as_set([str(path)], str(out), settings, PairingOptions(engine=engine, workers=1, overwrite=True))
    rows = [json.loads(line) for file in sorted(out.glob("trl/*.jsonl")) for line in file.read_bytes().splitlines()]
    return sorted(
        (row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows
    )


EXPECTED = sorted(
    (asked, better, worse)
    for asked, better, high in FLAT
    for other, worse, low in FLAT
    if asked == other and high > low
)


# A cell of CSV holds no list.
FILES = [
    *((shape, suffix) for shape in SHAPES for suffix in (".jsonl", ".json", ".parquet")),
    *((shape, suffix) for shape in ("own", "alpaca", "question", "query", "sides") for suffix in (".csv", ".tsv")),
]


@pytest.mark.parametrize(("shape", "suffix"), FILES)
def test_every_shape_in_every_kind_of_file_gives_the_same_pairs(shape: str, suffix: str, tmp_path: Path) -> None:
    assert _pairs(_written(tmp_path / f"table{suffix}", SHAPES[shape])) == EXPECTED


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("shape", ["alpaca", "sides"])
def test_shards_hold_the_same_pairs(shape: str, suffix: str, tmp_path: Path) -> None:
    path = _written(tmp_path / f"table{suffix}", SHAPES[shape])
    assert _pairs(path, engine=EngineName.LOCAL) == EXPECTED


@pytest.mark.parametrize(
    ("winner", "chosen"),
    [
        *((name, "x") for name in ("model_a", "A", "1", "left", "response_a")),
        *((name, "y") for name in ("model_b", "b", 2, "right")),
        *((name, None) for name in ("tie", "tie (bothbad)", "both_bad", "neither")),
    ],
)
def test_votes(winner: object, chosen: str | None, tmp_path: Path) -> None:
    row = {"prompt": "Which?", "model_a": "m", "model_b": "n", "response_a": "x", "response_b": "y", "winner": winner}
    more = {**row, "prompt": "What?", "winner": "model_a"}
    found = _pairs(_written(tmp_path / "votes.jsonl", [row, more]))
    expected = [] if chosen is None else [("Which?", chosen, "y" if chosen == "x" else "x")]
    assert found == [("What?", "x", "y"), *expected]


def test_ready_pairs_stay_pairs(tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": "a", "chosen": "x", "rejected": "y"}, {"prompt": "a", "chosen": "z", "rejected": "x"}]
    assert _pairs(_written(tmp_path / "pairs.jsonl", rows)) == [("a", "x", "y"), ("a", "z", "x")]
    scored = [{**row, "score_chosen": 1.0, "score_rejected": 1.0 if row["chosen"] == "z" else 0.0} for row in rows]
    assert _pairs(_written(tmp_path / "scored.jsonl", scored)) == [("a", "x", "y")]


@pytest.mark.parametrize("column", ["context", "input", "document"])
def test_what_belongs_to_the_question_is_in_the_prompt(column: str, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Sum up.", column: f"Text {text}.", "output": said, "rating": score}
        for text, said, score in (("a", "x", 1), ("a", "y", 2), ("b", "z", 3))
    ]
    assert _pairs(_written(tmp_path / "table.jsonl", rows)) == [("Sum up.\nText a.", "y", "x")]


def test_system_and_history_are_messages_before_the_prompt() -> None:
    row = {"system": "Be brief.", "history": [["a", "b"]], "instruction": "c", "output": "d", "rating": 1}
    table = table_of(row, {}, "here")
    assert table is not None
    assert table.row(row)["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


@pytest.mark.parametrize("group", ["task_id", "group_id", "uid", "doc_id", "problem_id"])
@pytest.mark.parametrize("names", [("prompt", "response", "score"), ("instruction", "output", "rating")])
def test_answers_to_different_tasks_do_not_meet(group: str, names: tuple[str, str, str], tmp_path: Path) -> None:
    prompt, response, score = names
    rows = [
        {prompt: "Solve it.", group: task, response: said, score: points}
        for task, said, points in ((1, "x", 1), (1, "y", 2), (2, "z", 3))
    ]
    assert _pairs(_written(tmp_path / "table.jsonl", rows)) == [("Solve it.", "y", "x")]


def test_a_mapping_with_paths(tmp_path: Path) -> None:
    rows = [{"task": {"text": q}, "run": {"said": a, "grade": {"value": s}}} for q, a, s in FLAT]
    columns = {"prompt": "task.text", "response": "run.said", "score": "run.grade.value"}
    for suffix in (".jsonl", ".parquet"):
        assert _pairs(_written(tmp_path / f"table{suffix}", rows), columns) == EXPECTED
    assert at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert at({"a": 1}, "a.b") is None


def test_two_columns_for_one_role_are_not_guessed(tmp_path: Path) -> None:
    path = _written(tmp_path / "table.jsonl", [{"question": "a", "query": "b", "output": "c", "rating": 1}])
    with pytest.raises(InputError, match="'question' and 'query': say which one it is, with --map prompt=question"):
        _pairs(path)
    with pytest.raises(InputError, match="has no column 'frage' for prompt; it has 'question', 'query'"):
        _pairs(path, {"prompt": "frage"})
    with pytest.raises(ConfigurationError, match="no role 'frage' in a mapping"):
        _pairs(path, {"frage": "question"})
    with pytest.raises(ConfigurationError, match="names no column for 'prompt'"):
        parse_mapping("prompt=")


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    rows = [*LISTS, {"question": "Odd?", "answers": ["a", "b"], "ratings": [1]}]
    assert _pairs(_written(tmp_path / "lists.jsonl", rows)) == EXPECTED


names = st.text(st.characters(codec="utf-8", exclude_characters=".+,="), min_size=1).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(["prompt", "response", "score"]), names, min_size=3))
def test_a_mapping_is_read_as_it_is_written_and_named(columns: dict[str, str]) -> None:
    text = ",".join(f"{role}={name}" for role, name in columns.items())
    parsed = parse_mapping(text)
    assert parsed == {role: (name,) for role, name in columns.items()}
    row = dict.fromkeys(columns.values(), "x")
    table = table_of(row, parsed, "here")
    assert table is not None
    assert table_named(name_of(table)) == table
    assert all(repr(name) in table.label for name in columns.values())


@pytest.mark.parametrize(
    "row",
    [{}, {"prompt": "a"}, {"prompt": "a", "response": "b"}, {"response_a": 1, "response_b": 2}, {"completions": ["a"]}],
)
def test_what_is_no_table_of_scored_answers(row: Row) -> None:
    assert table_of(row, {}, "here") is None


@pytest.mark.parametrize(
    "more",
    [{"completion": "x", "answer": "right", "reward": 1.0}, {"completion": "x", "accuracy_reward": 1.0, "step": 1}],
)
def test_logs_of_rollouts_are_tables(more: Row) -> None:
    row = {"prompt": [{"role": "user", "content": "Why?"}], **more}
    table = table_of(row, {}, "here")
    assert table is not None
    made = table.row(row)
    assert (made["response"], made["score"], made["prompt"]) == ("x", 1.0, row["prompt"])


def test_two_rewards_are_not_guessed() -> None:
    with pytest.raises(InputError, match="could be the score, 'a_reward' and 'b_reward'"):
        table_of({"prompt": "a", "completion": "b", "a_reward": 1, "b_reward": 2}, {}, "here")


@pytest.mark.parametrize("column", ["context", "system", "task_id"])
def test_rows_of_our_own_names_keep_their_questions_apart_too(column: str, tmp_path: Path) -> None:
    flat = [{"prompt": "Sum up.", column: text, "response": text, "score": score} for score, text in enumerate("ab")]
    candidates = [{"response": response, "score": score} for score, response in enumerate("xy")]
    turns = [{"prompt": "Sum up.", column: text, "candidates": candidates} for text in "ab"]
    assert _pairs(_written(tmp_path / "flat.jsonl", flat)) == []
    prompts = {str(turn.prompt) for turn in read(_written(tmp_path / "turns.jsonl", turns)).turns}
    assert len(prompts) == (1 if column == "task_id" else 2)

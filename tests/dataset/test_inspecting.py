import gzip
import json
from pathlib import Path

import orjson
import pytest

from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.inspecting import FileReport, Looking, Problem, inspect
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset
from nat_dpo_pipeline.errors import InputError

ATTRIBUTES = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 1.0)


def _inspected(path: Path, *lines: object, max_characters: int | None = None) -> FileReport:
    file = path / "rows.jsonl"
    file.write_bytes(b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines))
    (report,) = inspect([file], Looking(max_characters))
    return report


def _row(prompt: object = "Why?", chosen: str = "Because.", rejected: str = "No.") -> dict[str, object]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_a_sound_file_has_no_problems(tmp_path: Path) -> None:
    report = _inspected(tmp_path, _row(), _row("How?"), b"\n")
    assert (report.format, report.rows, len(report.prompts), report.problems) == ("trl_standard", 2, 2, {})
    assert report.is_fit


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"nope\n", Problem.NOT_JSON),
        (b"[]\n", Problem.NOT_JSON),
        (b'{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}\n', Problem.NOT_JSON),
        (b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}\n', Problem.NOT_JSON),
        ({"a": 1}, Problem.UNKNOWN_FORMAT),
        ({"chosen": "a", "rejected": "b"}, Problem.UNKNOWN_FORMAT),
        ({"prompt": "a", "chosen": "b", "rejected": None}, Problem.WRONG_SHAPE),
        (_row(" \n"), Problem.EMPTY_PROMPT),
        (_row(chosen=""), Problem.EMPTY_ANSWER),
        (_row(chosen="No.", rejected=" No.\n"), Problem.EQUAL_SIDES),
        (_row("x" * 100), Problem.OVER_LONG),
    ],
)
def test_what_a_trainer_would_choke_on_is_found(tmp_path: Path, row: object, problem: Problem) -> None:
    report = _inspected(tmp_path, _row("First?"), row, max_characters=50)
    assert report.problems == {problem: 1}
    assert report.lines == {problem: [2]}
    assert not report.is_fit
    assert problem.meaning


@pytest.mark.parametrize(
    "roles", [("user", "user"), ("assistant", "user"), ("user", "assistant"), ("critic",), ("user", "system", "user")]
)
def test_roles_that_do_not_alternate_are_found(tmp_path: Path, roles: tuple[str, ...]) -> None:
    prompt = [{"role": role, "content": "x"} for role in roles]
    assert _inspected(tmp_path, _row(prompt)).problems == {Problem.ROLES_DO_NOT_ALTERNATE: 1}


@pytest.mark.parametrize(
    "roles",
    [
        ("developer", "user"),
        ("user", "assistant", "tool"),
        ("system", "user", "assistant", "tool", "tool", "assistant", "user"),
    ],
)
def test_developers_and_results_of_tools_have_their_turns(tmp_path: Path, roles: tuple[str, ...]) -> None:
    """The formats that carry these roles are written with them."""
    prompt = [{"role": role, "content": "x"} for role in roles]
    assert _inspected(tmp_path, _row(prompt)).problems == {}


def test_a_system_prompt_alone_asks_nothing(tmp_path: Path) -> None:
    assert _inspected(tmp_path, _row([{"role": "system", "content": "x"}])).problems == {Problem.EMPTY_PROMPT: 1}


def test_repeats_and_contradictions_are_told_but_are_fit_to_train_on(tmp_path: Path) -> None:
    report = _inspected(tmp_path, _row(), _row(), _row(chosen="No.", rejected="Because."), _row(" Why?"))
    assert report.problems == {Problem.DUPLICATE_ROW: 2, Problem.CONTRADICTION: 1}
    assert report.is_fit


def test_the_label_of_an_answer_is_a_part_of_its_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b", "label": label} for label in (True, False, True)]
    assert _inspected(tmp_path, *rows).problems == {Problem.CONTRADICTION: 1, Problem.DUPLICATE_ROW: 1}


def test_many_answers_in_another_order_contradict_nothing(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "completions": [{"response": text} for text in texts]} for texts in ("xy", "yx")]
    assert _inspected(tmp_path, *rows).problems == {}


def test_lines_are_counted_with_the_empty_ones(tmp_path: Path) -> None:
    report = _inspected(tmp_path, b"\n \n", _row(), b"\n", _row(chosen=""))
    assert (report.rows, report.lines) == (2, {Problem.EMPTY_ANSWER: [5]})


def test_a_file_without_rows_is_told(tmp_path: Path) -> None:
    assert _inspected(tmp_path).problems == {Problem.NO_ROWS: 1}


@pytest.mark.parametrize(
    "row",
    [
        {"input": {"messages": "x"}, "preferred_output": [], "non_preferred_output": []},
        {"input": {}, "preferred_output": [], "non_preferred_output": []},
        {"context": "x", "completions": [{"rank": 0}, {"rank": 0}]},
        {"context": "x", "response1": "a", "response2": "b", "overall_preference": "left"},
        {"prompt": "x", "completion": "a", "label": "yes"},
        {"chosen": "no marker", "rejected": "no marker"},
        {"chosen": [], "rejected": []},
        {"conversations": ["x"], "chosen": {}, "rejected": {}},
        {"prompt": [{"role": "user", "content": "x"}], "chosen": [{"role": "user", "content": "x"}], "rejected": []},
    ],
)
def test_rows_of_the_wrong_shape_are_found_in_every_format(tmp_path: Path, row: object) -> None:
    assert _inspected(tmp_path, row).problems == {Problem.WRONG_SHAPE: 1}


@pytest.mark.parametrize("preference", [7, -4, 1.5, 1.0, True, None])
def test_a_preference_outside_helpsteer3s_scale_is_of_the_wrong_shape(tmp_path: Path, preference: object) -> None:
    row = {"context": "x", "response1": "a", "response2": "b", "overall_preference": preference}
    assert _inspected(tmp_path, row).problems == {Problem.WRONG_SHAPE: 1}


@pytest.mark.parametrize("preference", [-3, 3])
def test_the_ends_of_helpsteer3s_scale_are_preferences(tmp_path: Path, preference: int) -> None:
    row = {"context": "x", "response1": "a", "response2": "b", "overall_preference": preference}
    assert _inspected(tmp_path, row).problems == {}


def test_no_preference_is_as_good_as_equal_sides(tmp_path: Path) -> None:
    row = {"context": "x", "response1": "a", "response2": "b", "overall_preference": 0}
    assert _inspected(tmp_path, row).problems == {Problem.EQUAL_SIDES: 1}


def test_alpaca_rows_of_others_are_known(tmp_path: Path) -> None:
    row = {"instruction": "Translate", "input": "this", "chosen": "a", "rejected": "b"}
    report = _inspected(tmp_path, row)
    assert (report.format, report.problems) == ("alpaca", {})


ALPACA = {"instruction": "Translate", "input": "this", "chosen": "a", "rejected": "b"}


def _array(path: Path, content: bytes) -> Path:
    (path / "rows.json").write_bytes(content)
    return path / "rows.json"


@pytest.mark.parametrize("options", [0, orjson.OPT_INDENT_2])
def test_a_json_array_is_rows(tmp_path: Path, options: int) -> None:
    rows = [ALPACA, 3, {**ALPACA, "chosen": " "}]
    (report,) = inspect([_array(tmp_path, b"\n \t" + orjson.dumps(rows, option=options))])
    assert (report.format, report.rows, report.unit) == ("alpaca", 3, "element")
    assert report.lines == {Problem.NOT_JSON: [2], Problem.EMPTY_ANSWER: [3]}


def test_a_json_array_without_elements_holds_no_rows(tmp_path: Path) -> None:
    (report,) = inspect([_array(tmp_path, b"[]")])
    assert report.problems == {Problem.NO_ROWS: 1}


def test_lines_may_be_named_json(tmp_path: Path) -> None:
    (report,) = inspect([_array(tmp_path, b"\n" + (orjson.dumps(ALPACA) + b"\n") * 2)])
    assert (report.rows, report.unit, report.lines) == (2, "line", {Problem.DUPLICATE_ROW: [3]})


@pytest.mark.parametrize("content", [b'[{"a": 1}', b'["\\ud83d"]', b'["\xff"]', b"[1]\n[2]\n", b"[" * 2000])
def test_a_broken_json_array_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"rows\.json' starts like a JSON array, but cannot be read as one: "):
        inspect([_array(tmp_path, content)])


def test_a_json_array_in_a_folder_is_looked_at_when_it_is_named(tmp_path: Path) -> None:
    """Beside the rows are manifests and configurations."""
    _array(tmp_path, orjson.dumps([ALPACA]))
    (tmp_path / "train.jsonl").write_text(json.dumps(_row()) + "\n")
    assert [report.path.name for report in inspect([tmp_path])] == ["train.jsonl"]


def test_all_that_this_package_writes_is_fit(tmp_path: Path) -> None:
    rows = [
        PreferenceRow(f"Why {n}?", "Because.", "No.", 2.0, 1.0, "e", f"t{n}", ATTRIBUTES, ATTRIBUTES) for n in range(4)
    ]
    target = Target(tuple(one.name for one in FORMATS), parquet=True)
    splits = {SplitName.TRAIN: rows[:3], SplitName.VALIDATION: rows[3:]}
    write_dataset(tmp_path, splits, Provenance(0, {}, {}), target)
    reports = inspect([tmp_path])
    assert {report.format for report in reports} == {one.name for one in FORMATS} - {
        "openrlhf",
        "oumi",
    }  # read as trl, trl_standard
    assert {str(report.path) for report in reports if not report.is_fit} == set()
    assert sum(report.rows for report in reports if report.path.suffix == ".parquet" and report.format == "trl") == 4


def test_a_prompt_on_both_sides_of_a_split_is_found(tmp_path: Path) -> None:
    for name, prompts in (("train", ("a", "b")), ("validation", ("c", " b "))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(_row(prompt)) + "\n" for prompt in prompts))
    train, validation = inspect([tmp_path])
    assert (train.problems, validation.problems) == ({}, {Problem.PROMPT_ON_BOTH_SIDES: 1})
    assert [report.problems for report in inspect([tmp_path / "train.jsonl", tmp_path / "validation.jsonl"])] == [
        {},
        {},
    ]


@pytest.mark.parametrize("below", ["", "nemo_customizer"])
def test_the_sides_may_be_folders(tmp_path: Path, below: str) -> None:
    rows = [PreferenceRow("Why?", "Because.", "No.")]
    splits = {SplitName.TRAIN: rows, SplitName.VALIDATION: rows}
    write_dataset(tmp_path, splits, Provenance(0, {}, {}), Target(("nemo_customizer",)))
    assert [dict(report.problems) for report in inspect([tmp_path / below])] == [{}, {Problem.PROMPT_ON_BOTH_SIDES: 1}]


def test_what_a_killed_run_left_behind_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / ".trl.partial-x").mkdir()
    for name in (".trl.partial-x/train.jsonl", "train.jsonl"):
        (tmp_path / name).write_text(json.dumps(_row()) + "\n")
    assert [report.path.name for report in inspect([tmp_path])] == ["train.jsonl"]
    assert inspect([tmp_path / ".trl.partial-x"]), "unless it is asked for"


def test_parquet_without_utf8_is_an_input_error(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = arrow.array([b"\xff"], arrow.binary()).view(arrow.string())
    parquet.write_table(arrow.table({"prompt": texts, "chosen": ["a"], "rejected": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no Parquet file that can be read"):
        inspect([tmp_path])


def test_what_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.jsonl, \.jsonl\.gz or \.parquet file"):
        inspect([tmp_path])
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(InputError, match="no Parquet file"):
        inspect([tmp_path / "x.parquet"])
    with pytest.raises(InputError, match="cannot read"):
        inspect([tmp_path / "missing.jsonl"])


ASKED = [{"role": "user", "content": "Cold?"}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def _called(**changes: object) -> dict[str, object]:
    return {"role": "assistant", "content": "", "tool_calls": [CALL], **changes}


def test_an_answer_that_is_a_call_is_no_empty_answer(tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": [_called()], "rejected": [{"role": "assistant", "content": "No."}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (report,) = inspect([tmp_path / "train.jsonl"])
    assert (report.format, report.problems) == ("trl", {})


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        (_called(content=None), Problem.NULL_CONTENT),
        (_called(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), Problem.ARGUMENTS_AS_TEXT),
    ],
)
def test_calls_that_templates_would_garble_are_found(chosen: object, problem: Problem, tmp_path: Path) -> None:
    row = {"prompt": ASKED, "chosen": [chosen], "rejected": [{"role": "assistant", "content": "No."}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (report,) = inspect([tmp_path / "train.jsonl"])
    assert report.problems == {problem: 1}


def test_what_a_tool_gave_is_no_answer(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "3 degrees"}
    row = {"prompt": ASKED, "chosen": [_called(), result], "rejected": [{"role": "assistant", "content": "No."}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (report,) = inspect([tmp_path / "train.jsonl"])
    assert report.problems == {Problem.WRONG_SHAPE: 1}


def _trl(prompt: str, **columns: object) -> dict[str, object]:
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    return {"prompt": [{"role": "user", "content": prompt}], **sides, **columns}


@pytest.mark.parametrize("name", ["train-00000-of-00002.jsonl", "train-00000.jsonl", "train_001.jsonl"])
def test_shards_of_one_side_may_share_prompts(name: str, tmp_path: Path) -> None:
    for file in (name, name.replace("0000", "0001").replace("001.", "002."), "test-00000-of-00001.jsonl"):
        (tmp_path / file).write_text(json.dumps(_trl("a" if "train" in file else "b")) + "\n")
    assert [report.problems for report in inspect([tmp_path])] == [{}, {}, {}]


def test_gzipped_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(json.dumps(_trl("a")).encode() + b"\n"))
    (report,) = inspect([tmp_path])
    assert (report.format, report.rows, report.problems) == ("trl", 1, {})
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(json.dumps(_trl("a")).encode())[:-9])
    with pytest.raises(InputError, match="cannot read"):
        inspect([tmp_path])


def test_system_and_history_tell_prompts_apart(tmp_path: Path) -> None:
    sides = {"chosen": "yes", "rejected": "no"}
    rows = [
        {"instruction": "a", **sides},
        {"instruction": "a", "system": "b", **sides},
        {"instruction": "a", "history": [["c", "d"]], "chosen": "no", "rejected": "yes"},
    ]
    (tmp_path / "alpaca.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (report,) = inspect([tmp_path / "alpaca.jsonl"])
    assert (len(report.prompts), report.problems) == (3, {})


def test_columns_beside_those_of_a_format_do_not_change_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(_trl("a", messages=[], instruction="a", prompt_id="x")) + "\n")
    (report,) = inspect([tmp_path / "rows.jsonl"])
    assert (report.format, report.problems) == ("trl", {})


@pytest.mark.parametrize("prompt", ["a", [{"role": "user", "content": "a"}]])
def test_what_trl_stops_at_or_trains_on_twice_is_found(prompt: object, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "a"}] if isinstance(prompt, list) else []
    row = {
        "prompt": prompt,
        **{side: [*asked, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")},
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (report,) = inspect([tmp_path / "rows.jsonl"])
    assert report.problems == {Problem.WRONG_SHAPE: 1}

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.dataset.input_rows import read_inputs
from nat_dpo_pipeline.errors import InputError

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def _read(folder: Path, text: str | bytes, **options: str) -> list[tuple[str, str]]:
    path = folder / "inputs"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_inputs(path, id_key=options.get("id_key", "id"), text_key=options.get("text_key")))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"question": "Why?"}, "Why?"),
        ({"input": "Why?"}, "Why?"),
        ({"topic": "Text"}, '{"topic": "Text"}'),
        ({"topic": "Text", "question": "Why?"}, '{"topic": "Text", "question": "Why?"}'),
        ({"messages": MESSAGES}, json.dumps({"messages": MESSAGES})),
        ({"question": 3}, '{"question": 3}'),
        ({"other": "Why?"}, '{"other": "Why?"}'),
        ("Why?", "Why?"),
        (MESSAGES, json.dumps(MESSAGES)),
        (42, "42"),
    ],
)
def test_a_row_is_an_input_in_a_list_and_in_a_line(tmp_path: Path, row: object, text: str) -> None:
    expected = [("row-1", text), ("row-2", text)]
    assert _read(tmp_path, json.dumps([row, row])) == expected
    assert _read(tmp_path, json.dumps([row, row], indent=2)) == expected
    assert _read(tmp_path, f"{json.dumps(row)}\n{json.dumps(row)}\n") == expected


def test_ids_are_kept_and_made_unique(tmp_path: Path) -> None:
    rows = [
        {"id": "a"},
        {"id": "a"},
        {"id": "a#2"},
        {"id": 7},
        {"id": ""},
        {"id": None},
        {},
        {"id": "row-5"},
        {"id": 0},
    ]
    names = [name for name, _ in _read(tmp_path, json.dumps(rows))]
    assert names == ["a", "a#2", "a#2#2", "7", "row-5", "row-6", "row-7", "row-5#2", "0"]


def test_ids_that_others_have_are_taken(tmp_path: Path) -> None:
    (tmp_path / "inputs").write_text("one\n")
    assert list(read_inputs(tmp_path / "inputs", used={"row-1"})) == [("row-1#2", "one")]


def test_keys_can_have_other_names(tmp_path: Path) -> None:
    rows = [{"name": "a", "ask": "Why?", "question": "no"}, {"name": "b", "question": "How?"}]
    assert _read(tmp_path, json.dumps(rows), id_key="name", text_key="ask") == [("a", "Why?"), ("b", "How?")]


def test_plain_lines_are_inputs_and_empty_ones_are_none(tmp_path: Path) -> None:
    text = "\ufeffText processing\r\n\r\n   \nWhy \u2028 not?\n"
    assert _read(tmp_path, text) == [("row-1", "Text processing"), ("row-2", "Why \u2028 not?")]


def test_a_broken_row_is_not_taken_for_a_topic(tmp_path: Path) -> None:
    (_, (name, text)) = _read(tmp_path, '{"topic": "Text"}\n{"topic": "Te\n')
    assert name == "row-2"
    assert json.loads(text) == {"not JSON": '{"topic": "Te'}


def test_a_line_of_messages_by_itself_is_one_conversation(tmp_path: Path) -> None:
    assert _read(tmp_path, json.dumps(MESSAGES)) == [("row-1", json.dumps(MESSAGES))]


@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_an_empty_file_has_no_inputs(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [('[{"topic": "a"},\n', "starts like a JSON list, but is none"), (b"\xff\xfe\x00", "cannot read the inputs")],
)
def test_a_file_that_cannot_be_read_is_an_input_error_that_names_it(
    tmp_path: Path, text: str | bytes, says: str
) -> None:
    with pytest.raises(InputError, match=says) as error:
        _read(tmp_path, text)
    assert repr(str(tmp_path / "inputs")) in str(error.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_no_file_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot read the inputs"):
        list(read_inputs(tmp_path / name))


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    deep = "[" * 100_000
    with pytest.raises(InputError, match="starts like a JSON list"):
        _read(tmp_path, deep)
    assert _read(tmp_path, "Text\n" + deep)[1][1] == deep


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["id", "question", "x"]), st.text(st.characters(codec="utf-8")) | st.none())
    )
)
def test_a_list_and_lines_of_the_same_rows_are_the_same_inputs(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    found = _read(tmp_path, json.dumps(rows))
    assert found == _read(tmp_path, lines)
    assert len({name for name, _ in found}) == len(rows)

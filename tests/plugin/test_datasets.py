import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.evaluator import EvalInputItem

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.datasets import load_rows

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.sampled_from(["id", "prompt", "candidates"]), JSON), min_size=1)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets") / "rows.jsonl"


def _load(path: Path, text: str, **options: str) -> list[EvalInputItem]:
    path.write_bytes(text.encode())
    return load_rows(path, **options).eval_input_items


def _names(items: list[EvalInputItem]) -> list[object]:
    return [item.id for item in items]


@given(ROWS)
def test_rows_arrive_as_they_were_and_with_an_id_each(scratch: Path, rows: list[dict[str, object]]) -> None:
    for text in (
        "\n".join(map(json.dumps, rows)),
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        json.dumps(rows),
        json.dumps(rows, indent=2),
    ):
        items = _load(scratch, text)
        assert [json.loads(item.input_obj) for item in items] == rows
        assert len(set(_names(items))) == len(rows)


def test_lines_are_rows(tmp_path: Path) -> None:
    items = _load(tmp_path / "rows.jsonl", '{"id": "a", "prompt": "Why?"}\n{"id": "b"}\n')
    assert _names(items) == ["a", "b"]
    assert items[0].input_obj == '{"id": "a", "prompt": "Why?"}'
    assert (items[0].output_obj, items[0].trajectory) == ("", [])


def test_a_json_list_is_rows(tmp_path: Path) -> None:
    items = _load(tmp_path / "rows.json", '\n [{"id": "a", "prompt": "Warum nicht – ja?"}, {"prompt": "How?"}]')
    assert _names(items) == ["a", "row-2"]
    assert json.loads(items[0].input_obj)["prompt"] == "Warum nicht – ja?"


@pytest.mark.parametrize("text", ['{"id": "a"}\n', '[{"id": "a"}]'])
def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path, text: str) -> None:
    assert _names(_load(tmp_path / "rows.jsonl", "\ufeff" + text)) == ["a"]


def test_blank_lines_and_windows_line_ends_are_no_rows(tmp_path: Path) -> None:
    items = _load(tmp_path / "rows.jsonl", '\n{"id": "a"}\r\n \t\r\n\n{"id": "b"}\r\n\n')
    assert _names(items) == ["a", "b"]
    assert [json.loads(item.input_obj) for item in items] == [{"id": "a"}, {"id": "b"}]


def test_a_malformed_line_stays_an_item(tmp_path: Path) -> None:
    items = _load(tmp_path / "rows.jsonl", '{"id": "a"}\n{"id": "b", \n[1]\n"text"\n')
    assert _names(items) == ["a", "row-2", "row-3", "row-4"]
    assert items[1].input_obj.strip() == '{"id": "b",'


def test_rows_without_an_id_are_named_by_their_line(tmp_path: Path) -> None:
    assert _names(_load(tmp_path / "rows.jsonl", '\n{"prompt": "a"}\n\n{"prompt": "b"}\n')) == ["row-2", "row-4"]


def test_a_repeated_id_gets_a_suffix(tmp_path: Path) -> None:
    """NAT drops rows whose id it has seen."""
    assert _names(_load(tmp_path / "rows.jsonl", '{"id": "a"}\n{"id": "a"}\n{"id": 1}\n{"id": "1"}\n')) == [
        "a",
        "a#2",
        "1",
        "1#2",
    ]


def test_the_key_of_the_id_can_be_chosen(tmp_path: Path) -> None:
    assert _names(_load(tmp_path / "rows.jsonl", '{"id": "a", "uuid": "u"}\n', id_key="uuid")) == ["u"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_a_newline_ends_a_row(tmp_path: Path, separator: str) -> None:
    text = f'{{"id": "a", "prompt": "one{separator}two"}}\n{{"id": "b"}}\n'
    assert _names(_load(tmp_path / "rows.jsonl", text))[1:] == ["b"]
    assert len(_load(tmp_path / "rows.jsonl", text)) == 2


def test_a_path_may_be_text(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a"}\n')
    assert _names(load_rows(str(tmp_path / "rows.jsonl")).eval_input_items) == ["a"]


@pytest.mark.parametrize("text", ["", "\n \n", "[]", "\ufeff"])
def test_a_file_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl' holds no rows"):
        _load(tmp_path / "rows.jsonl", text)


def test_a_broken_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="starts like a JSON list, but is none"):
        _load(tmp_path / "rows.jsonl", '[{"id": "a"},')


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the dataset '.*absent\.jsonl'"):
        load_rows(tmp_path / "absent.jsonl")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00rows")
    with pytest.raises(InputError, match=r"cannot read the dataset '.*rows\.jsonl'"):
        load_rows(tmp_path / "rows.jsonl")


def test_a_repeated_id_does_not_take_the_name_of_another_row(tmp_path: Path) -> None:
    text = "".join(json.dumps({"id": name}) + "\n" for name in ("good", "good#2", "good"))
    assert _names(_load(tmp_path / "rows.jsonl", text)) == ["good", "good#2", "good#3"]


def test_a_list_in_the_first_line_is_one_row(tmp_path: Path) -> None:
    assert _names(_load(tmp_path / "rows.jsonl", '[1]\n{"id": "b"}\n')) == ["row-1", "b"]


@pytest.mark.parametrize("row", ['{"id": ' + "1" * 5000 + "}", "[" * 5000, '{"id": "a'])
def test_a_row_that_cannot_be_read_is_left_to_the_workflow(tmp_path: Path, row: str) -> None:
    items = _load(tmp_path / "rows.jsonl", f'{{"id": "a"}}\n{row}\n')
    assert _names(items) == ["a", "row-2"]
    assert items[1].input_obj == row

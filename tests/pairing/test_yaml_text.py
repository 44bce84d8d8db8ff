from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.yaml_text import parse_yaml, read_yaml

DOUBLED = "\n".join(["a0: &a0 [0]", *(f"a{one}: &a{one} [{', '.join([f'*a{one - 1}'] * 10)}]" for one in range(1, 10))])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "line 1 cannot be read as YAML: "),
        ("a: 1\nb: 2024-13-45", "line 2 cannot be read as YAML: a value looks like one of type timestamp, but is none"),
        ("a: &a [*a]", "line 1 cannot be read as YAML: an alias stands for something that it is in itself"),
        ("&a {*a : 1}", "an alias stands for something that it is in itself"),
        ("<<: &a {<<: *a}", "an alias stands for something that it is in itself"),
        (DOUBLED, "it holds more than 100,000 values, aliases counted as what they are of"),
        ("a: " + "9" * 5000, "a value looks like one of type int, but is none"),
        ("a: !!int ''", "a value looks like one of type int, but is none"),
        ("a: !!bool nope", "a value looks like one of type bool, but is none"),
        ("a: !!timestamp nope", "a value looks like one of type timestamp, but is none"),
        ("{[a]: 1}", "found unhashable key"),
        ("a: 1\n---\nb: 2", "line 2 cannot be read as YAML: but found another document"),
        ("a: !!python/object:os.system {}", "could not determine a constructor for the tag"),
        ("a:\n\tb: c", "line 2 cannot be read as YAML: "),
        ("a: \x07", "cannot be read as YAML: "),
        ("[" * 101 + "]" * 101, "it is nested deeper than 100 levels"),
        ("[" * 5000, "cannot be read as YAML: "),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_yaml(text, "the file")
    assert problem in str(raised.value)
    assert str(raised.value).startswith("the file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "\ufeffa: 1",
        "base: &b {x: 1}\none: {<<: *b, y: 2}",
        "1: 2\nnull: 3\n2024-01-02: 4",
        "a: 0x1F",
        "- a",
    ],
)
def test_what_can_be_read_is_what_yaml_says(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "x.yml") == yaml.safe_load(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_what_yaml_writes_is_read(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value), "it") == value


@given(st.text())
def test_no_text_ends_in_another_error(text: str) -> None:
    with suppress(ConfigurationError):
        parse_yaml(text, "it")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.yml").write_bytes(b"a: \xff")
    for path in (tmp_path, tmp_path / "none.yml", tmp_path / "bytes.yml"):
        with pytest.raises(ConfigurationError, match=path.name):
            read_yaml(path)

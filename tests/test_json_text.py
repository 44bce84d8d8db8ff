import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import MOST_NESTED, parse_document, parse_json


def _nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize("text", ["", "nope", b"\xff", "{", "9" * 5000, _nested(MOST_NESTED + 1), _nested(100_000)])
@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_read_is_one_error(text: str | bytes, strict: bool) -> None:
    with pytest.raises(InputError, match=r"^not( read as)? JSON: "):
        parse_json(text, strict=strict)


@pytest.mark.parametrize("text", ["NaN", '"\\ud83d"', "1e999"])
def test_what_only_python_reads_is_refused_on_request(text: str) -> None:
    parse_json(text)
    with pytest.raises(InputError):
        parse_json(text, strict=True)


def test_an_element_that_is_nested_too_deep_does_not_cost_the_others() -> None:
    assert parse_document(f'[1, {_nested(MOST_NESTED + 1)}, {{"a": []}}]') == [1, None, {"a": []}]
    with pytest.raises(InputError, match="nested deeper than 200 levels"):
        parse_document(f'{{"a": {_nested(MOST_NESTED)}}}')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_json_writes_is_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@given(st.binary())
def test_no_bytes_end_in_another_error(text: bytes) -> None:
    for parse in (parse_json, parse_document):
        with suppress(InputError):
            parse(text)

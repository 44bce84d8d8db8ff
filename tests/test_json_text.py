"""JSON of others becomes a value or one error, and whatever a value holds becomes JSON."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from enum import Enum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import MOST_NESTED, json_bytes, json_line, parse_document, parse_json, plain


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


class _Model(BaseModel):
    name: str
    of: Any = None


@dataclass
class _Data:
    name: str


class _Kind(Enum):
    GOOD = "good"


class _Word(StrEnum):
    TIE = "tie"


class _Scalar:
    """As a tensor of no dimension."""

    def tolist(self) -> float:
        return 0.5


class _Endless:
    def model_dump(self) -> object:
        return self


class _Hostile(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise ZeroDivisionError

    def __iter__(self) -> Any:
        raise ZeroDivisionError

    def __len__(self) -> int:
        return 1

    def __str__(self) -> str:
        raise ZeroDivisionError


_SURROGATE = "half \ud83d"
_CYCLE: dict[str, object] = {"name": "itself"}
_CYCLE["again"] = _CYCLE

_keys = (
    st.text(st.characters()) | st.integers() | st.tuples(st.integers()) | st.sampled_from([_Kind.GOOD, _Word.TIE, None])
)

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.binary(),
        st.just(object()),
        st.just(_Hostile()),
        st.just(_CYCLE),
        st.just(_Endless()),
        st.just(_Model),
        st.just(_Data("d")),
        st.sampled_from([_Kind.GOOD, _Word.TIE]),
        st.dates() | st.times() | st.datetimes(),
        st.just(_Scalar()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(_keys, inner, max_size=3),
        inner.map(lambda of: _Model(name="m", of=of)),
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters()), values, max_size=4))
def test_everything_becomes_one_line(row: dict[str, object]) -> None:
    assert json.loads(json_bytes(row, indented=True)) == json.loads(json_bytes(row))
    line = json_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert set(json.loads(line)) == set(row)


@given(st.dictionaries(st.text(st.characters()), values, max_size=4))
def test_plain_values_are_those_of_the_line(row: dict[str, object]) -> None:
    found = plain(row)
    assert json.loads(json_line(row)) == json.loads(json.dumps(found))


@pytest.mark.parametrize("beside", ["text", _SURROGATE])  # the second is beyond what orjson takes
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (1.5, 1.5),
        (_Model(name="m", of={"a": 1}), {"name": "m", "of": {"a": 1}}),
        (_Kind.GOOD, "good"),
        (
            {_Kind.GOOD: 1, _Word.TIE: 2, 1.5: 3, True: 4, None: 5},
            {"good": 1, "tie": 2, "1.5": 3, "true": 4, "null": 5},
        ),
        (_Data("d"), {"name": "d"}),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (time(3, tzinfo=UTC), "03:00:00+00:00"),
        (PurePosixPath("a/b"), "a/b"),
        (b"bytes", "b'bytes'"),
        (_Scalar(), 0.5),
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a"}, {"1": "a"}),
        ({3, 1}, [1, 3]),
        ((1, 2), [1, 2]),
        (np.float64(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (np.int64(7), 7),
        (2**70, str(2**70)),
        (_Data, str(_Data)),
    ],
)
def test_values_keep_what_json_can_hold(value: object, expected: object, beside: str) -> None:
    assert plain([value, beside]) == [expected, beside]


def test_a_lone_surrogate_comes_back() -> None:
    assert json.loads(json_line({"response": _SURROGATE})) == {"response": _SURROGATE}
    with pytest.raises(orjson.JSONDecodeError):  # whoever reads it strictly refuses that row alone
        orjson.loads(json_line({"response": _SURROGATE}))


def test_what_cannot_even_be_printed_is_named() -> None:
    assert plain({"it": _Hostile()}) == {"it": "<_Hostile>"}


def test_a_value_within_itself_ends() -> None:
    assert plain(_CYCLE) == {"name": "itself", "again": str(_CYCLE)}


def test_deep_nesting_ends() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert json.loads(json_line({"deep": deep}))["deep"]

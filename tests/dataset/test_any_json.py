"""Whatever a row holds, it becomes one line that a JSON reader takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from nat_dpo_pipeline.dataset.any_json import json_line, plain


class _Model(BaseModel):
    name: str
    of: Any = None


@dataclass
class _Data:
    name: str


class _Kind(Enum):
    GOOD = "good"


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
        st.just(_Kind.GOOD),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(st.characters()) | st.integers() | st.tuples(st.integers()), inner, max_size=3),
        inner.map(lambda of: _Model(name="m", of=of)),
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters()), values, max_size=4))
def test_everything_becomes_one_line(row: dict[str, object]) -> None:
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
        (MappingProxyType({"a": 1}), {"a": 1}),
        ({1: "a"}, {"1": "a"}),
        ({3}, [3]),
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

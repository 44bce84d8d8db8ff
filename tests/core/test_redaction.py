"""What shall not be kept is gone, wherever it is, and all else is as it was."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.redaction import PLACEHOLDER, Redaction

_SECRET = "sk-12345"
_PATTERN = Redaction(patterns=(re.compile(r"sk-\d+"),))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)
with_secrets = st.recursive(
    st.just(f"before {_SECRET} after"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", _SECRET]), inner, max_size=2),
    max_leaves=8,
)


@given(with_secrets)
def test_what_a_pattern_matches_is_nowhere_in_the_result(value: object) -> None:
    assert _SECRET not in repr(_PATTERN.apply({"metadata": value}))


@given(st.dictionaries(st.text(), json_values))
def test_nothing_else_changes(values: dict[str, object]) -> None:
    nothing_to_hide = Redaction(patterns=(re.compile("\0never\0"),), paths=(("not there \0", "at all"),))
    assert nothing_to_hide.apply(values) == values


def test_the_rest_of_a_text_stays() -> None:
    assert _PATTERN.apply({"prompt": f"key {_SECRET}!"}) == {"prompt": f"key {PLACEHOLDER}!"}


def test_a_whole_number_counts_as_its_digits_but_a_bool_and_a_score_do_not() -> None:
    digits = Redaction(patterns=(re.compile(r"\d{8}|True"),))
    values = {"card": 4111111111111111, "age": 41, "yes": True, "score": 0.1234567890123, "never": float("inf")}
    assert digits.apply(values) == {**values, "card": PLACEHOLDER * 2}
    # As a table with a gap in it has it.
    assert digits.apply({"card": 4111111111111111.0}) == {"card": f"{PLACEHOLDER * 2}.0"}


def test_keys_that_become_one_keep_their_values() -> None:
    found = _PATTERN.apply({"metadata": {"sk-1": 1, "sk-2": 2}})["metadata"]
    assert isinstance(found, dict)
    assert sorted(found.values()) == [1, 2]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ((), {"user": "x"}, PLACEHOLDER),
        (("user",), {"user": "x", "topic": "t"}, {"user": PLACEHOLDER, "topic": "t"}),
        (("user",), {"user": {"name": "x"}}, {"user": PLACEHOLDER}),
        (("user", "name"), {"user": {"name": "x", "age": 3}}, {"user": {"name": PLACEHOLDER, "age": 3}}),
        (("content",), [{"content": "x", "role": "user"}, {}], [{"content": PLACEHOLDER, "role": "user"}, {}]),
        (("user",), {"topic": "t"}, {"topic": "t"}),
        (("user",), {"user": None}, {"user": None}),
        # Somewhere in the text; nobody can say where.
        (("user",), '{"user": "x"}', PLACEHOLDER),
        (("user",), 3, PLACEHOLDER),
    ],
)
def test_what_is_at_a_path_is_replaced(path: tuple[str, ...], value: object, expected: object) -> None:
    assert Redaction(paths=(("metadata", *path),)).apply({"metadata": value}) == {"metadata": expected}


def test_the_values_that_were_given_stay_as_they_are() -> None:
    values = {"metadata": {"user": "x", "all": [_SECRET]}}
    Redaction(_PATTERN.patterns, (("metadata", "user"),)).apply(values)
    assert values == {"metadata": {"user": "x", "all": [_SECRET]}}


def test_there_may_be_nothing_to_redact() -> None:
    assert not Redaction()
    assert Redaction(paths=(("input",),))
    assert _PATTERN

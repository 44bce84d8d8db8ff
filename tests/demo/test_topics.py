import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.shelves import MODULES
from nat_dpo_pipeline.demo.topics import modules_about


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("Data structures", {"collections", "heapq", "bisect", "array", "queue", "dataclasses"}),
        ("text processing", {"string", "re", "textwrap", "difflib"}),
        ("Dates and times", {"datetime", "calendar", "time"}),
        ("Concurrency", {"threading", "asyncio", "subprocess"}),
        ("Data compression", {"gzip", "zipfile", "tarfile"}),
        ("json", {"json"}),
    ],
)
def test_what_a_topic_is_about_comes_first(topic: str, expected: set[str]) -> None:
    assert expected <= set(modules_about(topic, 10, Chance(0)))


def test_a_topic_without_overlap_is_filled_in_an_order_that_the_seeds_decide() -> None:
    lists = {tuple(modules_about("xyzzy", 5, chance)) for chance in (Chance(0), Chance(1), Chance(0, 1))}
    assert len(lists) == 3
    assert modules_about("xyzzy", 5, Chance(0)) == modules_about("xyzzy", 5, Chance(0))


def test_more_than_there_are_gives_all_there_are() -> None:
    modules = modules_about("anything", 10_000, Chance(0))
    assert len(set(modules)) == len(modules) > 0.9 * len(MODULES)


@given(topic=st.text(), count=st.integers(1, 20))
def test_any_topic_has_as_many_distinct_modules_as_were_asked_for(topic: str, count: int) -> None:
    assert len(set(modules_about(topic, count, Chance(0)))) == count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.similarity import NearDuplicates, content_words

# Few enough to meet often; fillers, and words of equal and of different length.
WORDS = ("tea", "leaf", "pot", "the", "is", "Tea", "green", "C", "C++", "what’s", "what's", "?", "teapot", "oolong")
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=25)
THRESHOLDS = st.floats(0.0, 1.0, exclude_min=True) | st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def _overlap_enough(text: str, other: str, threshold: float) -> bool:
    words, others = content_words(text), content_words(other)
    return len(words & others) >= threshold * len(words | others)


def _compared_with_all(texts: list[str], threshold: float) -> list[bool]:
    kept: list[str] = []
    added = []
    for text in texts:
        added.append(not any(_overlap_enough(text, other, threshold) for other in kept))
        if added[-1]:
            kept.append(text)
    return added


@given(TEXTS, THRESHOLDS)
def test_none_is_missed_and_none_invented(texts: list[str], threshold: float) -> None:
    distinct = NearDuplicates(threshold)
    assert [distinct.add(text) for text in texts] == _compared_with_all(texts, threshold)


@given(st.sets(st.integers(0, 25), max_size=26), st.sets(st.integers(0, 25), max_size=26), st.integers(1, 26))
def test_an_overlap_of_exactly_the_threshold_is_enough(one: set[int], other: set[int], common: int) -> None:
    texts = [" ".join(f"word{number}" for number in numbers) for numbers in (one, other)]
    if not one | other:
        return
    distinct = NearDuplicates(common / 26)
    expected = [True, not _overlap_enough(*texts, common / 26)]
    assert [distinct.add(text) for text in texts] == expected


@given(st.text(), THRESHOLDS)
def test_no_text_is_distinct_from_itself(text: str, threshold: float) -> None:
    distinct = NearDuplicates(threshold)
    assert [distinct.add(text), distinct.add(text)] == [True, False]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How is green tea made?", "how is Green Tea made"),
        ("How is green tea made?", "Made how is green tea?"),
        ("How is green tea made?", "How is the green tea made?"),
        ("What’s in it?", "what's in it"),
        ("Is it?", "is it"),
        ("?!", "?!"),
        ("", " \n"),
        ("STRASSE", "straße"),
    ],
)
def test_texts_with_the_same_words_are_the_same(one: str, other: str) -> None:
    distinct = NearDuplicates(1.0)
    assert distinct.add(one)
    assert not distinct.add(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"),
        ("C++", "C#"),
        ("What is heapq.nlargest?", "What is heapq?"),
        ("What is snake_case?", "What is snake case?"),
        ("Is it?", "Is that it?"),
        ("?!", "!?"),
        ("", "?"),
    ],
)
def test_texts_with_other_words_are_not(one: str, other: str) -> None:
    distinct = NearDuplicates(1.0)
    assert distinct.add(one)
    assert distinct.add(other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("How is the tea?", {"how", "tea"}),
        ("Is it that?", {"is", "it", "that"}),
        ("What's new in Python 3.12?", {"what's", "new", "python", "3.12"}),
        ("C# or F#, and C++.", {"c#", "f#", "c++"}),
        ("... ?", {"...", "?"}),
        ("", set()),
    ],
)
def test_words_that_carry_meaning(text: str, words: set[str]) -> None:
    assert content_words(text) == words


def test_a_text_that_was_not_added_is_not_compared_with() -> None:
    distinct = NearDuplicates(0.5)
    # The second overlaps with the first and the third, which do not with one another.
    assert [distinct.add(text) for text in ("a1 b1 c1", "b1 c1 d1", "c1 d1 e1")] == [True, False, True]


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"above 0 and at most 1, got {threshold!r}"):
        NearDuplicates(threshold)

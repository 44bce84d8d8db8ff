import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.messages import Message

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
WORDS = st.lists(st.sampled_from("abcde"), max_size=20).map(" ".join)


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        (THIRTEEN, f"So: {THIRTEEN.upper()}!", True),
        (f"Again, {THIRTEEN} and more", f"First {THIRTEEN.replace(' ', ', ')} then", True),
        (f"Again, {THIRTEEN} and more", THIRTEEN.removesuffix(" thirteen"), False),
        (THIRTEEN, THIRTEEN.replace("seven", "7"), False),
        ("What is it?", "what  is it", True),
        ("What is it?", "Tell me what is it", False),
        ("What is it?", "", False),
        ("", "", False),
        ("?!", "?!", True),
        ("?!", "!?", False),
    ],
)
def test_thirteen_words_in_a_row_or_a_short_text_as_a_whole_overlap(text: str, prompt: str, expected: bool) -> None:
    assert EvaluationSet(["Something else", text]).overlaps(prompt) is expected


def test_messages_are_looked_at_without_the_system_prompt() -> None:
    known = EvaluationSet(["b c", "z"], ngram=2)
    assert known.overlaps((Message("user", "a b"), Message("assistant", "c")))
    assert not known.overlaps((Message("system", "b c"), Message("user", "a")))


@given(st.lists(WORDS, max_size=4), WORDS, st.integers(1, 5))
def test_overlap_is_a_common_run_of_words(texts: list[str], prompt: str, ngram: int) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[start : start + ngram]) for start in range(len(words)) if len(words) >= start + ngram}

    common = any(runs(text) & runs(prompt) for text in texts)
    is_short = 0 < len(prompt.split()) < ngram
    assert EvaluationSet(texts, ngram).overlaps(prompt) is (common or (is_short and prompt in texts))


def test_an_ngram_without_words_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 word, got 0"):
        EvaluationSet([], 0)

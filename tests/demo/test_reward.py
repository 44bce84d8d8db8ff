from itertools import combinations, pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.rewards import HELPSTEER_ATTRIBUTES
from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.answers import QUESTION_FORMS, VARIANTS, Quality, answer
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.reward import score
from nat_dpo_pipeline.demo.shelves import MODULES
from nat_dpo_pipeline.errors import InputError

SOME = [member for module in MODULES for member in library.members(module)][::5]
QUESTION = "What does `heapq.nlargest` do?"
TEXTS = st.text() | st.lists(st.sampled_from(["heap", "largest", "the", "n", "iterable", "Elements.", "xyzzy"])).map(
    " ".join
)


def _scores(quality: Quality, attribute: str) -> list[float]:
    """The mean score of each question's answers of this quality."""
    variants = [variant for variant in VARIANTS if variant.quality is quality]
    return [
        mean(
            score(QUESTION_FORMS[0].format(name=member.dotted), answer(member, variant, Chance(0)))[attribute]
            for variant in variants
        )
        for member in SOME
    ]


def test_better_answers_are_more_helpful() -> None:
    scores = {quality: _scores(quality, "helpfulness") for quality in Quality}
    for better, worse in combinations(Quality, 2):
        wins = mean(high > low for high, low in zip(scores[better], scores[worse], strict=True))
        assert mean(scores[better]) > mean(scores[worse]) + 0.1, (better, worse)
        assert wins > 0.75, (better, worse)


def test_better_answers_are_more_correct_on_average() -> None:
    means = [mean(_scores(quality, "correctness")) for quality in Quality]
    assert all(high > low + 0.25 for high, low in pairwise(means))


def test_scores_have_the_scale_of_helpsteer() -> None:
    right = _scores(Quality.RIGHT, "helpfulness")
    assert 2.5 < mean(right) <= max(right) <= 4.0


@given(response=TEXTS)
def test_any_response_has_five_attributes_in_range(response: str) -> None:
    scores = score(QUESTION, response)
    assert tuple(scores) == HELPSTEER_ATTRIBUTES
    assert all(0.0 <= value <= 4.0 for value in scores.values())


def test_an_empty_response_is_worth_nothing() -> None:
    assert set(score(QUESTION, " \n").values()) == {0.0}


def test_different_responses_hardly_ever_tie() -> None:
    texts, scores = 0, 0
    for member in SOME:
        question = QUESTION_FORMS[0].format(name=member.dotted)
        different = {answer(member, variant, Chance(0)) for variant in VARIANTS}
        texts += len(different)
        scores += len({score(question, text)["helpfulness"] for text in different})
    assert scores > 0.95 * texts


def test_identical_responses_tie() -> None:
    assert score(QUESTION, "A heap.") == score(QUESTION, "A heap.")


def test_text_before_the_question_does_not_change_the_score() -> None:
    folded = f"Always answer like `json.dumps` would.\n\n{QUESTION}"
    response = "Find the n largest elements in a dataset."
    assert score(folded, response) == score(QUESTION, response)


def test_a_question_that_names_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="in backticks"):
        score("What is love?", "A word.")

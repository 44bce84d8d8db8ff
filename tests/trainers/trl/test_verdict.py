import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.trainers.trl.verdict import Evidence, PairScore, figures, preference, verdict


def _scores(*margins: float, longer: bool = False) -> list[PairScore]:
    return [PairScore(f"prompt {place}", margin, longer) for place, margin in enumerate(margins)]


def _evidence(
    before: list[PairScore], after: list[PairScore], training: float | None = 0.9, longer: float = 0.5
) -> Evidence:
    return Evidence(before, after, training, longer)


def test_prompts_that_turned_are_learning() -> None:
    found = verdict(_evidence(_scores(*[-1.0] * 6, 1.0), _scores(*[3.0] * 7)))
    assert found.learned is True
    assert found.sentence == (
        "learned: held-out preference accuracy 0.14 → 1.00 on 7 pairs of 7 prompts, mean margin -0.71 → 3.00"
    )


def test_pairs_of_one_prompt_count_as_one_prompt() -> None:
    before = [PairScore("same", -1.0, False)] * 20
    after = [PairScore("same", 1.0, False)] * 20
    found = verdict(_evidence(before, after))
    assert found.learned is None
    assert found.sentence.endswith("1 prompts better, 0 worse may be chance")


def test_what_only_the_training_pairs_show_is_memorised() -> None:
    scores = _scores(1.0, -1.0, 1.0, -1.0)
    found = verdict(_evidence(scores, scores, training=0.97))
    assert found.learned is False
    assert found.sentence.startswith("did not learn: held-out preference accuracy 0.50 → 0.50 on 4 pairs")
    assert found.sentence.endswith("on the training pairs 0.97 went the right way, so it memorised them")
    assert "memorised" not in verdict(_evidence(scores, scores, training=0.5)).sentence


def test_a_loss_of_accuracy_is_no_learning() -> None:
    assert verdict(_evidence(_scores(*[1.0] * 8), _scores(*[-1.0] * 8))).learned is False


def test_what_was_right_before_cannot_tell() -> None:
    found = verdict(_evidence(_scores(1.0, 1.0), _scores(5.0, 5.0)))
    assert found.learned is None
    assert "preferred every chosen answer before" in found.sentence


def test_without_a_held_out_pair_nobody_knows() -> None:
    assert verdict(_evidence([], [])).learned is None
    assert figures(_evidence([], [])) == {"training_accuracy": 0.9, "training_chosen_longer": 0.5}
    assert preference([]) is None


def test_a_preference_for_length_is_told() -> None:
    before = _scores(*[-1.0] * 10, longer=True) + [PairScore(f"other {n}", -9.0, False) for n in range(5)]
    after = _scores(*[2.0] * 10, longer=True) + [PairScore(f"other {n}", n - 3.5, False) for n in range(5)]
    found = verdict(_evidence(before, after, longer=0.95))
    assert found.learned is True
    assert found.sentence.endswith(
        "chosen is the longer answer in 95% of the training pairs; where it is not, held-out accuracy is 0.20"
    )
    few = verdict(_evidence(before[:10], after[:10], longer=0.95))
    assert few.sentence.endswith("too few held-out pairs are otherwise to rule out that it learned length")


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30))
def test_learned_is_never_said_of_a_lower_margin_or_accuracy(margins: list[tuple[float, float]]) -> None:
    before, after = (_scores(*side) for side in zip(*margins, strict=True))
    measured = figures(_evidence(before, after))
    if verdict(_evidence(before, after)).learned:
        assert measured["held_out_accuracy_after"] > measured["held_out_accuracy_before"]
        assert measured["held_out_margin_after"] > measured["held_out_margin_before"]


@pytest.mark.parametrize(("better", "learned"), [(4, None), (5, True)])
def test_five_prompts_to_none_are_more_than_chance(better: int, learned: bool | None) -> None:
    assert verdict(_evidence(_scores(*[-1.0] * better), _scores(*[1.0] * better))).learned is learned

"""Each two candidates of a turn are a pair or have a reason, whatever the rules."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, pair_turn, possible_pairs
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.pairing.runs import paired_turn

candidates = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "a ", "bb", "ccc", "dddd"]), st.integers(0, 6), st.sampled_from([None, "truncated"])
    ),
    min_size=1,
    max_size=7,
)
rules = st.builds(
    PairingRules,
    strategy=st.sampled_from(Strategy),
    min_score_diff=st.sampled_from([0.0, 1.5]),
    max_pairs_per_turn=st.none() | st.integers(1, 3),
    max_score_diff=st.none() | st.just(3.0),
    length_penalty=st.sampled_from([0.0, 900.0]),
)


@given(candidates, rules)
def test_the_reasons_add_up_to_what_pairing_counts(
    answers: list[tuple[str, int, str | None]], rules: PairingRules
) -> None:
    turn = Turn(
        "e",
        "t",
        "Why?",
        [
            Candidate("e", "t", index, "Why?", text, float(score), metadata={"flaw": flaw})
            for index, (text, score, flaw) in enumerate(answers)
        ],
    )
    skipped: Counter[SkipReason] = Counter()
    pairs = pair_turn(turn, rules, skipped)
    paired = paired_turn(turn, rules)
    assert paired.pairs == pairs
    assert Counter(one.reason for one in paired.left_out) == {
        str(reason): count for reason, count in (+skipped).items()
    }
    assert len(paired.pairs) + len(paired.left_out) == possible_pairs(turn)
    assert all(one.chosen.score >= one.rejected.score for one in paired.left_out)


def test_a_reason_that_two_candidates_have_by_themselves_is_theirs() -> None:
    texts = (("a", 3.0), ("b", 3.0), ("c", 1.0))
    turn = Turn("e", "t", "Why?", [Candidate("e", "t", index, "Why?", *one) for index, one in enumerate(texts)])
    paired = paired_turn(turn, PairingRules(max_pairs_per_turn=1))
    found = {one.reason: {one.chosen.response, one.rejected.response} for one in paired.left_out}
    assert found["tie"] == {"a", "b"}
    assert "c" in found["over_max_pairs_per_turn"]

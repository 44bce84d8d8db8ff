"""The kernel makes the pairs of the core: the same ones, in the same order, with the same counts."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, group_turns
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, make_pairs
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.pairing.kernel import pair_turns
from nat_dpo_pipeline.records.columns import Columns, contiguous_turns, gathered
from nat_dpo_pipeline.records.rows import Rows

SCORES = (
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 5e-324, sys.float_info.max, -sys.float_info.max, 0.3, 0.1 + 0.2])
    | st.floats()
)
RESPONSES = st.sampled_from(
    ["a", " a", "a\n", "\u2003a", "a\x1f", "b", "b ", "", "\u3000", "a b", "a  b", "\ud800", "é" * 9, "x" * 40]
) | st.text(max_size=5)
PROMPTS = st.sampled_from(
    ["p", "q", " p", [{"role": "user", "content": "p"}], [{"role": "system", "content": "p"}], ""]
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "flaw": st.sampled_from(["truncated", "refusal", "other", None]),
        "member_scores": st.dictionaries(st.sampled_from("xyz"), st.floats(-2, 2) | st.none(), max_size=3),
    },
)
CANDIDATES = st.fixed_dictionaries(
    {"prompt": PROMPTS | st.just("p"), "response": RESPONSES, "score": SCORES | st.none()},
    optional={"metadata": METADATA, "flaw": st.sampled_from(["empty", "none"])},
)
#: Turns of one example after the other: (example, turn) → candidates.
TURNS = st.dictionaries(
    st.tuples(st.sampled_from(["e", "é"]), st.sampled_from("tuv")), st.lists(CANDIDATES, max_size=7), max_size=4
)
RULES = st.builds(
    PairingRules,
    strategy=st.none() | st.sampled_from(list(Strategy)),
    min_score_diff=st.sampled_from([0.0, 5e-324, 0.5]),
    max_score_diff=st.none() | st.sampled_from([1.0, 3.0]),
    max_pairs_per_turn=st.none() | st.integers(1, 4),
    seed=st.integers(0, 3),
    min_chosen_score=st.none() | st.just(1.0),
    min_best_score=st.none() | st.just(1.0),
    min_rejected_score=st.none() | st.just(0.0),
    min_rejected_length=st.none() | st.integers(1, 3),
    min_agreement=st.none() | st.sampled_from([0.5, 1.0]),
    max_length_ratio=st.none() | st.sampled_from([1.0, 2.5]),
    length_penalty=st.sampled_from([0.0, 0.0, 50.0, 1e6]),
    near_duplicate=st.none() | st.sampled_from([0.6, 1.0]),
    pair_flawed=st.booleans(),
)
Turns = Mapping[tuple[str, str], list[Mapping[str, object]]]
Named = tuple[str, str, object, str, str, float]


def rows_of(turns: Turns) -> list[dict[str, object]]:
    by_example = sorted(turns.items(), key=lambda turn: turn[0][0])
    return [{"example_id": names[0], "turn_id": names[1], **row} for names, rows in by_example for row in rows]


def columns_of(rows: Iterable[Mapping[str, object]]) -> tuple[Columns, int]:
    """The rows as columns, and how many of them are no candidates."""
    taken = Rows()
    refused = sum(len(taken.add(row, b"", 0)) for row in rows)
    return taken.columns(), refused


def pairs_of_the_core(candidates: list[Candidate], rules: PairingRules) -> tuple[list[Named], Counter[SkipReason]]:
    examples: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        examples.setdefault(candidate.example_id, []).append(candidate)
    made = make_pairs((turn for example in examples.values() for turn in group_turns(example).turns), rules)
    named = [
        (one.example_id, one.turn_id, one.prompt, one.response, other.response, one.score - other.score)
        for one, other, _ in made.pairs
    ]
    return named, made.skipped


@given(TURNS, RULES)
def test_the_kernel_pairs_as_the_core_does(turns: Turns, rules: PairingRules) -> None:
    columns, refused = columns_of(rows_of(turns))
    expected, expected_skips = pairs_of_the_core([columns.candidate(row) for row in range(len(columns))], rules)

    grouped = contiguous_turns(columns)
    skipped: Counter[SkipReason] = Counter()
    made = pair_turns(grouped, rules, skipped)

    c = grouped.columns
    found = [
        (c.example_id[one], c.turn_id[one], c.prompt[one], c.response[one], c.response[other], margin)
        for one, other, margin in zip(made.chosen, made.rejected, made.margin.tolist(), strict=True)
    ]
    assert found == expected
    assert skipped == expected_skips
    assert len(columns) + refused == sum(map(len, turns.values()))


@given(TURNS, st.randoms(use_true_random=False))
def test_scattered_rows_are_gathered_into_the_turns_they_are_of(turns: Turns, chance: object) -> None:
    rows = rows_of(turns)
    chance.shuffle(rows)  # type: ignore[attr-defined]
    columns, _ = columns_of(rows)
    named = list(zip(columns.example_id, columns.turn_id, strict=True))
    together = gathered(columns)
    keys = list(zip(together.example_id, together.turn_id, strict=True))
    assert keys == sorted(keys, key=named.index)
    prompts = {(*key, prompt) for key, prompt in zip(keys, together.prompt, strict=True)}
    assert len(contiguous_turns(together)) == len(prompts)

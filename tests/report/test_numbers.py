"""Turns so small that their numbers can be worked out by hand, and rules that hold for all."""

from collections import Counter
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, pair_turn
from nat_dpo_pipeline.report.dangers import DangerKind, dangers_in
from nat_dpo_pipeline.report.measuring import measure
from nat_dpo_pipeline.report.numbers import Numbers, wilson
from nat_dpo_pipeline.report.paired import LeftOut, PairedTurn
from nat_dpo_pipeline.report.run import RunFacts, SetAside
from nat_dpo_pipeline.report.samples import Sample, histogram, quantile

COMPLETE = RunFacts("run", "complete")
finite = st.floats(allow_nan=False, allow_infinity=False)


def _turn(
    place: int, *answers: tuple[str, float], models: str = "", subtopic: str = "Tea", **facts: object
) -> PairedTurn:
    names = models or "a" * len(answers)
    candidates = [
        Candidate(
            "e", f"t{place}", index, f"Why {place}?", text, score, metadata={"llm": name, "subtopic": subtopic, **facts}
        )
        for index, ((text, score), name) in enumerate(zip(answers, names, strict=True))
    ]
    turn = Turn("e", f"t{place}", f"Why {place}?", candidates)
    skipped: Counter[object] = Counter()
    pairs = pair_turn(turn, PairingRules(pair_flawed=True), skipped)  # type: ignore[arg-type]
    left_out = [LeftOut(candidates[0], candidates[-1], str(reason)) for reason in skipped.elements()]
    return PairedTurn(turn, pairs, left_out)


def _measured(*turns: PairedTurn, facts: RunFacts = COMPLETE, set_aside: SetAside | None = None) -> Numbers:
    return measure(turns, facts, set_aside or SetAside())


def _kinds(numbers: Numbers) -> set[str]:
    return {str(danger.kind) for danger in dangers_in(numbers)}


def test_the_flow_counts_what_came_to_each_stage_and_what_was_lost() -> None:
    numbers = _measured(
        _turn(1, ("long answer", 3.0), ("short", 1.0), ("other", 1.0)),
        _turn(2, ("alone", 2.0)),
        set_aside=SetAside(Counter({"below_min_best_score": 1}), Counter({"refusal": 2}), scored=4, unreadable=1),
    )
    flow = numbers.flow
    assert (flow.responses, flow.unscored) == (4 + 4 + 2, {"refusal": 2})
    assert (flow.candidates, flow.set_aside, flow.unreadable_rows) == (8, {"below_min_best_score": 1}, 1)
    assert (flow.turns, flow.turns_with_one_candidate) == (2, 1)
    assert (flow.possible_pairs, flow.left_out, flow.pairs) == (3, {"tie": 1}, 2)
    assert (flow.prompts, flow.prompts_with_pairs) == (2, 1)


def test_flaws_of_unscored_responses_count_whatever_they_are_unscored_for() -> None:
    aside = SetAside(
        responses=Counter({"model_error": 1, "empty_reply": 1}), flaws=Counter({"truncated": 1, "empty": 1})
    )
    flaws = _measured(_turn(1, ("a", 2.0), ("b", 1.0)), set_aside=aside).flaws
    assert (flaws.counts, flaws.responses) == ({"truncated": 1, "empty": 1}, 4)


def test_scores_margins_and_lengths() -> None:
    numbers = _measured(_turn(1, ("four", 3.0), ("six...", 1.0), ("3..", 0.0)))
    assert numbers.scores.summaries["all"].mean == pytest.approx(4 / 3)
    assert numbers.scores.summaries["chosen"].count == 3
    assert numbers.margins.median_of_all == 2.0
    assert numbers.margins.under_median == pytest.approx(1 / 3)
    lengths = numbers.lengths
    assert (lengths.longer, lengths.same, lengths.shorter) == (2, 0, 1)
    assert lengths.share_longer == pytest.approx(2 / 3)
    assert lengths.median_ratio == pytest.approx(4 / 3)
    assert sum(cell.pairs for cell in lengths.cells) == 3


def test_models_are_compared_on_the_same_prompt() -> None:
    numbers = _measured(
        _turn(1, ("one", 3.0), ("two", 1.0), models="ab"),
        _turn(2, ("three", 2.0), ("four", 2.0), models="ab"),
        _turn(3, ("five", 2.0), ("six", 1.0), models="bb"),
    )
    better, worse = numbers.models
    assert (better.name, better.wins, better.ties, better.losses, better.win_rate) == ("a", 1, 1, 0, 0.75)
    assert (worse.name, worse.candidates, worse.wins, worse.ties, worse.losses) == ("b", 4, 0, 1, 1)
    assert (worse.chosen, worse.rejected) == (1, 2)
    assert {(one.model, one.other, one.wins, one.ties, one.losses) for one in numbers.versus} == {
        ("a", "b", 1, 1, 0),
        ("b", "a", 0, 1, 1),
    }


def test_one_model_has_no_win_rate() -> None:
    (model,) = _measured(_turn(1, ("one", 3.0), ("two", 1.0))).models
    assert model.win_rate is None
    assert model.interval is None


def test_subtopics_ties_and_agreement() -> None:
    numbers = _measured(
        _turn(1, ("one", 3.0), ("two", 1.0), agreement=0.5),
        _turn(2, ("one", 2.0), ("one ", 2.0), ("two", 2.0), subtopic="Milk", agreement=1.0),
    )
    tea, milk = numbers.subtopics
    assert (tea.name, tea.turns, tea.pairs, tea.mean_margin, tea.share_longer) == ("Tea", 1, 1, 2.0, 0.0)
    assert (milk.name, milk.pairs, milk.mean_margin) == ("Milk", 0, 0.0)
    assert (numbers.ties.ties, numbers.ties.comparisons, numbers.ties.identical_texts) == (2, 3, 1)
    assert numbers.agreement is not None
    assert numbers.agreement.mean == pytest.approx(0.8)


def test_a_text_that_wins_many_prompts_is_found_however_it_is_written() -> None:
    numbers = _measured(
        _turn(1, ("Great question!", 3.0), ("one", 1.0)),
        _turn(2, ("great  question", 3.0), ("two", 1.0)),
        _turn(3, ("A great question.", 3.0), ("three", 1.0)),
        _turn(4, ("Great question.", 0.0), ("four", 1.0)),
    )
    (group,) = numbers.duplicates.groups
    assert (group.responses, group.prompts, group.won) == (4, 4, 3)
    assert DangerKind.SAME_WINNER in _kinds(numbers)


def test_a_text_twice_under_one_prompt_is_no_group() -> None:
    assert _measured(_turn(1, ("same", 3.0), ("same", 1.0)), _turn(1, ("same", 2.0))).duplicates.count == 0


def _many(count: int, *answers: tuple[str, float], **more: object) -> list[PairedTurn]:
    return [_turn(place, *((f"{text} {place}", score) for text, score in answers), **more) for place in range(count)]  # type: ignore[arg-type]


WITH_DATASET = RunFacts("run", "complete", train_pairs=19, validation_pairs=1)
CASES = {
    DangerKind.LENGTH_BIAS: lambda: _measured(*_many(20, ("a longer text", 2.0), ("short", 1.0))),
    DangerKind.SMALL_MARGINS: lambda: measure(
        [
            PairedTurn(turn.turn, [pair for pair in turn.pairs if pair.margin < 2.0])
            for turn in _many(20, ("one", 9.0), ("two", 1.5), ("three", 1.0))
        ],
        COMPLETE,
        SetAside(),
    ),
    DangerKind.TINY_MARGINS: lambda: _measured(*_many(20, ("a", 9.0), ("b", 1.1), ("c", 1.0))),
    DangerKind.ONE_MODEL_WINS: lambda: _measured(*_many(20, ("a", 9.0), ("b", 1.0), models="xy")),
    DangerKind.FEW_PROMPTS: lambda: _measured(*_many(20, ("a", 9.0), ("b", 1.0)), facts=WITH_DATASET),
    DangerKind.FLAWED_RESPONSES: lambda: _measured(*_many(10, ("a", 9.0), ("b", 1.0), flaw="truncated")),
    DangerKind.MANY_TIES: lambda: _measured(*_many(20, ("a", 1.0), ("b", 1.0))),
    DangerKind.ONE_SCORE: lambda: _measured(*_many(4, ("a", 7.0), ("b", 7.0))),
    DangerKind.DISAGREEMENT: lambda: _measured(*_many(10, ("a", 2.0), ("b", 1.0), agreement=0.6)),
    DangerKind.NO_PAIRS: lambda: _measured(_turn(1, ("a", 1.0))),
    DangerKind.UNFINISHED: lambda: _measured(facts=RunFacts("run", "interrupted", "no credit")),
    DangerKind.UNREADABLE: lambda: _measured(set_aside=SetAside(unreadable=2)),
    DangerKind.SAME_WINNER: lambda: _measured(*(_turn(place, ("a", 2.0), (f"b{place}", 1.0)) for place in range(3))),
}


@pytest.mark.parametrize("kind", DangerKind)
def test_each_danger_is_told_with_its_number_and_what_to_do(kind: DangerKind) -> None:
    (danger,) = [one for one in dangers_in(CASES[kind]()) if one.kind is kind]
    assert danger.title
    assert danger.why
    assert danger.advice
    assert (
        kind is DangerKind.UNFINISHED
        or any(character.isdigit() for character in danger.seen)
        or "None of" in danger.seen
    )


def test_a_good_run_warns_of_nothing() -> None:
    turns = [_turn(place, (f"answer {place}", 3.0), (f"another answer {place}", 1.0)) for place in range(40)]
    turns += [_turn(40 + place, (f"a longer answer {place}", 3.0), (f"short {place}", 1.0)) for place in range(40)]
    facts = RunFacts("run", "complete", train_pairs=40, validation_pairs=40)
    assert _kinds(_measured(*turns, facts=facts)) == set()


def test_no_turn_has_numbers_too() -> None:
    numbers = _measured()
    assert numbers.flow.pairs == 0
    assert numbers.validation_prompts is None
    assert numbers.to_json()["lengths"]["share_longer"] == 0.0  # type: ignore[index]


def test_what_has_no_length_score_range_or_message_is_counted() -> None:
    prompt = (Message("system", "Be brief."), Message("user", "Why?"))
    pair = [
        Candidate("e", "t", index, prompt, text, score)
        for index, (text, score) in enumerate([("", 1e308), ("b", -1e308)])
    ]
    turn = PairedTurn(Turn("e", "t", prompt, pair), [PreferencePair(pair[0], pair[1], 2)])
    numbers = _measured(turn)
    assert numbers.models[0].name == "unknown"
    assert numbers.subtopics[0].name == ""
    assert numbers.lengths.shorter == 1


@given(st.lists(finite, max_size=50), st.lists(finite, max_size=50))
def test_a_histogram_counts_every_value_once(one: list[float], other: list[float]) -> None:
    found = histogram({"one": one, "other": other})
    assert sum(found.counts["one"]) == len(one)
    assert sum(found.counts["other"]) == len(other)
    assert list(found.edges) == sorted(set(found.edges))
    assert all(map(isfinite, found.edges))
    assert all(found.edges[0] <= value <= found.edges[-1] for value in (*one, *other))


def test_what_arithmetic_is_off_moves_no_value_to_another_bin() -> None:
    noisy = [0.9 - 0.1, 0.1 + 0.7]
    assert noisy[0] != noisy[1]
    found = histogram({"all": [0.0, *noisy, 6.4]})
    assert sorted(found.counts["all"], reverse=True)[:3] == [2, 1, 1]
    sample = Sample()
    sample.add(0.1 + 0.7)
    assert sample.share_below(0.8) == 0.0


@given(st.lists(finite, min_size=1))
def test_quantiles_ascend_within_the_values(values: list[float]) -> None:
    ascending = sorted(values)
    found = [quantile(ascending, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found[0] == ascending[0]
    assert found[-1] == ascending[-1]
    assert all(ascending[0] <= value <= ascending[-1] for value in found)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.integers(1, 10))
def test_a_sample_is_small_and_its_extremes_are_exact(values: list[float], limit: int) -> None:
    sample = Sample(limit)
    for value in values:
        sample.add(value)
    summary = sample.summary()
    assert len(sample.values()) == min(limit, len(values))
    assert set(sample.values()) <= set(values)
    assert (summary.count, summary.minimum, summary.maximum) == (len(values), min(values), max(values))
    assert summary.mean == pytest.approx(sum(values) / len(values), abs=1e-6)


@given(st.floats(0.0, 1.0), st.integers(1, 10_000))
def test_an_interval_holds_the_rate(rate: float, count: int) -> None:
    low, high = wilson(rate, count)
    assert 0.0 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1.0


def test_wilson_as_in_the_books() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


answers = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-5, 5), st.sampled_from("xyz")), min_size=1, max_size=5)


@given(st.lists(answers, max_size=6))
def test_whatever_the_turns_the_sums_agree(turns: list[list[tuple[str, float, str]]]) -> None:
    made = [
        _turn(place, *((text, score) for text, score, _ in turn), models="".join(model for *_, model in turn))
        for place, turn in enumerate(turns)
    ]
    numbers = _measured(*made)
    flow = numbers.flow
    assert flow.possible_pairs == flow.pairs + sum(flow.left_out.values())
    assert sum(one.chosen for one in numbers.models) == sum(one.rejected for one in numbers.models) == flow.pairs
    assert sum(one.wins for one in numbers.models) == sum(one.losses for one in numbers.models)
    assert sum(one.pairs for one in numbers.subtopics) == flow.pairs
    lengths = numbers.lengths
    assert lengths.longer + lengths.same + lengths.shorter == sum(cell.pairs for cell in lengths.cells) == flow.pairs

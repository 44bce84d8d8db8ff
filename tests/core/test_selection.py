from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.messages import Message, Prompt
from nat_dpo_pipeline.core.pairs import PreferencePair, SkipReason
from nat_dpo_pipeline.core.selection import Selection, SelectionRules

TEXTS = st.sampled_from(["a", "bb", "ccc", " a ", "dddd"])


def _pair(chosen: str, rejected: str, margin: float = 1.0, prompt: Prompt = "q") -> PreferencePair:
    better = Candidate("e", "t", 0, prompt, chosen, margin)
    return PreferencePair(better, Candidate("e", "t", 1, prompt, rejected, 0.0), 2)


PAIRS = st.lists(
    st.builds(_pair, TEXTS, TEXTS, st.integers(1, 6).map(float), st.sampled_from(["q", "q ", "r", "s", "What is it?"])),
    max_size=12,
)
RULES = st.builds(
    SelectionRules,
    evaluation=st.none() | st.just(EvaluationSet(["what is it"])),
    drop_contradictions=st.booleans(),
    max_prompts_per_chosen=st.none() | st.integers(1, 3),
    min_margin_quantile=st.none() | st.floats(0.01, 0.99),
    length_balance=st.none() | st.floats(0.1, 0.9),
)


def _kept(rules: SelectionRules, pairs: list[PreferencePair]) -> list[PreferencePair]:
    return list(Selection.of(rules, pairs).kept(pairs))


def _share(pairs: list[PreferencePair]) -> tuple[int, int]:
    longer = sum(len(pair.chosen.response) > len(pair.rejected.response) for pair in pairs)
    return longer, sum(len(pair.chosen.response) < len(pair.rejected.response) for pair in pairs)


@given(RULES, PAIRS)
def test_every_pair_is_kept_in_its_order_or_counted(rules: SelectionRules, pairs: list[PreferencePair]) -> None:
    selection = Selection.of(rules, iter(pairs))
    kept = list(selection.kept(iter(pairs)))
    reasons = list(selection.reasons())
    assert kept == [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    assert len(kept) + selection.skipped.total() == len(pairs)
    assert selection.skipped == Counter(reason for reason in reasons if reason)


@given(RULES, PAIRS, st.data())
def test_the_order_of_the_pairs_has_no_say(
    rules: SelectionRules, pairs: list[PreferencePair], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(pairs))
    assert Counter(map(_facts, _kept(rules, pairs))) == Counter(map(_facts, _kept(rules, shuffled)))
    assert Selection.of(rules, pairs).skipped == Selection.of(rules, shuffled).skipped


def _facts(pair: PreferencePair) -> tuple[str, str, str, float]:
    # White space around a prompt says nothing.
    return str(pair.chosen.prompt).strip(), pair.chosen.response, pair.rejected.response, pair.margin


@given(PAIRS)
def test_without_rules_all_are_kept(pairs: list[PreferencePair]) -> None:
    assert SelectionRules().is_empty
    assert _kept(SelectionRules(), pairs) == pairs


@pytest.mark.parametrize(
    "rules",
    [
        {"evaluation": EvaluationSet([])},
        {"drop_contradictions": True},
        {"max_prompts_per_chosen": 1},
        {"min_margin_quantile": 0.5},
        {"length_balance": 0.5},
    ],
)
def test_any_rule_is_one(rules: dict[str, Any]) -> None:
    assert not SelectionRules(**rules).is_empty
    assert _kept(SelectionRules(**rules), []) == []


def test_a_prompt_that_overlaps_with_the_evaluation_set_is_left_out() -> None:
    pairs = [
        _pair("a", "b", prompt="Why so?"),
        _pair("b", "a", prompt="What is it?"),
        _pair("a", "c", prompt="Why so?"),
    ]
    selection = Selection.of(SelectionRules(evaluation=EvaluationSet(["what is it"])), pairs)
    assert list(selection.reasons()) == [None, SkipReason.CONTAMINATED, None]


def test_both_sides_of_a_contradiction_are_left_out() -> None:
    asked = (Message("user", " What is it?"),)
    pairs = [
        _pair("a", "b", 1.0, "What is it?"),
        _pair("b", "a ", 3.0, asked),
        _pair("a", "c", 1.0, "What is it?"),
        _pair("b", "a", 1.0, "What is that?"),
    ]
    selection = Selection.of(SelectionRules(drop_contradictions=True), pairs)
    assert list(selection.reasons()) == [SkipReason.CONTRADICTION, SkipReason.CONTRADICTION, None, None]


@given(PAIRS)
def test_no_contradiction_is_left(pairs: list[PreferencePair]) -> None:
    def keys(pair: PreferencePair) -> tuple[str, str, str]:
        return str(pair.chosen.prompt).strip(), pair.chosen.response.strip(), pair.rejected.response.strip()

    kept = set(map(keys, _kept(SelectionRules(drop_contradictions=True), pairs)))
    assert not any((prompt, rejected, chosen) in kept for prompt, chosen, rejected in kept)


def test_a_text_that_wins_too_many_prompts_wins_none() -> None:
    pairs = [
        _pair("constant", "a", prompt="one"),
        _pair("constant ", "b", prompt="two"),
        _pair("constant", "c", prompt="two "),
        _pair("constant", "d", prompt="three"),
        _pair("a", "constant", prompt="four"),
    ]
    over = SkipReason.OVER_MAX_PROMPTS_PER_CHOSEN
    assert list(Selection.of(SelectionRules(max_prompts_per_chosen=2), pairs).reasons()) == [over] * 4 + [None]
    assert _kept(SelectionRules(max_prompts_per_chosen=3), pairs) == pairs


@given(PAIRS, st.integers(1, 3))
def test_no_text_is_chosen_for_more_prompts_than_allowed(pairs: list[PreferencePair], most: int) -> None:
    prompts: dict[str, set[str]] = {}
    for pair in _kept(SelectionRules(max_prompts_per_chosen=most), pairs):
        prompts.setdefault(pair.chosen.response.strip(), set()).add(str(pair.chosen.prompt).strip())
    assert all(len(asked) <= most for asked in prompts.values())


@pytest.mark.parametrize(
    ("share", "margins"),
    [
        (0.5, [3.0, 4.0]),
        (0.25, [2.0, 3.0, 4.0]),
        (0.2, [1.0, 2.0, 3.0, 4.0]),
        (0.99, [4.0]),
    ],
)
def test_the_smallest_margins_of_the_run_are_left_out(share: float, margins: list[float]) -> None:
    pairs = [_pair(f"{margin}", "x", margin) for margin in (1.0, 2.0, 3.0, 4.0)]
    rules = SelectionRules(min_margin_quantile=share)
    assert [pair.margin for pair in _kept(rules, pairs)] == margins


@given(PAIRS, st.floats(0.01, 0.99))
def test_no_more_than_the_share_falls_below_the_quantile_and_none_is_above_one_that_does(
    pairs: list[PreferencePair], share: float
) -> None:
    kept = [pair.margin for pair in _kept(SelectionRules(min_margin_quantile=share), pairs)]
    left_out = Counter(pair.margin for pair in pairs) - Counter(kept)
    assert left_out.total() <= share * len(pairs) + 1e-9
    assert not left_out or max(left_out) < min(kept)


def test_a_share_of_a_hundred_is_counted_without_rounding_errors() -> None:
    pairs = [_pair("a", "b", float(margin + 1)) for margin in range(100)]
    assert len(_kept(SelectionRules(min_margin_quantile=0.29), pairs)) == 71


def test_longer_chosen_pairs_of_small_margin_go_until_there_is_balance() -> None:
    pairs = [
        _pair("long", "l", 1.0),
        _pair("long", "k", 3.0),
        _pair("s", "short", 1.0),
        _pair("long", "j", 2.0),
        _pair("same", "size", 0.5),
    ]
    selection = Selection.of(SelectionRules(length_balance=0.5), pairs)
    assert list(selection.reasons()) == [SkipReason.LENGTH_BALANCE, None, None, SkipReason.LENGTH_BALANCE, None]
    assert _share(_kept(SelectionRules(length_balance=2 / 3), pairs)) == (2, 1)
    assert _kept(SelectionRules(length_balance=0.75), pairs) == pairs


@given(PAIRS, st.sampled_from([0.25, 0.5, 0.6, 0.75]))
def test_longer_chosen_pairs_are_at_most_their_share_and_as_many_as_that(
    pairs: list[PreferencePair], share: float
) -> None:
    longer, shorter = _share(pairs)
    kept = _kept(SelectionRules(length_balance=share), pairs)
    assert _share(kept) == (min(longer, int(share / (1 - share) * shorter + 1e-9)), shorter)


def test_each_rule_looks_at_what_those_before_it_left() -> None:
    pairs = [_pair("a", "b", 1.0), _pair("b", "a", 1.0), _pair("c", "d", 2.0), _pair("e", "f", 3.0)]
    selection = Selection.of(SelectionRules(drop_contradictions=True, min_margin_quantile=0.5), pairs)
    contradiction = SkipReason.CONTRADICTION
    assert list(selection.reasons()) == [contradiction, contradiction, SkipReason.BELOW_MIN_MARGIN_QUANTILE, None]


def test_other_pairs_than_those_decided_on_are_refused() -> None:
    selection = Selection.of(SelectionRules(drop_contradictions=True), [_pair("a", "b")])
    with pytest.raises(ValueError, match="longer"):
        list(selection.kept([]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_prompts_per_chosen", 0),
        ("min_margin_quantile", 0.0),
        ("min_margin_quantile", 1.0),
        ("length_balance", 1.0),
        ("length_balance", float("nan")),
    ],
)
def test_a_rule_that_means_nothing_is_refused(name: str, value: float) -> None:
    rules: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value!r}"):
        SelectionRules(**rules)

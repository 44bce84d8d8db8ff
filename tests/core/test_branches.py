"""Rollouts of one task become turns where their replies differ, with the mean outcome as score."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.branches import branched
from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.messages import Message, Rollout, ToolCall, messages_of, reply_of
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, make_pairs
from nat_dpo_pipeline.core.strategies import CutAt, Thoughts

# A rollout as letters: `a` to `c` are replies, `A` to `C` calls of a tool, digits what a tool gave, `u` the user.
# No reply follows another: reading makes them one.
letters = st.builds(
    lambda steps, last: "".join(map("".join, steps)) + last,
    st.lists(st.tuples(st.sampled_from("abAB"), st.sampled_from("12u")), max_size=3),
    st.sampled_from("abA"),
)


def _message(letter: str) -> Message:
    if letter.isdecimal():
        return Message("tool", letter, tool_call_id="call00001")
    if letter == "u":
        return Message("user", "And?")
    return (
        Message("assistant", "", (ToolCall(letter, "{}", "call00001"),))
        if letter.isupper()
        else Message("assistant", letter)
    )


def _candidate(said: str, score: float, place: int = 0, **metadata: object) -> Candidate:
    messages = tuple(map(_message, said))
    response = reply_of(messages[0]) if len(said) == 1 else Rollout(messages)
    return Candidate("task", "rollout", place, "Begin.", response, score, metadata=metadata)


def _turns(*rollouts: tuple[str, float], **rules: object) -> list[tuple[str, dict[str, float]]]:
    """Return what came before each turn, and its replies with their scores."""
    candidates = [_candidate(said, score, place) for place, (said, score) in enumerate(rollouts)]
    turn = Turn("task", "rollout", "Begin.", candidates)
    found = branched([turn], PairingRules(**rules), Counter())  # type: ignore[arg-type]
    return [(_said(one), {_letter(each.response): each.score for each in one.candidates}) for one in found]


def _said(turn: Turn) -> str:
    return "".join(
        _letter(reply_of(one)) if one.role == "assistant" else one.content for one in messages_of(turn.prompt)[1:]
    )


def _letter(reply: str) -> str:
    message = getattr(reply, "message", None)
    return message.tool_calls[0].name if message is not None else reply


def test_a_turn_is_where_calls_differ_first() -> None:
    found = _turns(("A1b", 1.0), ("A1B2a", 0.0), ("A1B2c", 0.5))
    assert found == [("A1", {"b": 1.0, "B": 0.25})]


def test_every_place_where_replies_differ_is_a_turn() -> None:
    found = _turns(("A1b", 1.0), ("A1B2a", 0.0), ("A1B2c", 0.5), at=CutAt.EVERY)
    assert found == [("A1", {"b": 1.0, "B": 0.25}), ("A1B2", {"a": 0.0, "c": 0.5})]


def test_branches_that_part_by_what_a_tool_gave_have_turns_of_their_own() -> None:
    found = _turns(("A1b", 1.0), ("A1c", 0.0), ("A2b", 0.0), ("A2a", 0.5))
    assert found == [("A1", {"b": 1.0, "c": 0.0}), ("A2", {"b": 0.0, "a": 0.5})]


def test_the_first_and_the_last_reply() -> None:
    rollouts = (("A1b", 1.0), ("B1b", 0.0), ("A1c", 0.5))
    assert _turns(*rollouts, at=CutAt.FIRST) == [("", {"A": 0.75, "B": 0.0})]
    assert _turns(*rollouts, at=CutAt.LAST) == [("A1", {"b": 1.0, "c": 0.5}), ("B1", {"b": 0.0})]


def test_conversations_without_calls_are_cut_before_their_last_reply() -> None:
    assert _turns(("aub", 1.0), ("auc", 0.0)) == [("aAnd?", {"b": 1.0, "c": 0.0})]


def test_rollouts_that_say_the_same_are_candidates_that_do() -> None:
    assert _turns(("A1b", 1.0), ("A1b", 0.0)) == [("A1", {"b": 0.0})]
    (turn,) = branched(
        [Turn("task", "t", "Begin.", [_candidate("A1b", 1.0), _candidate("A1b", 0.0)])], PairingRules(), Counter()
    )
    assert make_pairs([turn], PairingRules()).skipped == {SkipReason.IDENTICAL_TEXT: 1}


def test_a_rollout_that_ends_with_a_tool_counts_where_it_parted() -> None:
    assert _turns(("A1", 0.0), ("B1b", 1.0)) == [("", {"A": 0.0, "B": 1.0})]
    assert _turns(("A1", 0.0)) == [("", {"A": 0.0})]


def test_replies_with_few_rollouts_behind_them_are_left_out_and_counted() -> None:
    skipped: Counter[SkipReason] = Counter()
    rollouts = [_candidate(said, score) for said, score in (("A1b", 1.0), ("A1c", 0.5), ("B1b", 0.0), ("C1b", 0.0))]
    rules = PairingRules(min_rollouts=2)
    (turn,) = branched([Turn("task", "t", "Begin.", rollouts)], rules, skipped)
    assert [one.score for one in turn.candidates] == [0.75]
    assert turn.candidates[0].metadata == {"rollouts": 2, "message": 0}
    assert skipped == {SkipReason.BELOW_MIN_ROLLOUTS: 3}
    assert list(branched([Turn("task", "t", "Begin.", rollouts[2:])], rules, skipped)) == []


def test_the_reward_of_a_rollout_that_was_cut_off_does_not_count_behind_a_reply_with_others() -> None:
    rollouts = [
        _candidate("A1b", 1.0),
        _candidate("A1c", 0.0, flaw="truncated"),
        _candidate("B1b", 0.5, flaw="truncated"),
    ]
    (turn,) = branched([Turn("task", "t", "Begin.", rollouts)], PairingRules(), Counter())
    assert [one.score for one in turn.candidates] == [1.0, 0.5]
    assert [one.metadata.get("flaw") for one in turn.candidates] == [None, "truncated"]


@given(st.lists(st.tuples(letters, st.integers(0, 4).map(float)), min_size=1, max_size=6), st.sampled_from(CutAt))
def test_turns_have_one_prompt_and_replies_of_the_assistant(rollouts: list[tuple[str, float]], at: CutAt) -> None:
    candidates = [_candidate(said, score, place) for place, (said, score) in enumerate(rollouts)]
    turn = Turn("task", "rollout", "Begin.", candidates)
    found = list(branched([turn], PairingRules(at=at), Counter()))
    assert found
    assert len({one.turn_id for one in found}) == len(found)
    for one in found:
        assert messages_of(one.prompt)[-1].role != "assistant"
        assert len({each.prompt for each in one.candidates}) == 1
        assert all(not isinstance(each.response, Rollout) for each in one.candidates)
        scores = [score for _, score in rollouts]
        assert all(min(scores) <= each.score <= max(scores) for each in one.candidates)


@pytest.mark.parametrize("said", ["a", "b"])
def test_single_replies_are_left_as_they_are(said: str) -> None:
    turn = Turn("task", "t", "Begin.", [_candidate(said, 1.0)])
    assert list(branched([turn], PairingRules(), Counter())) == [turn]


def test_thoughts_may_be_dropped() -> None:
    thought = reply_of(Message("assistant", "a", reasoning="Hm."))
    rollout = Rollout((Message("assistant", "a", reasoning="Hm."), Message("user", "And?"), Message("assistant", "b")))
    candidates = [Candidate("e", "t", place, "Why?", one, 1.0) for place, one in enumerate((thought, rollout, "c"))]
    rules = PairingRules(thoughts=Thoughts.DROP, at=CutAt.FIRST)
    (turn,) = branched([Turn("e", "t", "Why?", candidates)], rules, Counter())
    assert [(type(one.response), one.response) for one in turn.candidates] == [(str, "a"), (str, "c")]
    (kept,) = branched([Turn("e", "t", "Why?", candidates[:1])], PairingRules(), Counter())
    assert kept.candidates[0].response is thought

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, finite_number, group_turns
from nat_dpo_pipeline.core.messages import Message, Prompt, prompt_key

TEXTS = st.text(alphabet="ab \t\n\u00a0\u2028é", max_size=12)


def _candidate(turn_id: str = "turn", prompt: Prompt = "q", response: str = "r", score: float = 1.0) -> Candidate:
    return Candidate("example", turn_id, 0, prompt, response, score)


@pytest.mark.parametrize("score", [nan, inf, -inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        _candidate(score=score)


def test_attributes_and_metadata_are_empty_unless_given() -> None:
    candidate = _candidate()
    assert dict(candidate.attributes) == {}
    assert dict(candidate.metadata) == {}
    assert candidate.model is None


def test_no_candidates_make_no_turns() -> None:
    grouping = group_turns([])
    assert (grouping.turns, grouping.split) == ([], 0)


def test_interleaved_candidates_are_grouped_by_turn_id_in_order_of_arrival() -> None:
    arrived = [
        _candidate("second", response="1"),
        _candidate("first", response="2"),
        _candidate("second", response="3"),
    ]
    grouping = group_turns(arrived)
    assert [turn.turn_id for turn in grouping.turns] == ["second", "first"]
    assert [[candidate.response for candidate in turn.candidates] for turn in grouping.turns] == [["1", "3"], ["2"]]
    assert grouping.split == 0


def test_a_turn_carries_the_example_and_the_prompt_of_its_candidates() -> None:
    prompt = (Message("system", "Be brief."), Message("user", "q"))
    (turn,) = group_turns([_candidate(prompt=prompt)]).turns
    assert (turn.example_id, turn.turn_id, turn.prompt) == ("example", "turn", prompt)


def test_equal_prompts_of_different_objects_are_one_turn() -> None:
    grouping = group_turns([_candidate(prompt=(Message("user", text),)) for text in ("q", "".join(["q"]))])
    assert len(grouping.turns) == 1
    assert grouping.split == 0


def test_a_turn_whose_prompts_differ_is_split_by_prompt_and_counted_once() -> None:
    arrived = [_candidate(prompt=prompt, response=str(index)) for index, prompt in enumerate(["a", "b", "a", "c"])]
    grouping = group_turns([*arrived, _candidate("other")])
    assert [turn.prompt for turn in grouping.turns] == ["a", "b", "c", "q"]
    assert [len(turn.candidates) for turn in grouping.turns] == [2, 1, 1, 1]
    assert grouping.split == 1


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("ab"))))
def test_grouping_loses_no_candidate_and_mixes_no_prompts(arrived: list[tuple[str, str]]) -> None:
    candidates = [_candidate(turn_id, prompt, str(i)) for i, (turn_id, prompt) in enumerate(arrived)]
    turns = group_turns(candidates).turns
    kept = [candidate for turn in turns for candidate in turn.candidates]
    assert sorted(int(candidate.response) for candidate in kept) == list(range(len(candidates)))
    for turn in turns:
        assert {(candidate.turn_id, candidate.prompt) for candidate in turn.candidates} == {(turn.turn_id, turn.prompt)}


@given(TEXTS)
def test_white_space_does_not_tell_prompts_apart(text: str) -> None:
    assert prompt_key(f" {text}\n") == prompt_key(text)
    assert prompt_key("\n\n".join(text.split())) == prompt_key(text)


@given(TEXTS)
def test_a_single_user_message_asks_the_same_as_its_text(text: str) -> None:
    assert prompt_key((Message("user", text),)) == prompt_key(text)


def test_the_key_of_one_system_message_is_not_that_of_its_text() -> None:
    assert prompt_key((Message("system", "q"),)) != prompt_key("q")


CONVERSATIONS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(alphabet="a\x1e\x1f ", max_size=4)),
    min_size=2,
    max_size=3,
).map(tuple)


@given(CONVERSATIONS, CONVERSATIONS)
def test_conversations_share_a_key_only_when_roles_and_words_agree(
    one: tuple[Message, ...], other: tuple[Message, ...]
) -> None:
    def said(prompt: tuple[Message, ...]) -> list[tuple[str, list[str]]]:
        return [(message.role, message.content.split()) for message in prompt]

    assert (prompt_key(one) == prompt_key(other)) == (said(one) == said(other))


@pytest.mark.parametrize(
    "value",
    [True, "1", None, nan, inf, 10**400, [1.0], np.bool_(True), np.array("1"), np.array([1.0]), np.float32(nan)],
)
def test_what_is_no_finite_number(value: object) -> None:
    assert finite_number(value) is None


@pytest.mark.parametrize("value", [0, -3, 2.5, np.float32(0.5), np.array(0.5), np.array(3), np.int64(3), np.float16(2)])
def test_a_finite_number_is_a_float(value: float) -> None:
    assert finite_number(value) == value
    assert isinstance(finite_number(value), float)

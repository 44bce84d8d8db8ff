import copy
import gc
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.finetuning import DPOItem, EpisodeItem, EpisodeItemRole, OpenAIMessage, Trajectory
from pydantic import BaseModel

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message, Prompt
from nat_dpo_pipeline.core.pairs import PreferencePair
from nat_dpo_pipeline.dataset.formats import PreferenceRow
from nat_dpo_pipeline.plugin.finetuning.submissions import pairs_of
from nat_dpo_pipeline.plugin.finetuning.trajectories import (
    build_trajectories,
    collector_paused,
    nat_prompt,
)

MESSAGES = (Message("system", "Be brief."), Message("user", "Why?"))
SCORES = st.floats(-1e6, 1e6)
PROMPTS = st.text() | st.lists(st.builds(Message, st.sampled_from(["system", "user"]), st.text()), min_size=1).map(
    tuple
)


def _candidate(index: int, score: float, prompt: Prompt = "Why?", response: str | None = None) -> Candidate:
    text = f"response {index}" if response is None else response
    return Candidate("example", "turn", index, prompt, text, score, metadata={"place": index})


def _pair(high: float = 3.0, low: float = 1.0, prompt: Prompt = "Why?") -> PreferencePair:
    return PreferencePair(_candidate(0, high, prompt), _candidate(1, low, prompt), 5)


def _validated(pair: PreferencePair, *, exhaustive: bool, reward_from_score_diff: bool) -> Trajectory:
    """The trajectory of a pair as pydantic builds it, from plain values."""
    chosen, rejected = pair.chosen, pair.rejected
    prompt: object = chosen.prompt
    if not isinstance(chosen.prompt, str):
        prompt = [{"role": message.role, "content": message.content} for message in chosen.prompt]
    return Trajectory.model_validate(
        {
            "episode": [
                DPOItem.model_validate(
                    {"prompt": prompt, "chosen_response": chosen.response, "rejected_response": rejected.response}
                )
            ],
            "reward": pair.margin if reward_from_score_diff else chosen.score,
            "shaped_rewards": None,
            "metadata": {
                "dpo_type": "preference_pair",
                "score_diff": pair.margin,
                "example_id": "example",
                "turn_id": "turn",
                "chosen_score": chosen.score,
                "rejected_score": rejected.score,
                "chosen_index": chosen.candidate_index,
                "rejected_index": rejected.candidate_index,
            }
            | (
                {"chosen_raw_metadata": chosen.metadata, "rejected_raw_metadata": rejected.metadata}
                if exhaustive
                else {"num_candidates": pair.num_candidates}
            ),
        }
    )


@given(
    scores=st.tuples(SCORES, SCORES),
    responses=st.tuples(st.text(), st.text()),
    prompt=PROMPTS,
    exhaustive=st.booleans(),
    reward_from_score_diff=st.booleans(),
)
def test_a_trajectory_is_what_validation_would_build(
    scores: tuple[float, float],
    responses: tuple[str, str],
    prompt: Prompt,
    exhaustive: bool,
    reward_from_score_diff: bool,
) -> None:
    pair = PreferencePair(
        _candidate(0, scores[0], prompt, responses[0]), _candidate(1, scores[1], prompt, responses[1]), 2
    )
    (built,) = build_trajectories([pair], exhaustive=exhaustive, reward_from_score_diff=reward_from_score_diff)
    expected = _validated(pair, exhaustive=exhaustive, reward_from_score_diff=reward_from_score_diff)
    assert built == expected
    assert built.model_dump() == expected.model_dump()
    assert built.model_dump_json() == expected.model_dump_json()
    assert repr(built) == repr(expected)


def _models(trajectory: Trajectory) -> Iterator[BaseModel]:
    yield trajectory
    yield from trajectory.episode


@pytest.mark.parametrize("prompt", ["Why?", MESSAGES])
def test_a_trajectory_has_all_that_pydantic_keeps_of_a_model(prompt: Prompt) -> None:
    (built,) = build_trajectories([_pair(prompt=prompt)], exhaustive=True, reward_from_score_diff=True)
    expected = _validated(_pair(prompt=prompt), exhaustive=True, reward_from_score_diff=True)
    for model, other in zip(_models(built), _models(expected), strict=True):
        assert model.__dict__.keys() == other.__dict__.keys()
        assert model.model_fields_set == other.model_fields_set
        assert model.model_extra is other.model_extra is None
        assert model.__pydantic_private__ is other.__pydantic_private__ is None


@pytest.mark.parametrize("prompt", ["Why?", MESSAGES])
def test_a_trajectory_can_be_copied_pickled_changed_and_validated(prompt: Prompt) -> None:
    (built,) = build_trajectories([_pair(prompt=prompt)], exhaustive=True, reward_from_score_diff=True)
    expected = _validated(_pair(prompt=prompt), exhaustive=True, reward_from_score_diff=True)
    assert copy.deepcopy(built) == expected
    assert built.model_copy(deep=True) == expected
    assert pickle.loads(pickle.dumps(built)) == expected
    assert Trajectory.model_validate(built.model_dump()) == expected
    assert Trajectory.model_validate_json(built.model_dump_json()) == expected
    changed = built.model_copy(update={"reward": 9.0})
    assert (changed.reward, built.reward) == (9.0, expected.reward)
    changed.metadata = {"mine": 1}
    assert built.metadata == expected.metadata


def test_changing_one_trajectory_changes_no_other() -> None:
    """They share the sets of fields, which pydantic fills when a field is set."""
    first, second = build_trajectories([_pair(), _pair(4.0)], exhaustive=True, reward_from_score_diff=True)
    first.shaped_rewards = [1.0]
    first.metadata = None
    assert second.shaped_rewards is None
    assert second.metadata is not None
    assert second.model_fields_set == set(Trajectory.model_fields)


def test_the_reward_is_the_difference_or_the_chosen_score() -> None:
    for from_diff, reward in ((True, 2.0), (False, 3.0)):
        (built,) = build_trajectories([_pair()], exhaustive=True, reward_from_score_diff=from_diff)
        assert built.reward == reward


def test_no_pairs_make_no_trajectories() -> None:
    assert build_trajectories([], exhaustive=True, reward_from_score_diff=True) == []


def test_a_prompt_of_messages_becomes_nats_messages() -> None:
    assert nat_prompt("Why?") == "Why?"
    assert nat_prompt(MESSAGES) == [
        OpenAIMessage(role="system", content="Be brief."),
        OpenAIMessage(role="user", content="Why?"),
    ]


def _rows(trajectory: Trajectory) -> list[PreferenceRow]:
    return [pair.row for pair in pairs_of(trajectory)]


@pytest.mark.parametrize("prompt", ["Why?", MESSAGES])
def test_rows_are_the_pairs_again(prompt: Prompt) -> None:
    (built,) = build_trajectories([_pair(prompt=prompt)], exhaustive=False, reward_from_score_diff=True)
    assert _rows(built) == [
        PreferenceRow(prompt, "response 0", "response 1", 3.0, 1.0, example_id="example", turn_id="turn")
    ]


def test_a_trajectory_of_another_builder_may_lack_metadata_and_hold_several_items() -> None:
    items = [DPOItem(prompt="Why?", chosen_response=f"good {n}", rejected_response="bad") for n in range(2)]
    rows = _rows(Trajectory(episode=items, reward=1.0))
    assert rows == [PreferenceRow("Why?", "good 0", "bad"), PreferenceRow("Why?", "good 1", "bad")]


@pytest.mark.parametrize("score", ["high", float("nan"), float("inf"), 10**400, True])
def test_metadata_of_another_builder_is_taken_as_far_as_it_fits(score: object) -> None:
    item = DPOItem(prompt="Why?", chosen_response="good", rejected_response="bad")
    metadata = {"chosen_score": score, "rejected_score": 1, "example_id": 7, "turn_id": None}
    (row,) = _rows(Trajectory(episode=[item], reward=1.0, metadata=metadata))
    assert row == PreferenceRow("Why?", "good", "bad", None, 1.0, "7", None)


def test_episodes_of_another_kind_have_no_rows() -> None:
    episode = [EpisodeItem(role=EpisodeItemRole.USER, content="Why?")]
    assert _rows(Trajectory(episode=episode, reward=1.0)) == []


def test_the_collector_rests_inside_the_block_only() -> None:
    frozen = gc.get_freeze_count()
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_the_collector_is_enabled_again_after_an_error() -> None:
    def fail() -> None:
        with collector_paused():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_that_the_process_froze_stay_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with collector_paused():
            kept: list[list[int]] = [[] for _ in range(1000)]
        assert gc.get_freeze_count() == pytest.approx(frozen, rel=0.01)
        assert len(kept) == 1000
    finally:
        gc.unfreeze()


def test_rows_of_best_and_worst_tell_what_our_workflows_know_of_them() -> None:
    facts = {"llm": "large", "model": "gpt", "subtopic": "tea", "attributes": {"helpfulness": 3.0}}
    better = Candidate("e", "t", 0, "Why?", "a", 2.0, metadata=facts)
    worse = Candidate("e", "t", 1, "Why?", "b", 1.0, metadata={**facts, "llm": "small"})
    for exhaustive in (True, False):
        (built,) = build_trajectories(
            [PreferencePair(better, worse, 2)], exhaustive=exhaustive, reward_from_score_diff=True
        )
        (row,) = _rows(built)
        assert (row.chosen_model, row.rejected_model, row.subtopic) == ("large", "small", "tea")
        assert row.chosen_attributes == {"helpfulness": 3.0}

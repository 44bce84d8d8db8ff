"""Candidates that a workflow of one's own emits, read back as a trajectory builder reads them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from nat.plugin_api import Context

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.capture import emit_candidates, turn
from nat_dpo_pipeline.plugin.nat_api import IntermediateStep, IntermediateStepType
from nat_dpo_pipeline.plugin.steps import Decoded, decode_candidates
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME


@pytest.fixture
def steps() -> Iterator[list[IntermediateStep]]:
    """Everything that is pushed in this context."""
    found: list[IntermediateStep] = []
    subscription = Context.get().intermediate_step_manager.subscribe(found.append)
    yield found
    subscription.unsubscribe()


def _decoded(steps: list[IntermediateStep], name: str = DEFAULT_STEP_NAME) -> Decoded:
    return decode_candidates(steps, name, "example")


async def test_every_candidate_has_a_start_and_an_end_of_its_own(steps: list[IntermediateStep]) -> None:
    turn_id = emit_candidates(prompt="Which move?", responses=["e4", "f3"], scores=[0.4, -0.3], models=["a", "b"])
    kinds = [(step.event_type, step.payload.UUID) for step in steps]
    start, end = IntermediateStepType.TTC_START, IntermediateStepType.TTC_END
    assert [kind for kind, _ in kinds] == [start, end, start, end]
    assert kinds[0][1] == kinds[1][1] != kinds[2][1] == kinds[3][1]
    found = _decoded(steps).candidates
    assert [(one.response, one.score, one.candidate_index) for one in found] == [("e4", 0.4, 0), ("f3", -0.3, 1)]
    assert {one.turn_id for one in found} == {turn_id}
    assert [one.metadata["model"] for one in found] == ["a", "b"]


async def test_turns_do_not_share_their_ids_unless_they_are_told_to(steps: list[IntermediateStep]) -> None:
    first, second = (emit_candidates(prompt="p", responses=["a"], scores=[1]) for _ in range(2))
    assert first != second
    assert emit_candidates(prompt="p", responses=["a"], scores=[1], turn_id="mine", step_name="own") == "mine"
    assert [one.turn_id for one in _decoded(steps, "own").candidates] == ["mine"]


async def test_a_prompt_may_be_messages(steps: list[IntermediateStep]) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, Message("user", "Why?")]
    emit_candidates(prompt=prompt, responses=["So."], scores=[1.0])
    assert _decoded(steps).candidates[0].prompt == (Message("system", "Be brief."), Message("user", "Why?"))


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
async def test_what_has_no_finite_score_is_counted_by_the_builder(
    steps: list[IntermediateStep], score: float | None
) -> None:
    emit_candidates(prompt="p", responses=["a", "b"], scores=[score, 1.0])
    decoded = _decoded(steps)
    assert [one.response for one in decoded.candidates] == ["b"]
    assert [refusal.reason for refusal in decoded.refusals] == [RefusalReason.MISSING_SCORE]


async def test_a_score_may_be_what_a_library_computed(steps: list[IntermediateStep]) -> None:
    scores: list[Any] = [np.float32(0.5), np.array(1.5)]
    emit_candidates(prompt="p", responses=["a", "b"], scores=scores)
    assert [one.score for one in _decoded(steps).candidates] == [0.5, 1.5]


@pytest.mark.parametrize("given", [{"scores": [1.0]}, {"scores": [1.0, 2.0], "models": ["a"]}])
async def test_lists_of_different_lengths_are_refused(
    steps: list[IntermediateStep], given: dict[str, list[float]]
) -> None:
    with pytest.raises(InputError, match="2 responses need as many"):
        emit_candidates(prompt="p", responses=["a", "b"], **given)  # type: ignore[arg-type]
    assert steps == []


async def test_a_turn_takes_candidates_from_tasks_and_threads(steps: list[IntermediateStep]) -> None:
    async with turn(prompt="p") as candidates:
        # A thread that was not given the context could push nothing itself.
        await asyncio.get_running_loop().run_in_executor(None, lambda: candidates.add("thread", score=1.0))
        await asyncio.create_task(asyncio.to_thread(candidates.add, "task", score=2.0, attributes={"truth": 1.5}))
        assert steps == []
    found = _decoded(steps).candidates
    assert [(one.response, one.score) for one in found] == [("thread", 1.0), ("task", 2.0)]
    assert found[1].metadata["attributes"] == {"truth": 1.5}


async def test_what_was_added_before_an_error_is_kept(steps: list[IntermediateStep]) -> None:
    async def failing() -> None:
        async with turn(prompt="p") as candidates:
            candidates.add("kept", score=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert [one.response for one in _decoded(steps).candidates] == ["kept"]

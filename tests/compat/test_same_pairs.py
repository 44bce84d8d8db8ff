"""On data without ties, NaN, duplicates or blank prompts our pairs are NVIDIA's: texts, scores, metadata, order."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.evaluate_runtime import EvaluationRunOutput, ProfilerResults, UsageStats
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.finetuning import TrajectoryCollection
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    TTCEventData,
)
from nat.data_models.invocation_node import InvocationNode
from nat.finetuning.interfaces.trajectory_builder import TrajectoryBuilder
from nat.plugins.customizer.dpo.config import DPOTrajectoryBuilderConfig as TheirConfig
from nat.plugins.customizer.dpo.trajectory_builder import DPOTrajectoryBuilder as TheirBuilder

from nat_dpo_pipeline.core.marks import MARKS
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder as OurBuilder
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig as OurConfig

Turn = dict[str, Any]

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
# To three digits, as scores that differ only by rounding are a tie to us and a pair to them.
scores = st.floats(min_value=-1e3, max_value=1e3, allow_nan=False).map(lambda score: round(score, 3))
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": texts}), max_size=3
).map(lambda before: [*before, {"role": "user", "content": "And now?"}])
turns = st.fixed_dictionaries(
    {
        "prompt": st.one_of(texts.filter(str.strip), messages),
        "scores": st.lists(scores, min_size=1, max_size=6, unique=True),
        # A mark of a void reward leaves a candidate out of ours.
        "metadata": st.none() | st.dictionaries(texts.filter(lambda key: key not in MARKS), st.integers(), max_size=2),
    }
)
examples = st.lists(st.lists(turns, max_size=4), max_size=4)
settings = st.fixed_dictionaries(
    {
        "exhaustive_pairs": st.booleans(),
        "min_score_diff": st.sampled_from([0.0, 0.5, 100.0]),
        "max_pairs_per_turn": st.one_of(st.none(), st.integers(1, 5)),
        "reward_from_score_diff": st.booleans(),
        "require_multiple_candidates": st.booleans(),
    }
)


def steps_of(turn_id: str, turn: Turn, *, delivered: bool) -> list[IntermediateStep]:
    ancestry = InvocationNode(function_name="workflow", function_id="workflow")
    steps = []
    for index, score in enumerate(turn["scores"]):
        data = TTCEventData(
            turn_id=turn_id,
            turn_index=0,
            candidate_index=index,
            score=score,
            input=turn["prompt"],
            output=f"answer {index}",
        )
        payload = IntermediateStepPayload(
            event_type=IntermediateStepType.TTC_END, name="dpo_candidate_move", data=data, metadata=turn["metadata"]
        )
        step = IntermediateStep(parent_id="root", function_ancestry=ancestry, payload=payload)
        # An evaluation delivers steps through a dump and a validation.
        steps.append(IntermediateStep.model_validate(step.model_dump()) if delivered else step)
    return steps


def evaluation_of(examples: list[list[Turn]], *, delivered: bool) -> EvaluationRunOutput:
    items = [
        EvalInputItem(
            id=f"example-{number}",
            input_obj="",
            expected_output_obj="",
            output_obj="",
            trajectory=[
                step
                for position, turn in enumerate(turns)
                for step in steps_of(f"turn-{position}", turn, delivered=delivered)
            ],
            expected_trajectory=[],
            full_dataset_entry={},
        )
        for number, turns in enumerate(examples)
    ]
    return EvaluationRunOutput(
        workflow_output_file=None,
        evaluator_output_files=[],
        workflow_interrupted=False,
        eval_input=EvalInput(eval_input_items=items),
        evaluation_results=[],
        usage_stats=UsageStats(),
        profiler_results=ProfilerResults(),
    )


def collection_of(builder: TrajectoryBuilder, evaluation: EvaluationRunOutput) -> TrajectoryCollection:
    async def evaluated() -> EvaluationRunOutput:
        return evaluation

    async def run() -> TrajectoryCollection:
        builder.run_eval = evaluated  # type: ignore[method-assign]  # the evaluation is outside, the builder is tested
        await builder.start_run("run")
        return await builder.finalize("run")

    return asyncio.run(run())


@pytest.mark.parametrize("delivered", [True, False])
@given(examples=examples, settings=settings)
def test_pairs_equal_those_of_nvidias_builder(
    delivered: bool, examples: list[list[Turn]], settings: dict[str, Any]
) -> None:
    evaluation = evaluation_of(examples, delivered=delivered)

    ours = collection_of(OurBuilder(OurConfig(**settings)), evaluation)
    theirs = collection_of(TheirBuilder(TheirConfig(**settings)), evaluation)

    assert (ours.run_id, ours.trajectories) == (theirs.run_id, theirs.trajectories)
    assert ours.model_dump_json() == theirs.model_dump_json()
    for our_group, their_group in zip(ours.trajectories, theirs.trajectories, strict=True):
        for our, their in zip(our_group, their_group, strict=True):
            assert list(our.metadata or {}) == list(their.metadata or {})


def test_nvidias_fields_have_nvidias_defaults() -> None:
    ours = {name: (field.annotation, field.default) for name, field in OurConfig.model_fields.items()}
    theirs = {name: (field.annotation, field.default) for name, field in TheirConfig.model_fields.items()}

    assert ours.keys() >= theirs.keys()
    assert {name: ours[name][1] for name in theirs} == {name: default for name, (_, default) in theirs.items()}

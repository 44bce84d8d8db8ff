import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from nat.data_models.evaluate_runtime import EvaluationRunOutput, ProfilerResults
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.finetuning import FinetuneConfig, FinetuneRunConfig
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TTCEventData,
)
from nat.data_models.invocation_node import InvocationNode

from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

Outcome = EvaluationRunOutput | Exception
Turns = dict[str, Sequence[float]]


class RecordedBuilder(DPOTrajectoryBuilder):
    """The real builder over evaluations that are over: each run takes the next of `outcomes`."""

    def __init__(self, config: DPOTrajectoryBuilderConfig, outcomes: Iterable[Outcome]) -> None:
        super().__init__(config)
        self._outcomes = iter(outcomes)

    async def run_eval(self) -> EvaluationRunOutput:
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _as_delivered(data: StreamEventData | None, name: str, event_type: IntermediateStepType) -> IntermediateStep:
    payload = IntermediateStepPayload(event_type=event_type, name=name, data=data)
    ancestry = InvocationNode(function_id="workflow", function_name="workflow")
    step = IntermediateStep(parent_id="root", function_ancestry=ancestry, payload=payload)
    return IntermediateStep.model_validate(step.model_dump())


@pytest.fixture(scope="session")
def as_delivered() -> Callable[..., IntermediateStep]:
    """`data` in a TTC_END step as an evaluation delivers it: dumped and validated again, so of the base class."""

    def make(
        data: StreamEventData | None,
        *,
        name: str = DEFAULT_STEP_NAME,
        event_type: IntermediateStepType = IntermediateStepType.TTC_END,
    ) -> IntermediateStep:
        return _as_delivered(data, name, event_type)

    return make


@pytest.fixture(scope="session")
def make_step() -> Callable[..., IntermediateStep]:
    """A step with one scored candidate, as an evaluation delivers it."""

    def make(
        score: float | None = 1.0,
        *,
        turn_id: str | None = "turn",
        index: int | None = 0,
        prompt: object = "What is it?",
        response: object = None,
        name: str = DEFAULT_STEP_NAME,
    ) -> IntermediateStep:
        text = f"response {index}" if response is None else response
        data = TTCEventData(turn_id=turn_id, candidate_index=index, input=prompt, output=text, score=score)
        return _as_delivered(data, name, IntermediateStepType.TTC_END)

    return make


@pytest.fixture(scope="session")
def make_steps(make_step: Callable[..., IntermediateStep]) -> Callable[[Turns], list[IntermediateStep]]:
    """One step for each score of each turn; every turn has a prompt of its own."""

    def make(turns: Turns) -> list[IntermediateStep]:
        return [
            make_step(score, turn_id=turn_id, index=index, prompt=f"What is {turn_id}?")
            for turn_id, scores in turns.items()
            for index, score in enumerate(scores)
        ]

    return make


@pytest.fixture(scope="session")
def make_item() -> Callable[..., EvalInputItem]:
    def make(steps: Sequence[IntermediateStep] = (), *, name: object = "example", output: object = "") -> EvalInputItem:
        return EvalInputItem(
            id=name,
            input_obj="in",
            expected_output_obj="",
            output_obj=output,
            trajectory=list(steps),
            full_dataset_entry={},
        )

    return make


@pytest.fixture(scope="session")
def make_evaluation() -> Callable[..., EvaluationRunOutput]:
    def make(*items: EvalInputItem, interrupted: bool = False) -> EvaluationRunOutput:
        return EvaluationRunOutput(
            workflow_output_file=None,
            evaluator_output_files=[],
            workflow_interrupted=interrupted,
            eval_input=EvalInput(eval_input_items=list(items)),
            evaluation_results=[],
            profiler_results=ProfilerResults(),
        )

    return make


@pytest.fixture(scope="session")
def evaluation_of(
    make_evaluation: Callable[..., EvaluationRunOutput],
    make_item: Callable[..., EvalInputItem],
    make_steps: Callable[[Turns], list[IntermediateStep]],
) -> Callable[..., EvaluationRunOutput]:
    """An evaluation of one example for each `turns`, called example-0, example-1, …"""

    def make(*examples: Turns, interrupted: bool = False) -> EvaluationRunOutput:
        items = [make_item(make_steps(turns), name=f"example-{place}") for place, turns in enumerate(examples)]
        return make_evaluation(*items, interrupted=interrupted)

    return make


@pytest.fixture
def run_config(tmp_path: Path) -> FinetuneConfig:
    config = FinetuneConfig(output_dir=tmp_path / "run")
    config.run_configuration = FinetuneRunConfig(config_file=tmp_path / "config.yml")
    return config


@pytest.fixture
def make_builder() -> Callable[..., RecordedBuilder]:
    """The real builder, not initialized, over evaluations that are over; settings are those of its config."""

    def make(*outcomes: Outcome, **settings: object) -> RecordedBuilder:
        return RecordedBuilder(DPOTrajectoryBuilderConfig.model_validate(settings), outcomes)

    return make


@asynccontextmanager
async def _served(app: object) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))  # type: ignore[arg-type]
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture(scope="session")
def served() -> Callable[[object], AbstractAsyncContextManager[str]]:
    """Serves an ASGI app over HTTP on a free port of this machine, at the base URL that it gives."""
    return _served


@pytest.fixture
async def demo_url() -> AsyncIterator[str]:
    """The base URL of the demo model, served over HTTP."""
    async with _served(create_app()) as url:
        yield url

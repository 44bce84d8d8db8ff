"""What NAT and NeMo Relay really write: both are run once, and all tests read the files that they left."""

import asyncio
import gc
import json
import math
import warnings
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nemo_relay
from nat.builder.builder import Builder
from nat.builder.evaluator import EvaluatorInfo
from nat.builder.function_info import FunctionInfo
from nat.builder.workflow_builder import WorkflowBuilder
from nat.cli.register_workflow import register_evaluator, register_function
from nat.data_models.config import Config
from nat.data_models.evaluate_runtime import EvaluationRunConfig
from nat.data_models.evaluator import EvaluatorBaseConfig
from nat.data_models.function import FunctionBaseConfig
from nat.front_ends.fastapi.response_helpers import generate_streaming_response_full_as_str
from nat.plugins.eval.data_models.evaluator_io import EvalOutput, EvalOutputItem
from nat.plugins.eval.runtime.evaluate import EvaluationRun
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.runtime.session import SessionManager

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message, ToolCall, prompt_json, reply_json, reply_of
from nat_dpo_pipeline.core.rendering import with_tools
from nat_dpo_pipeline.plugin.nat_api import TTCEventData
from nat_dpo_pipeline.plugin.steps import push_candidate, push_step
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME
from tests.waiting import until

#: Two turns for every question; the texts have what JSON must escape.
QUESTIONS = ("tea", "milk 🥛", "water")
SCORES = (0.25, 1.5, -3.0)
# NeMo Relay sorts the keys of objects: findings/relay_sorts_keys.sh.
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"properties": {}, "type": "object"}}}]


@dataclass(frozen=True)
class Recordings:
    """The folder, and the turns that the files of candidates in it come to: responses with scores, by prompt."""

    folder: Path
    turns: dict[tuple[Message, ...], list[tuple[str, float]]] = field(default_factory=dict)


def _prompt(question: str, turn: int) -> tuple[Message, ...]:
    """Return the prompt of a turn; the second one goes on after a call of a tool."""
    asked = (Message("system", 'Say "yes"\n'), Message("user", f"What is {question}, {turn}?"))
    if not turn:
        return asked
    result = Message("tool", f"{question}: a noun", tool_call_id="call00001", name="look_up")
    prompt = with_tools((*asked, Message("assistant", "", (_call(question),)), result), TOOLS)
    assert not isinstance(prompt, str)
    return prompt


def _call(question: str) -> ToolCall:
    return ToolCall("look_up", json.dumps({"word": question, "deep": {"n": 1}}), "call00001")


def _response(question: str, place: int) -> str:
    """Return a response; the last one of each turn calls a tool, with a text beside the call."""
    text = f"{question} is {place}\n"
    return reply_of(Message("assistant", text, (_call(question),))) if place == len(SCORES) - 1 else text


def _candidates(question: str) -> list[Candidate]:
    return [
        Candidate(question, f"turn-{turn}", place, _prompt(question, turn), _response(question, place), score)
        for turn in range(2)
        for place, score in enumerate(SCORES)
    ]


def _without_score(question: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"What is {question}?"}]
    return {"turn_id": "turn-9", "turn_index": 9, "candidate_index": 0, "prompt": asked, "response": "no score"}


class CandidatesConfig(FunctionBaseConfig, name="recorded_candidates"):
    """Pushes the candidates of a question from a function of its own, and waits until they are in the file of steps."""

    steps: Path | None = None


class AnswersConfig(FunctionBaseConfig, name="recorded_answers"):
    """Answers every time differently."""


class ByLengthConfig(EvaluatorBaseConfig, name="recorded_by_length"):
    """Scores by the length of the answer. NAT writes no files without an evaluator."""


async def _build_candidates(config: CandidatesConfig, _builder: Builder) -> AsyncIterator[FunctionInfo]:
    from nat.plugin_api import Context

    pushed = 0

    async def run(question: str) -> str:
        nonlocal pushed
        manager = Context.get().intermediate_step_manager
        for candidate in _candidates(question):
            push_candidate(manager, DEFAULT_STEP_NAME, candidate, 0)
        push_step(manager, DEFAULT_STEP_NAME, **_without_score(question), score=math.nan, metadata={})
        push_candidate(manager, "another_step", _candidates(question)[0], 0)
        pushed = ended = pushed + len(_candidates(question)) + 2
        # The file exporter drops what it has not written when the run is over.
        if (steps := config.steps) is not None:
            await until(lambda: steps.exists() and steps.read_text().count('"TTC_END"') >= ended)
        return "done"

    yield FunctionInfo.from_fn(run, description="candidates")


async def _build_answers(_config: AnswersConfig, _builder: Builder) -> AsyncIterator[FunctionInfo]:
    asked: dict[str, int] = {}

    async def run(question: str) -> str:
        asked[question] = asked.get(question, 0) + 1
        return f"{question} " * asked[question]

    yield FunctionInfo.from_fn(run, description="answers")


async def _build_by_length(config: ByLengthConfig, _builder: Builder) -> AsyncIterator[EvaluatorInfo]:
    async def evaluate(given: Any) -> EvalOutput:
        items = [
            EvalOutputItem(id=item.id, score=float(len(item.output_obj)), reasoning="")
            for item in given.eval_input_items
        ]
        return EvalOutput(average_score=0.0, eval_output_items=items)

    yield EvaluatorInfo(config=config, evaluate_fn=evaluate, description="length")


def _config(folder: Path, workflow: str, **output: object) -> Config:
    dataset = folder / "questions.json"
    dataset.write_text(
        json.dumps([{"id": place, "question": one, "answer": ""} for place, one in enumerate(QUESTIONS)])
    )
    path = str(folder / f"{workflow}.jsonl")
    steps = {"_type": "file", "output_path": path, "project": "p"}
    waits = {"steps": path} if workflow == "recorded_candidates" else {}
    return Config.model_validate(
        {
            "general": {"telemetry": {"tracing": {"file": steps}}},
            "workflow": {"_type": workflow, **waits},
            "eval": {
                "general": {
                    "output_dir": str(folder / workflow),
                    "output": {"dir": str(folder / workflow), **output},
                    "dataset": {"_type": "json", "file_path": str(dataset)},
                },
                "evaluators": {"length": {"_type": "recorded_by_length"}},
            },
        }
    )


async def _serve(config: Config, folder: Path) -> None:
    """What `POST /generate/full` sends, by the generator behind it: `nat serve` needs packages that are not here."""
    async with WorkflowBuilder.from_config(config=config) as builder:
        manager = await SessionManager.create(config=config, shared_builder=builder)
        for name, steps in (("full.txt", None), ("filtered.txt", "TTC_END")):
            with (folder / name).open("w", encoding="utf-8") as file:
                for question in QUESTIONS:
                    async with manager.session() as session:
                        reply = generate_streaming_response_full_as_str(
                            question, session=session, streaming=True, filter_steps=steps
                        )
                        async with aclosing(reply) as chunks:
                            file.writelines([chunk async for chunk in chunks])
        await manager.shutdown()


async def _run_nat(folder: Path) -> None:
    recorded = _config(folder, "recorded_candidates", workflow_output_step_filter=["TTC_END"])
    await EvaluationRun(EvaluationRunConfig(config_file=recorded)).run_and_evaluate()
    unfiltered = _config(folder / "unfiltered", "recorded_candidates")
    await EvaluationRun(EvaluationRunConfig(config_file=unfiltered)).run_and_evaluate()
    answers = _config(folder, "recorded_answers", write_atif_workflow_output=True)
    await EvaluationRun(EvaluationRunConfig(config_file=answers, reps=3)).run_and_evaluate()
    served = recorded.model_copy(deep=True)
    served.general.telemetry.tracing.clear()
    served.workflow.steps = None
    await _serve(served, folder)


def _run_relay(folder: Path) -> None:
    config = nemo_relay.AtofExporterConfig()
    config.output_directory, config.filename = str(folder), "events.jsonl"
    exporter = nemo_relay.AtofExporter(config)
    exporter.register("recorded")
    for question in QUESTIONS:
        with (
            nemo_relay.scope.scope("agent", nemo_relay.ScopeType.Agent, input={"question": question}),
            nemo_relay.scope.scope("choose", nemo_relay.ScopeType.Function),
        ):
            for candidate in _candidates(question):
                nemo_relay.scope.event(DEFAULT_STEP_NAME, data=_fields(candidate), metadata=dict(candidate.metadata))
            nemo_relay.scope.event(DEFAULT_STEP_NAME, data={**_fields(_candidates(question)[0]), "score": None})
            nemo_relay.scope.event("another_step", data=_fields(_candidates(question)[0]))
            nemo_relay.scope.event("checkpoint", data={"step": 1})
    exporter.force_flush()
    exporter.deregister("recorded")
    exporter.shutdown()


def _fields(candidate: Candidate) -> dict[str, Any]:
    """What Relay writes into a mark's data: the fields of NAT's own model."""
    data = TTCEventData(
        turn_id=candidate.turn_id,
        candidate_index=candidate.candidate_index,
        input=prompt_json(candidate.prompt),
        output=reply_json(candidate.response),
        score=candidate.score,
    )
    return data.model_dump(exclude_none=True)


async def _relay_rollout(folder: Path, number: int, answer: str) -> None:
    exporter = nemo_relay.AtifExporter(f"session-{number}", "agent", "1.0", model_name="small")
    exporter.register("rollout")
    request = nemo_relay.LLMRequest({}, {"model": "small", "messages": [{"role": "user", "content": "What is tea?"}]})

    async def call(_request: object) -> dict[str, Any]:
        return {"model": "small", "choices": [{"message": {"role": "assistant", "content": answer}}]}

    with nemo_relay.scope.scope("agent", nemo_relay.ScopeType.Agent):
        await nemo_relay.llm.execute("small", request, call)
    await nemo_relay.subscribers.flush_async()
    (folder / f"relay-{number}.atif.json").write_text(exporter.export_json())
    exporter.deregister("rollout")


def record(folder: Path) -> Recordings:
    """Run NAT and NeMo Relay, once in a process: NAT takes a registration once."""
    (folder / "unfiltered").mkdir()
    discover_and_register_plugins(PluginTypes.ALL)
    # In this order: NAT sees a new evaluator in configurations only when something else is new after it.
    register_evaluator(config_type=ByLengthConfig)(_build_by_length)
    register_function(config_type=CandidatesConfig)(_build_candidates)
    register_function(config_type=AnswersConfig)(_build_answers)
    with warnings.catch_warnings():
        # NAT cancels its file exporter when a run is over, with the file open; no test shall fail for that.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(_run_nat(folder))
        gc.collect()
    _run_relay(folder)
    for number, answer in enumerate(("A plant.", "A drink.", "")):
        asyncio.run(_relay_rollout(folder, number, answer))
    turns = {
        _prompt(question, turn): [(_response(question, place), score) for place, score in enumerate(SCORES)]
        for question in QUESTIONS
        for turn in range(2)
    }
    return Recordings(folder, turns)

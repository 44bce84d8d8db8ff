"""Workflows made of functions that a test writes, run as `nat run` runs them."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.data_models.runtime_enum import RuntimeTypeEnum
from nat.plugin_api import Builder, Context, FunctionBaseConfig, FunctionInfo, FunctionRef, register_function
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.runtime.session import SessionManager
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.plugin.nat_api import IntermediateStep, IntermediateStepType
from nat_dpo_pipeline.plugin.steps import Decoded, decode_candidates
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

Source = dict[str, Any]
#: What the functions of a test do, by a name that is the test's own.
BODIES: dict[str, Callable[[Any, Builder], Awaitable[Any]]] = {}
STREAMS: dict[str, Callable[[str], AsyncGenerator[Any, None]]] = {}

#: Those of BODIES whose workflow has closed them.
CLOSED: set[str] = set()


class BodyConfig(FunctionBaseConfig, name="test_body"):
    """A function that does what BODIES has under `body`; `calls` says what it calls."""

    body: str
    calls: FunctionRef | None = None


class ScorerBodyConfig(FunctionBaseConfig, name="test_scorer_body"):
    """A function that scores with what BODIES has under `body`."""

    body: str


@register_function(config_type=BodyConfig)  # type: ignore[untyped-decorator]  # NAT's has no return type
async def body_function(config: BodyConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    async def run(value: str) -> Any:
        return await BODIES[config.body](value, builder)

    stream = STREAMS.get(config.body)
    CLOSED.discard(config.body)
    yield FunctionInfo.create(single_fn=run, stream_fn=stream)
    CLOSED.add(config.body)


@register_function(config_type=ScorerBodyConfig)  # type: ignore[untyped-decorator]
async def scorer_function(config: ScorerBodyConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    async def run(prompt: list[dict[str, str]], response: str) -> Any:
        return await BODIES[config.body](Asked(prompt, response), builder)

    yield FunctionInfo.from_fn(run)


@dataclass(frozen=True)
class Asked:
    """What a scorer is asked."""

    prompt: list[dict[str, str]]
    response: str


@dataclass
class Run:
    """What came of a run: its result, or the error, and every step."""

    result: Any = None
    error: BaseException | None = None
    steps: list[IntermediateStep] = field(default_factory=list)

    def decoded(self, name: str = DEFAULT_STEP_NAME) -> Decoded:
        return decode_candidates(self.steps, name, "example")

    def scores(self) -> dict[str, float]:
        return {one.response: one.score for one in self.decoded().candidates}

    def responses(self) -> list[str]:
        """Of all candidates, scored or not."""
        ends = [step for step in self.steps if step.event_type is IntermediateStepType.TTC_END]
        return [step.payload.data.output for step in ends if step.payload.data is not None]


@dataclass
class Workflow:
    """A workflow that is built."""

    manager: SessionManager
    runtime_type: RuntimeTypeEnum

    async def run(self, text: Any = "Why?") -> Run:
        found = Run()
        async with self.manager.session() as session, session.run(text, runtime_type=self.runtime_type) as runner:
            subscription = Context.get().intermediate_step_manager.subscribe(found.steps.append)
            try:
                found.result = await runner.result()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                found.error = error
            finally:
                subscription.unsubscribe()
        return found

    async def streamed(self, text: str) -> tuple[list[Any], Run]:
        found = Run()
        async with self.manager.session() as session, session.run(text) as runner:
            subscription = Context.get().intermediate_step_manager.subscribe(found.steps.append)
            chunks = [chunk async for chunk in runner.result_stream()]
            subscription.unsubscribe()
        return chunks, found


@asynccontextmanager
async def workflow(
    source: Source, runtime_type: RuntimeTypeEnum = RuntimeTypeEnum.RUN_OR_SERVE
) -> AsyncIterator[Workflow]:
    """The workflow of a configuration, as long as the block."""
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config: Config = validate_schema(source, Config)
    async with WorkflowBuilder.from_config(config) as builder:
        manager = await SessionManager.create(config=config, shared_builder=builder)
        try:
            yield Workflow(manager, runtime_type)
        finally:
            await manager.shutdown()


def wrapped(body: str, settings: Mapping[str, Any], scorer: str = "length", **sections: Mapping[str, Any]) -> Source:
    """A workflow of one function with `best_of_n` around it, scored by the function `scorer`."""
    given: Source = {"n": 3, "allow_repeated_calls": True, "scorer": {"kind": "function", "function": "scorer"}}
    return {
        "functions": {"scorer": {"_type": "test_scorer_body", "body": scorer}, **sections.get("functions", {})},
        "llms": sections.get("llms", {}),
        "general": sections.get("general", {}),
        "middleware": {"bon": {"_type": "best_of_n", **given, **settings}},
        "workflow": {"_type": "test_body", "body": body, "middleware": ["bon"]},
    }


def numbered(texts: Sequence[Any]) -> Callable[[Any, Builder], Awaitable[Any]]:
    """Each call gives, or raises, the next of `texts`, then again the first."""
    calls = iter(range(10**6))

    async def body(_: Any, __: Builder) -> Any:
        answer = texts[next(calls) % len(texts)]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return body

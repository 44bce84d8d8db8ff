"""What differs between calls, as the clients of an llm see it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import ConfigurableField
from nat.builder.workflow_builder import WorkflowBuilder
from nat.plugin_api import Builder, LLMBaseConfig, LLMProviderInfo, register_llm_client, register_llm_provider

from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling
from nat_dpo_pipeline.plugin.varying import sampling_for, varied, vary_clients
from tests.plugin.functions import BODIES, workflow, wrapped


class SayingConfig(LLMBaseConfig, name="test_saying"):
    """A model that says how it was asked."""


class Saying(BaseChatModel):
    """Says how it is sampled, as LangChain's own models are: by what a call gives beside its messages."""

    model: str = "plain"

    @property
    def _llm_type(self) -> str:
        return "saying"

    def _generate(self, *_: Any, run_manager: Any = None, **given: Any) -> ChatResult:  # noqa: ARG002 - LangChain's name
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self._said(given)))])

    def _stream(self, *_: Any, run_manager: Any = None, **given: Any) -> Iterator[ChatGenerationChunk]:  # noqa: ARG002
        yield ChatGenerationChunk(message=AIMessageChunk(self._said(given)))

    def _said(self, given: dict[str, Any]) -> str:
        return f"{self.model} {sorted((name, value) for name, value in given.items() if name != 'stop')}"


@register_llm_provider(config_type=SayingConfig)  # type: ignore[untyped-decorator]  # NAT's has no return type
async def saying_provider(config: SayingConfig, _: Builder) -> AsyncIterator[LLMProviderInfo]:
    yield LLMProviderInfo(config=config, description="")


@register_llm_client(config_type=SayingConfig, wrapper_type="langchain")  # type: ignore[untyped-decorator]
async def saying_client(_: SayingConfig, __: Builder) -> AsyncIterator[Any]:
    # As NAT's own clients are, so that a call can name another model.
    yield Saying().configurable_fields(model=ConfigurableField(id="model_name"))


@register_llm_client(config_type=SayingConfig, wrapper_type="agno")  # type: ignore[untyped-decorator]
async def other_client(_: SayingConfig, __: Builder) -> AsyncIterator[str]:
    yield "a client of another framework"


VARIED = "plain [('seed', 3), ('temperature', 0.0)]"


def test_a_variation_is_that_of_its_llm_and_its_block() -> None:
    with varied("one", Sampling(temperature=0.0)), varied("two", Sampling(seed=2)), varied("two", Sampling(seed=3)):
        assert sampling_for("one") == Sampling(temperature=0.0)
        assert sampling_for("two") == Sampling(seed=3)
        assert sampling_for("three") == AS_CONFIGURED
    assert sampling_for("one") == AS_CONFIGURED


async def test_clients_of_langchain_follow_it_bound_or_not(caplog: pytest.LogCaptureFixture) -> None:
    async with WorkflowBuilder() as builder:
        vary_clients(builder, "model")
        for name in ("model", "other"):
            await builder.add_llm(name, SayingConfig())
        model, other = [await builder.get_llm(name, "langchain") for name in ("model", "other")]
    asked = [HumanMessage("Why?")]
    bound = model.bind(stop=["x"])
    with varied("model", Sampling(temperature=0.0, seed=3)):
        assert model.invoke(asked).content == VARIED
        assert (await model.ainvoke(asked, temperature=0.9)).content == VARIED
        assert (await bound.ainvoke(asked)).content == VARIED
        assert "".join([chunk.content async for chunk in bound.astream(asked)]) == VARIED
        assert "".join([chunk.content for chunk in model.stream(asked)]) == VARIED
        another = {"configurable": {"model_name": "another"}}
        assert (await bound.ainvoke(asked, another)).content == VARIED.replace("plain", "another")
        assert other.invoke(asked).content == "plain []"
    assert model.invoke(asked, temperature=0.9).content == "plain [('temperature', 0.9)]"
    assert "cannot vary" not in caplog.text


async def test_a_client_of_another_framework_is_told_of_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with WorkflowBuilder() as builder:
        vary_clients(builder, "model")
        await builder.add_llm("model", SayingConfig())
        assert await builder.get_llm("model", "agno") == "a client of another framework"
    assert "cannot vary the llm 'model' through agno" in caplog.text


async def test_each_call_of_a_function_has_its_own() -> None:
    async def function(value: str, builder: Builder) -> str:
        client = await builder.get_llm("model", "langchain")
        return str((await client.ainvoke(value)).content)

    async def length(*_: object) -> float:
        return 1.0

    BODIES.update(function=function, length=length)
    vary = {"llm": "model", "temperatures": [0.2, 0.9], "seed": 5}
    source = wrapped("function", {"vary": vary, "return": "first"}, llms={"model": {"_type": "test_saying"}})
    async with workflow(source) as built:
        run = await built.run("Why?")
    expected = [
        [("seed", 5), ("temperature", 0.2)],
        [("seed", 6), ("temperature", 0.9)],
        [("seed", 7), ("temperature", 0.2)],
    ]
    assert run.responses() == [f"plain {one}" for one in expected]
    assert [one.metadata["temperature"] for one in run.decoded().candidates] == [0.2, 0.9, 0.2]

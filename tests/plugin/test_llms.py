"""The llms of a configuration in a function of one's own."""

from nat.plugin_api import Builder

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.generation.chat import Call
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.plugin.llms import open_llm
from nat_dpo_pipeline.plugin.nat_api import IntermediateStepType
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response
from tests.plugin.functions import BODIES, workflow, wrapped


async def test_a_model_of_ours_follows_it_over_http_and_its_calls_are_seen() -> None:
    def saying(request: Request) -> Response:
        body = request.json
        text = f"{body.get('temperature')} {body.get('seed')} {body.get('max_tokens')}"
        return Response(body=completion(text, prompt_tokens=3, completion_tokens=5))

    messages = (Message("system", "Be brief."), Message("user", "Why?"))

    async def function(_: str, builder: Builder) -> str:
        async with open_llm(builder, "model") as model:
            return (await model.complete(Call(messages, Sampling(max_tokens=9)))).text

    async def length(*_: object) -> float:
        return 1.0

    BODIES.update(function=function, length=length)
    async with LoopbackServer(saying) as server:
        llms = {"model": {"_type": "openai", "base_url": server.url, "model_name": "org/served", "temperature": 0.5}}
        source = wrapped("function", {"vary": {"llm": "model", "temperatures": [0.0, 1.0], "seed": 0}}, llms=llms)
        async with workflow(source) as built:
            run = await built.run("Why?")
    assert run.responses() == ["0.0 0 9", "1.0 1 9", "0.0 2 9"]
    assert {one.prompt for one in run.decoded().candidates} == {messages}
    assert {one.metadata["model"] for one in run.decoded().candidates} == {"org/served"}
    steps = [step for step in run.steps if step.payload.name == "org/served"]
    kinds = [step.event_type for step in steps]
    assert kinds.count(IntermediateStepType.LLM_START) == kinds.count(IntermediateStepType.LLM_END) == 3
    told = [step.payload.usage_info for step in steps if step.event_type is IntermediateStepType.LLM_END]
    assert {(one.token_usage.prompt_tokens, one.token_usage.completion_tokens) for one in told if one} == {(3, 5)}


async def test_a_call_of_a_model_that_fails_ends_its_step() -> None:
    async def function(_: str, builder: Builder) -> str:
        async with open_llm(builder, "model", max_retries=0) as model:
            return (await model.complete(Call((Message("user", "Why?"),)))).text

    async def length(*_: object) -> float:
        return 1.0

    BODIES.update(function=function, length=length)
    async with LoopbackServer(lambda _: Response(status=400, body={"error": {"message": "no"}})) as server:
        llms = {"model": {"_type": "openai", "base_url": server.url, "model_name": "m"}}
        async with workflow(wrapped("function", {"n": 2}, llms=llms)) as built:
            run = await built.run("Why?")
    assert "answered 400: no" in str(run.error)
    kinds = [step.event_type for step in run.steps if step.payload.name == "m"]
    assert kinds.count(IntermediateStepType.LLM_START) == kinds.count(IntermediateStepType.LLM_END) == 2

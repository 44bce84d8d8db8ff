"""A small agent: it looks up what a question names, with a tool, and has a model answer from what it found."""

import inspect
import pydoc
import re
from collections.abc import AsyncIterator

from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, FunctionRef, LLMRef, register_function

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.generation.chat import Call
from nat_dpo_pipeline.plugin.llms import open_llm

INSTRUCTIONS = "Answer the question about Python. A look-up tool found this in the documentation:"


class PythonDocsConfig(FunctionBaseConfig, name="python_docs"):
    """A tool: the signature and the first line of the documentation of something in the standard library."""


class ToolAgentConfig(FunctionBaseConfig, name="tool_agent"):
    """An agent that calls its tool for every name in backticks, and then a model."""

    llm: LLMRef
    tool: FunctionRef


@register_function(config_type=PythonDocsConfig)
async def python_docs(config: PythonDocsConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    async def look_up(name: str) -> str:
        found = pydoc.locate(name)
        if found is None:
            return f"There is no {name}."
        try:
            signature = str(inspect.signature(found))
        except (TypeError, ValueError):
            signature = ""
        return f"{name}{signature}: {(inspect.getdoc(found) or 'not documented').splitlines()[0]}"

    yield FunctionInfo.from_fn(look_up, description="Looks up a name of Python's standard library, such as json.dumps.")


@register_function(config_type=ToolAgentConfig)
async def tool_agent(config: ToolAgentConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    tool = await builder.get_function(config.tool)
    async with open_llm(builder, config.llm) as model:

        async def answer(question: str) -> str:
            found = [await tool.ainvoke(name) for name in re.findall(r"`([\w.]+)`", question)]
            system = Message("system", "\n\n".join([INSTRUCTIONS, *found]))
            reply = await model.complete(Call((system, Message("user", question))))
            return reply.text

        yield FunctionInfo.from_fn(answer, description="Answers questions about Python's standard library.")

"""Checks of tool calls without a model: is the tool on offer, and do the arguments fit its JSON schema?"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nat_dpo_pipeline.core.messages import Message, ToolCall, message_of, tools_of
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.scorers import Score

_NAME = "tool_calls"


class ToolCallScorer:
    """Scores a reply by the share of its tool calls that could be carried out; a reply without calls has 1.

    The attributes `unknown_tools` and `wrong_arguments` count the calls that could not. A tool's `parameters` are a
    JSON schema; required arguments and types are checked by the package jsonschema.
    """

    def __init__(self) -> None:
        """Raise ConfigurationError where jsonschema is not installed."""
        try:
            from jsonschema import validators
        except ImportError as error:
            raise ConfigurationError(
                "the scorer tool_calls needs jsonschema: pip install 'nat-dpo-pipeline[tools]'"
            ) from error
        self._validators = validators

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:  # noqa: ARG002 - asks no model
        """Check the calls of a reply against the tools on offer in the prompt."""
        tools = dict(_schemas(tools_of(tuple(prompt))))
        calls = message_of(response).tool_calls
        unknown = [call for call in calls if call.name not in tools]
        wrong = [call for call in calls if call.name in tools and not self._fits(call, tools[call.name])]
        good = len(calls) - len(unknown) - len(wrong)
        attributes = {"unknown_tools": float(len(unknown)), "wrong_arguments": float(len(wrong))}
        return Score(good / len(calls) if calls else 1.0, MappingProxyType(attributes), _NAME)

    def _fits(self, call: ToolCall, schema: Mapping[str, Any]) -> bool:
        arguments = call.values()
        if arguments is None:
            return False
        checker = self._validators.validator_for(schema)
        return bool(checker(schema).is_valid(arguments))


def _schemas(tools: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for tool in tools:
        yield tool["function"]["name"], tool["function"]["parameters"]

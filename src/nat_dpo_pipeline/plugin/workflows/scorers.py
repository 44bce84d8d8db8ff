"""A function of the workflow as a scorer."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from pydantic import BaseModel

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.messages import Message, as_messages
from nat_dpo_pipeline.errors import DPOPipelineError, InputError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.scorers import (
    Score,
)
from nat_dpo_pipeline.generation.watching import ScorerWatch
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.plugin.workflows.scorer_settings import FunctionNamed


@runtime_checkable
class _Invocable(Protocol):
    async def ainvoke(self, value: object) -> object: ...


class FunctionScorer:
    """A NAT function that scores; `FunctionScorerConfig` says what it is given and may return."""

    def __init__(self, name: str, function_named: FunctionNamed) -> None:
        self._name = name
        self._function_named = function_named
        self._function: _Invocable | None = None
        self._watch = ScorerWatch()

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        """`on_reply` is never called: the function's own calls are not seen."""
        function = self._function or await self._looked_up()
        async with self._watch.reading():
            score = read_score(await self._called(function, prompt, response), self._name)
        self._watch.scored(response, score.value, f"the function {self._name!r}")
        return score

    async def _called(self, function: _Invocable, prompt: Sequence[Message], response: str) -> object:
        try:
            return await function.ainvoke({"prompt": as_messages(tuple(prompt)), "response": str(response)})
        except DPOPipelineError:
            raise
        except Exception as error:
            raise ModelError(f"the function {self._name!r} failed: {type(error).__name__}: {error}") from error

    async def _looked_up(self) -> _Invocable:
        try:
            function = await self._function_named(self._name)
        except Exception as error:
            raise ModelError(f"there is no function {self._name!r} to score with: {error}", fatal=True) from error
        if not isinstance(function, _Invocable):
            raise ModelError(f"{self._name!r} is no function to score with but {function!r:.80}", fatal=True)
        self._function = function
        return function


def read_score(result: object, function: str) -> Score:
    """Return the score in what a function returned. Raises ParseError."""
    try:
        score, attributes = _score_in(_plain(result))
        shown = "" if score is not None and attributes is not None else repr(result)
    except (ValueError, RecursionError) as error:  # a whole number of thousands of digits, lists in lists
        shown, score, attributes = f"what cannot be shown ({error})", None, None
    if score is None or attributes is None:
        expected = "a number, or a score and attributes that are numbers"
        raise ParseError(f"the function {function!r} returned {shown:.200} instead of {expected}", shown)
    return Score(score, MappingProxyType(attributes), function)


def _score_in(value: object) -> tuple[float | None, dict[str, float] | None]:
    found: Mapping[object, object] = value if isinstance(value, Mapping) else {"score": value}
    attributes = found.get("attributes") or {}
    return finite_number(found.get("score")), _numbers(attributes) if isinstance(attributes, Mapping) else None


def _plain(result: object) -> object:
    if isinstance(result, BaseModel):
        return result.model_dump()
    if not isinstance(result, str):
        return result
    try:
        return parse_json(result)
    except InputError:
        return result


def _numbers(attributes: Mapping[object, object]) -> dict[str, float] | None:
    numbers = {str(name): finite_number(value) for name, value in attributes.items()}
    values = {name: number for name, number in numbers.items() if number is not None}
    return values if len(values) == len(attributes) else None

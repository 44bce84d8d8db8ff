"""What the annotations of a step's function say, in types and in words."""

import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nat_dpo_pipeline.errors import ConfigurationError


def name_of(function: Callable[..., object]) -> str:
    name: str = getattr(function, "__name__", type(function).__name__)
    return name.strip("_")


def called(function: Callable[..., object]) -> Callable[..., object]:
    return function if inspect.isroutine(function) else type(function).__call__


def check_async(function: Callable[..., object], *, expected: bool) -> None:
    body = inspect.unwrap(called(function))
    is_async = inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)
    if is_async is not expected:
        wanted, given = ("`async def`", "`def`") if expected else ("`def`", "`async def`")
        raise ConfigurationError(f"the step function {name_of(function)!r} must be {wanted}, not {given}")


def hints_of(function: Callable[..., object]) -> dict[str, Any]:
    hints = get_type_hints(called(function))
    if "return" not in hints or len(hints) < 2:
        raise ConfigurationError(
            f"the step function {name_of(function)!r} must say in annotations what it takes and gives, "
            "for example `async def answer(item: Item[Question]) -> Response`"
        )
    return hints


def returned(function: Callable[..., object]) -> Any:
    return hints_of(function)["return"]


def each_of(function: Callable[..., object]) -> object:
    """The `Out` of `list[Out]`, `AsyncIterator[Out]` and the like."""
    hint = returned(function)
    kind = get_origin(hint) or hint
    if not (isinstance(kind, type) and issubclass(kind, Iterable | AsyncIterable)):
        raise ConfigurationError(
            f"the step function {name_of(function)!r} must give several, for example `list[Question]`, "
            f"not {shown(hint)}"
        )
    return next(iter(get_args(hint)), object)


def without_none(hint: Any) -> Any:
    """`Out` of `Out | None`."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return reduce(or_, (member for member in get_args(hint) if member is not NoneType))


def shown(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)

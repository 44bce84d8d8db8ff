"""What differs between the calls of one function: the sampling of an llm, for the time of a call."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType, new_class
from typing import Any

from nat.plugin_api import Builder, LLMFrameworkEnum, LLMRef

from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling

logger = logging.getLogger(__name__)

_NOTHING: Mapping[str, Sampling] = MappingProxyType({})
_VARIED: ContextVar[Mapping[str, Sampling]] = ContextVar("varied", default=_NOTHING)
# What LangChain's chat models are made of. Each is given what a call says beside its messages.
_LANGCHAIN_CALLS = ("_generate", "_agenerate", "_stream", "_astream")


def sampling_for(llm: str) -> Sampling:
    """How the llm entry `llm` is to be sampled in this call; without a variation, as it is configured."""
    return _VARIED.get().get(llm, AS_CONFIGURED)


@contextmanager
def varied(llm: str, sampling: Sampling) -> Iterator[None]:
    """Sample `llm` like this in the block and whatever it calls."""
    token = _VARIED.set({**_VARIED.get(), llm: sampling})
    try:
        yield
    finally:
        _VARIED.reset(token)


def vary_clients(builder: Builder, llm: str) -> None:
    """Let the clients of `llm` that `builder` makes from now on follow `sampling_for`, where they are LangChain's."""
    get_llm = builder.get_llm

    async def get_varied_llm(llm_name: str | LLMRef, wrapper_type: LLMFrameworkEnum | str) -> Any:
        client = await get_llm(llm_name, wrapper_type)
        if str(llm_name) == llm and not _follows(client, llm):
            logger.warning(
                "best_of_n cannot vary the llm %r through %s, only through langchain: calls are repeated as they are",
                llm,
                wrapper_type,
            )
        return client

    # As NAT's own DynamicFunctionMiddleware does, to see the clients that functions are built with.
    builder.get_llm = get_varied_llm  # type: ignore[method-assign]


def _follows(client: Any, llm: str) -> bool:
    """Let a client follow `sampling_for`, if it is LangChain's."""
    from langchain_core.language_models import BaseChatModel

    # NAT wraps most of them, so that a call can name another model.
    model = getattr(client, "default", client)
    if not isinstance(model, BaseChatModel):
        return False
    # The class and not the object: whatever is bound to it is the same object, and a copy for another model has it too.
    object.__setattr__(model, "__class__", _following(type(model), BaseChatModel, llm))
    return True


def _following(model_class: type[Any], base: type[Any], llm: str) -> type[Any]:
    # LangChain looks at the class to find out whether a model streams: what that leaves to the base stays there.
    own = {name: getattr(model_class, name) for name in _LANGCHAIN_CALLS}
    calls = {name: _sampled(method, llm) for name, method in own.items() if method is not getattr(base, name)}
    return new_class(model_class.__name__, (model_class,), exec_body=lambda names: names.update(calls))


def _sampled(method: Callable[..., Any], llm: str) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        wanted = sampling_for(llm)
        given = {"temperature": wanted.temperature, "seed": wanted.seed}
        return method(*args, **kwargs | {name: value for name, value in given.items() if value is not None})

    return call

"""Replies of chat models: the JSON body of a chat completion → what is said in it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import first, items, mapping
from nat_dpo_pipeline.core.thoughts import split_thoughts
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.endings import Ending, ending_of, shown

# No model takes more, and a limit of tokens a minute would wait for whatever is claimed.
_MOST_TOKENS = 10**8


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call as the server counted them, 0 where it did not; thoughts are part of the completion.

    `cost` is what the server says that the call cost, in US dollars; None where it does not say so.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None

    @property
    def is_reported(self) -> bool:
        """True when the server counted: every prompt has tokens, and proxies write zeros for a missing count."""
        return self.prompt_tokens > 0 or self.completion_tokens > 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The first choice of a chat completion, and the whole JSON body it came in.

    `text` is the answer, `thoughts` what a reasoning model wrote before it, wherever the server put it. `llm` is the
    user's name of the model that answered, `model` the server's. `refused`: the server says that this is a refusal.
    `not_text` names the kinds of content that are no text. `retries` failed before it, and with the errors in
    `passed_over` models that should have answered; `replayed`: from a journal. `others` are the replies to the further
    samples of the call, each of which `came_along`: its request is that of the first.
    """

    text: str
    finish_reason: str | None
    llm: str
    model: str
    usage: Usage
    body: Mapping[str, object]
    thoughts: str = ""
    refused: bool = False
    calls_tools: bool = False
    not_text: tuple[str, ...] = ()
    retries: int = 0
    passed_over: tuple[ModelError, ...] = ()
    replayed: bool = False
    others: "tuple[ChatReply, ...]" = ()
    came_along: bool = False

    @property
    def ending(self) -> Ending:
        """End of the reply; a server may say `stop` for a reply that calls tools."""
        ending = ending_of(self.finish_reason)
        is_calling = self.calls_tools and ending not in (Ending.GIVEN_UP, Ending.FILTERED)
        return Ending.TOOL_CALLS if is_calling else ending

    @property
    def has_only_thoughts(self) -> bool:
        """True when the model thought and came to no answer, mostly for lack of tokens."""
        return not self.text.strip() and bool(self.thoughts or self.usage.reasoning_tokens)


def read_reply(body: object, llm: str, requested_model: str | None = None, *, replayed: bool = False) -> ChatReply:
    """Read the JSON body of a chat completion; a missing piece is empty, for the parsers to refuse.

    Raises a transient ModelError for a reply that the server gave up under way.
    """
    whole = mapping(body)
    choice = mapping(first(whole.get("choices")))
    message, reason, model = choice.get("message"), choice.get("finish_reason"), whole.get("model")
    # Hosted reward models, and proxies before them, send a list of one message.
    message = mapping(first(message) if isinstance(message, list) else message)
    said = _said(message)
    reply = ChatReply(
        text=said.text,
        finish_reason=reason if isinstance(reason, str) else None,
        llm=llm,
        model=model if isinstance(model, str) and model else requested_model or llm,
        usage=_usage(whole.get("usage")),
        body=whole,
        thoughts=said.thoughts,
        refused=said.refused,
        calls_tools=said.calls_tools,
        not_text=said.not_text,
        replayed=replayed,
    )
    if reply.ending is Ending.GIVEN_UP or choice.get("error"):  # the latter is OpenRouter's
        told = f"finish_reason {shown(reply.finish_reason or '')!r}"
        raise ModelError(f"model {llm!r} ({reply.model}) gave up a reply under way: {told}", transient=True)
    return reply


def read_samples(body: Mapping[str, object], llm: str, requested_model: str, most: int) -> ChatReply:
    """Read up to `most` choices of a chat completion: the reply of the first one, and with it those of the others.

    Each has a share of the tokens and of the cost; the shares add up to the whole. A choice that the server gave up is
    left out. Raises as `read_reply` does when no other is left.
    """
    together = items(body.get("choices"))[:most]
    if len(together) < 2:
        return read_reply(body, llm, requested_model)
    replies: list[ChatReply] = []
    for place, choice in enumerate(together, start=1):
        part = {**body, "choices": [choice], "usage": _share(body.get("usage"), place - 1, len(together))}
        try:
            replies.append(read_reply(part, llm, requested_model))
        except ModelError:
            if place == len(together) and not replies:
                raise
    one, *others = replies
    return replace(one, others=tuple(replace(other, came_along=True) for other in others))


def _share(counts: object, place: int, shares: int, depth: int = 0) -> object:
    """Return share number `place` of all numbers in a usage and its details."""
    if isinstance(counts, dict) and depth < _DEEPEST:
        return {name: _share(value, place, shares, depth + 1) for name, value in counts.items()}
    if isinstance(counts, int) and not isinstance(counts, bool):
        return (counts + place) // shares  # these add up (Hermite's identity)
    return counts / shares if isinstance(counts, float) else counts


class _Kind(StrEnum):
    TEXT = "text"
    THOUGHTS = "thoughts"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"
    OTHER = "other"


# What the parts of a content are: `type` in the APIs named here, as of November 2026. Other types are no text.
_PARTS = {
    "text": _Kind.TEXT,  # OpenAI, Anthropic, Mistral, Cohere
    "output_text": _Kind.TEXT,  # OpenAI Responses
    "thinking": _Kind.THOUGHTS,  # Anthropic, Mistral, Cohere
    "redacted_thinking": _Kind.THOUGHTS,  # Anthropic
    "reasoning": _Kind.THOUGHTS,  # OpenAI Responses, gateways
    "refusal": _Kind.REFUSAL,  # OpenAI
    "tool_use": _Kind.TOOL_CALL,  # Anthropic
}
# Where a message has its thoughts: DeepSeek, SGLang, llama.cpp; vLLM, Groq, Together, OpenRouter; Ollama; OpenRouter;
# LiteLLM. Servers repeat them under several of these names, so that the first that says something counts.
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
# Where a part of thoughts has its text; the signatures and encrypted data beside it are none.
_TEXTS = ("text", "thinking", "reasoning", "summary", "content")
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class _Said:
    """Text, thoughts and other parts of a message."""

    text: str
    thoughts: str
    refused: bool
    calls_tools: bool
    not_text: tuple[str, ...]


def _said(message: Mapping[str, object]) -> _Said:
    content, refusal = message.get("content"), message.get("refusal")
    if isinstance(content, str) or content is None:
        parts: Sequence[tuple[_Kind, str]] = [(_Kind.TEXT, content or "")]
    else:
        parts = [_part(one) for one in (content if isinstance(content, list) else [content])]
    split = split_thoughts(_joined(parts, _Kind.TEXT))
    declined = [*_strings(refusal), _joined(parts, _Kind.REFUSAL)]
    thoughts = (_reasoning(message), _joined(parts, _Kind.THOUGHTS), split.thoughts)
    kinds = {kind for kind, _ in parts}
    return _Said(
        text=split.answer or "\n".join(filter(None, declined)),
        thoughts="\n".join(filter(None, dict.fromkeys(one.strip() for one in thoughts))),
        refused=bool(refusal) or _Kind.REFUSAL in kinds,
        calls_tools=bool(message.get("tool_calls") or message.get("function_call")) or _Kind.TOOL_CALL in kinds,
        not_text=tuple(dict.fromkeys(name for kind, name in parts if kind is _Kind.OTHER)),
    )


def _part(part: object) -> tuple[_Kind, str]:
    """Return the kind of a part of a content, and its text, or for another kind its name."""
    if isinstance(part, str):
        return _Kind.TEXT, part
    if not isinstance(part, dict):
        return _Kind.OTHER, "null" if part is None else type(part).__name__
    named = part.get("type", "text" if "text" in part else "object")
    kind = _PARTS.get(named) if isinstance(named, str) else None
    if kind is None or (kind is _Kind.TEXT and not isinstance(part.get("text"), str)):
        return _Kind.OTHER, shown(str(named))
    if part.get("thought") is True:  # Google
        kind = _Kind.THOUGHTS
    return kind, str(part["text"]) if kind is _Kind.TEXT else "\n".join(_strings(part, (*_TEXTS, "refusal")))


def _joined(parts: Iterable[tuple[_Kind, str]], kind: _Kind) -> str:
    return "".join(text for one, text in parts if one is kind)


def _reasoning(message: Mapping[str, object]) -> str:
    found = ("\n".join(_strings(message.get(name))) for name in _REASONING)
    return next((text for text in found if text.strip()), "")


def _strings(value: object, names: Sequence[str] = _TEXTS, depth: int = 0) -> Iterator[str]:
    """Every text in a value, in lists, and in objects under `names`."""
    if isinstance(value, str):
        yield value
    elif depth < _DEEPEST and isinstance(value, list | dict):
        inner = value if isinstance(value, list) else [value[name] for name in names if name in value]
        for one in inner:
            yield from _strings(one, names, depth + 1)


def _usage(raw: object) -> Usage:
    counts = mapping(raw)
    details = mapping(counts.get("completion_tokens_details"))
    reasoning = _count(details.get("reasoning_tokens")) or _count(counts.get("reasoning_tokens"))
    cost = finite_number(counts.get("cost"))  # OpenRouter
    return Usage(
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
        reasoning_tokens=reasoning,
        cost=cost if cost is not None and cost >= 0 else None,
    )


def _count(value: object) -> int:
    """A number of tokens; 0 for what cannot be one."""
    number = finite_number(value)
    return int(number) if number is not None and 0 <= number < _MOST_TOKENS else 0

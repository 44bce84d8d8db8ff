"""Replies of chat models: the JSON body of a chat completion → what is said in it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.endings import Ending, ending_of, shown
from nat_dpo_pipeline.core.json_values import first, items, mapping
from nat_dpo_pipeline.core.said import read_message
from nat_dpo_pipeline.errors import ModelError

# No model takes more, and a limit of tokens a minute would wait for whatever is claimed.
_MOST_TOKENS = 10**8
_DEEPEST = 4


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
    said = read_message(message)
    reply = ChatReply(
        text=said.text,
        finish_reason=reason if isinstance(reason, str) else None,
        llm=llm,
        model=model if isinstance(model, str) and model else requested_model or llm,
        usage=_usage(whole.get("usage")),
        body=whole,
        thoughts=said.thoughts,
        refused=said.refused,
        calls_tools=bool(said.calls),
        not_text=tuple(map(shown, said.others)),
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

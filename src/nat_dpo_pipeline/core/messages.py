"""Messages with tool calls and thoughts, prompts with the tools on offer, replies, and rollouts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

#: Role of the first message of a prompt with tools on offer; its content is their JSON, in OpenAI's form.
TOOLS = "tools"
JsonObject = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Call of a function. `arguments` are JSON text as the model wrote it, and text that is not JSON stays as it is.

    Two calls are equal when their arguments are equal as values; ids differ from run to run and are ignored.
    """

    name: str
    arguments: str = field(compare=False)
    id: str = field(compare=False)
    text: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arguments = self.values()
        shown = self.arguments if arguments is None else json.dumps(arguments, sort_keys=True, ensure_ascii=False)
        # The form of Hermes and Qwen, which most templates and parsers share.
        inner = f'{{"name": {json.dumps(self.name, ensure_ascii=False)}, "arguments": {shown}}}'
        object.__setattr__(self, "text", f"<tool_call>\n{inner}\n</tool_call>")

    def values(self) -> dict[str, object] | None:
        """Return the arguments by name; None when they are no JSON object."""
        try:
            found = json.loads(self.arguments, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def as_json(self) -> dict[str, object]:
        """Return the call in OpenAI's form, its arguments as an object where they are one."""
        arguments = self.values()
        function = {"name": self.name, "arguments": self.arguments if arguments is None else arguments}
        return {"id": self.id, "type": "function", "function": function}


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, slots=True)
class Message:
    """Message of a conversation. A tool's result has the id of its call; thoughts do not tell messages apart."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = field(default=None, compare=False)
    name: str | None = None
    reasoning: str | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """Content and calls as one text."""
        if not self.tool_calls:
            return self.content
        return "\n".join([*filter(None, [self.content]), *(call.text for call in self.tool_calls)])

    def as_json(self) -> dict[str, object]:
        """Return the message in OpenAI's form, without keys that say nothing."""
        made: dict[str, object] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            made["reasoning_content"] = self.reasoning
        if self.tool_calls:
            made["tool_calls"] = [call.as_json() for call in self.tool_calls]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            made["name"] = self.name
        return made


Prompt = str | tuple[Message, ...]


class Reply(str):
    """Reply with calls or thoughts: the text by which it is compared, measured and shown, and its whole `message`.

    A reply of text alone is a plain str. So rules, filters, hashes and reports treat both kinds alike, and data
    without calls cost nothing more.
    """

    __slots__ = ("message",)
    message: Message

    def __new__(cls, message: Message) -> "Reply":
        made = super().__new__(cls, message.text)
        made.message = message
        return made

    def __getnewargs__(self) -> tuple[Message]:  # type: ignore[override]
        return (self.message,)


class Rollout(str):
    """What came after a first prompt, up to the end: messages of the assistant, of tools and of the user.

    Its text is that of the last message of the assistant. `records.branches` makes turns of rollouts.
    """

    __slots__ = ("messages",)
    messages: tuple[Message, ...]

    def __new__(cls, messages: tuple[Message, ...]) -> "Rollout":
        last = next((one for one in reversed(messages) if one.role == "assistant"), None)
        made = super().__new__(cls, "" if last is None else last.text)
        made.messages = messages
        return made

    def __getnewargs__(self) -> tuple[tuple[Message, ...]]:  # type: ignore[override]
        return (self.messages,)


def reply_of(message: Message) -> str:
    """Return the reply that a message is: a plain str when it holds nothing but text."""
    return Reply(message) if message.tool_calls or message.reasoning else message.content


def calls_tools(reply: str) -> bool:
    """Return True for a reply with tool calls."""
    return isinstance(reply, Reply) and bool(reply.message.tool_calls)


def without_thoughts(reply: str) -> str:
    """Return a reply, or a rollout, as it is without thoughts."""
    if isinstance(reply, Rollout):
        return Rollout(tuple(replace(message, reasoning=None) for message in reply.messages))
    return reply_of(replace(reply.message, reasoning=None)) if isinstance(reply, Reply) else reply


def alike(chosen: str, rejected: str) -> tuple[str, str]:
    """Return two replies, both with thoughts or neither: a model would learn to think, or not to, from a difference."""
    if type(chosen) is str is type(rejected):
        return chosen, rejected
    both = (chosen, rejected)
    if all(isinstance(one, Reply) and one.message.reasoning for one in both):
        return both
    return without_thoughts(chosen), without_thoughts(rejected)


def message_of(reply: str) -> Message:
    """Return a reply as a message of the assistant."""
    return reply.message if isinstance(reply, Reply) else Message("assistant", reply)


def reply_json(reply: str) -> object:
    """Return a reply, or a rollout, as JSON that `core.rendering.render_response` reads."""
    if type(reply) is str:
        return reply
    if isinstance(reply, Rollout):
        return [message.as_json() for message in reply.messages]
    return message_of(reply).as_json()


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """Return the messages of a prompt, without the tools on offer; a text is one message of the user."""
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    return prompt[1:] if prompt and prompt[0].role == TOOLS else prompt


def tools_text(prompt: Prompt) -> str | None:
    """Return the tools on offer as JSON text; None without tools."""
    return prompt[0].content if not isinstance(prompt, str) and prompt and prompt[0].role == TOOLS else None


def tools_of(prompt: Prompt) -> list[dict[str, object]]:
    """Return the tools on offer, in OpenAI's form."""
    text = tools_text(prompt)
    return [] if text is None else json.loads(text)


def as_messages(prompt: Prompt) -> list[dict[str, object]]:
    """Return the messages of a prompt in OpenAI's form, without the tools on offer."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [message.as_json() for message in messages_of(prompt)]


def prompt_json(prompt: Prompt) -> object:
    """Return a prompt as messages, with tools on offer as an object that has them too; `render_prompt` reads both."""
    tools = tools_of(prompt)
    return {"messages": as_messages(prompt), "tools": tools} if tools else as_messages(prompt)


def has_calls(prompt: Prompt) -> bool:
    """Return True for a prompt with tools on offer, calls or results."""
    return not isinstance(prompt, str) and any(
        message.tool_calls or message.role == TOOLS or message.tool_call_id is not None for message in prompt
    )


def last_text(prompt: Prompt) -> str:
    """Return the text of the last message; empty for a prompt without messages."""
    return prompt if isinstance(prompt, str) else prompt[-1].content if prompt else ""


def is_blank(prompt: Prompt) -> bool:
    """Return True for a prompt without text, or with none besides the system's."""
    if isinstance(prompt, str):
        return not prompt.strip()
    return not any(message.content.strip() for message in prompt if message.role not in ("system", TOOLS))


def prompt_key(prompt: Prompt) -> str:
    """Return a text that is equal for prompts that ask the same: white space is folded, a user message is its text."""
    if isinstance(prompt, str):
        return _folded(prompt)
    if len(prompt) == 1 and prompt[0].role == "user":
        return _folded(prompt[0].content)
    return "\x1e".join(f"{message.role}\x1f{_folded(message.text)}" for message in prompt)


def exact_key(prompt: Prompt) -> str:
    """Return a text that differs for prompts that differ in anything but ids and thoughts."""
    if isinstance(prompt, str):
        return prompt
    return repr([(message.role, message.text) for message in prompt])


def prompt_name(prompt: Prompt) -> str:
    """Return a name for an example that has none: the same for the same prompt."""
    key = repr(prompt) if isinstance(prompt, str) else exact_key(prompt)
    return f"prompt-{blake2b(key.encode(), digest_size=6).hexdigest()}"


def plain_text(messages: Sequence[Message]) -> str:
    """Return a conversation as one text, a paragraph a message."""
    return "\n\n".join(f"{message.role}: {message.text}" for message in messages)


def _folded(text: str) -> str:
    # Of all white space only the space is printable: most prompts are as they should be, which is told quickly.
    if text.isprintable() and "  " not in text and text[:1] != " " != text[-1:]:
        return text
    return " ".join(text.split())

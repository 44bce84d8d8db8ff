"""From whatever a framework calls a message to plain text; what is not text is refused, never its Python repr."""

from collections.abc import Mapping
from enum import Enum

from nat_dpo_pipeline.core.candidates import Message, Prompt, RefusalReason, is_blank
from nat_dpo_pipeline.errors import CandidateRefused

_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# LangChain messages name their role `type`, and two roles otherwise.
_LANGCHAIN_TYPES = frozenset({"human", "ai", "system", "tool", "function"})
_ROLE_OF_NAME = {"human": "user", "ai": "assistant"}


def render_prompt(raw: object) -> Prompt:
    """The prompt in `raw`: text, messages, or an object with `messages`. Raises CandidateRefused, if blank too."""
    prompt = _valid(raw) if isinstance(raw, str) else _messages(raw)
    if is_blank(prompt):
        raise CandidateRefused(RefusalReason.MISSING_PROMPT)
    return prompt


def _messages(raw: object) -> tuple[Message, ...]:
    messages = raw if isinstance(raw, list | tuple) else _get(raw, "messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise CandidateRefused(RefusalReason.MISSING_PROMPT if not raw else RefusalReason.CONTENT_NOT_TEXT)
    prompt = tuple(_message(item) for item in messages)
    if prompt[-1].role == "assistant":
        raise CandidateRefused(RefusalReason.PROMPT_ENDS_WITH_ASSISTANT)
    return prompt


def without_reply(prompt: object, response: object) -> object:
    """The messages of `prompt` without the response, where a workflow recorded the conversation with its outcome."""
    if not isinstance(prompt, list | tuple) or not prompt or _get(prompt[-1], "role") in ("user", "system"):
        return prompt
    try:
        last = _message(prompt[-1])
    except CandidateRefused:
        return prompt
    return prompt[:-1] if last.role == "assistant" and last.content == response else prompt


def render_response(raw: object) -> str:
    """The text of a response: text, a number, text parts, or a message. Raises CandidateRefused."""
    if isinstance(raw, str):
        return _valid(raw)
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_RESPONSE)
    if isinstance(raw, bool | int | float):
        return str(raw)
    if isinstance(raw, list | tuple):
        return _content(raw)
    _refuse_tool_calls(raw)
    return _content(_get(raw, "content"))


def _message(item: object) -> Message:
    _refuse_tool_calls(item)
    return Message(_role(item), _content(_get(item, "content")))


def _role(item: object) -> str:
    role, kind = _get(item, "role"), _get(item, "type")
    if isinstance(role, Enum):
        role = role.value
    if role is None and isinstance(kind, str) and kind in _LANGCHAIN_TYPES:
        role = kind
    if not isinstance(role, str):
        raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)
    return _ROLE_OF_NAME.get(role, _valid(role))


def _refuse_tool_calls(item: object) -> None:
    # The trainers' row formats have no place for a call; its surrounding text alone would be another message.
    if _get(item, "tool_calls") or _get(item, "function_call"):
        raise CandidateRefused(RefusalReason.TOOL_CALL)


def _content(raw: object) -> str:
    if isinstance(raw, str):
        return _valid(raw)
    if isinstance(raw, list | tuple) and raw:
        return _valid("".join(_part(part) for part in raw))
    raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    kind, text = _get(part, "type"), _get(part, "text")
    if isinstance(kind, str) and kind in _TEXT_PARTS and isinstance(text, str):
        return text
    raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)


def _get(item: object, name: str) -> object:
    if type(item) is dict or isinstance(item, Mapping):  # the first is much quicker
        return item.get(name)
    return getattr(item, name, None)


def _valid(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CandidateRefused(RefusalReason.INVALID_UNICODE) from error
    return text

"""The text of a reply → the answer, and the thoughts that a reasoning model wrote in front of it.

A server keeps thoughts apart only when it was started with the reasoning parser of its model; without one they arrive
in the content. Marks count at the beginning of a reply alone: an answer that mentions `<think>` further on is one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SplitReply:
    """An answer and the thoughts before it, both without the marks. `ended` is False for thoughts that were cut."""

    answer: str
    thoughts: str = ""
    ended: bool = True


@dataclass(frozen=True, slots=True)
class _Form:
    """Regular expressions of the marks of one family of models; `before` and `after` frame the answer.

    `is_in_prompt`: chat templates end the prompt with the opening mark, so that the reply may lack it. `is_prose`: the
    marks are words, which only both together tell from an answer.
    """

    opening: str
    closing: str
    before: str = ""
    after: str = ""
    is_in_prompt: bool = True
    is_prose: bool = False


# The marks as vLLM (vllm/reasoning) and SGLang (srt/parser/reasoning_parser.py) know them in November 2026, those of
# models without a parser as their cards show them.
_FORMS = (
    # DeepSeek, Qwen, GLM, MiniMax, Nemotron, OLMo and most others; Hunyuan 3 adds a suffix to the tag. ERNIE 4.5 and
    # Hunyuan A13B put the answer into tags on lines of their own.
    _Form(r"<think(?::[\w-]+)?>", r"</think(?::[\w-]+)?>", r"<(?:answer|response)>\n", r"\n</(?:answer|response)>"),
    _Form(r"<seed:think>", r"</seed:think>"),  # Seed-OSS
    _Form(r"<mm:think>", r"</mm:think>"),  # MiniMax-M3
    _Form(r"<thinking>", r"</thinking>"),  # Reflection; models prompted to think
    _Form(r"<thoughts?>", r"</thoughts?>"),  # EXAONE Deep; Gemini behind its OpenAI-compatible API
    _Form(r"<reasoning>", r"</reasoning>"),  # models trained with rewards for this form
    _Form(r"\[THINK\]", r"\[/THINK\]"),  # Mistral
    _Form(r"◁think▷", r"◁/think▷"),  # Kimi-VL
    _Form(  # Kimi K3
        r"<\|open\|>think<\|sep\|>",
        r"<\|close\|>think<\|sep\|>",
        r"<\|open\|>response<\|sep\|>",
        r"<\|close\|>response<\|sep\|>(?:<\|close\|>message<\|sep\|>)?",
    ),
    _Form(  # Cohere Command A
        r"<\|START_THINKING\|>",
        r"<\|END_THINKING\|>",
        r"<\|START_(?:RESPONSE|TEXT)\|>",
        r"<\|END_(?:RESPONSE|TEXT)\|>",
    ),
    _Form(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    _Form(r"\[unused16\]", r"\[unused17\]"),  # openPangu
    _Form(  # OpenThinker, Sky-T1
        r"<\|begin_of_thought\|>",
        r"<\|end_of_thought\|>",
        r"<\|begin_of_solution\|>",
        r"<\|end_of_solution\|>",
    ),
    _Form(r"<\|channel>(?:thought\n)?", r"<channel\|>", is_in_prompt=False),  # Gemma 4
    _Form(  # Solar Open
        r"<\|think\|>", r"<\|end\|>", r"(?:<\|begin\|>assistant)?<\|content\|>", r"<\|end\|>", is_in_prompt=False
    ),
    _Form(  # Inkling
        r"(?:<\|message_model\|>)?<\|content_thinking\|>",
        r"<\|end_message\|>",
        r"(?:<\|message_model\|>)?<\|content_text\|>",
        r"<\|end_message\|>(?:<\|content_model_end_sampling\|>)?",
        is_in_prompt=False,
    ),
    # HyperCLOVA X SEED Think
    _Form(r"/think\n", r"<\|im_end\|>\n<\|im_start\|>assistant", is_in_prompt=False, is_prose=True),
    _Form(  # Granite 3.2
        r"Here(?: is|['’]s) my thought process:", r"Here(?: is|['’]s) my response:", is_in_prompt=False, is_prose=True
    ),
    # gpt-oss behind a server that left out the special tokens of its channels
    _Form(r"analysis(?=[A-Z])", r"assistantfinal", is_in_prompt=False, is_prose=True),
)
# A model may write its opening mark twice.
_COMPILED = tuple(
    (
        form,
        re.compile(rf"\s*(?:{form.opening}\s*)+", re.IGNORECASE),
        re.compile(form.closing, re.IGNORECASE),
        re.compile(rf"\s*{form.before}(.*){form.after}\s*", re.DOTALL | re.IGNORECASE) if form.before else None,
    )
    for form in _FORMS
)
_MARK = re.compile(
    "|".join(
        f"(?P<{group}>{'|'.join(getattr(form, group) for form in _FORMS if form.is_in_prompt)})"
        for group in ("opening", "closing")
    ),
    re.IGNORECASE,
)
# The messages of gpt-oss (https://cookbook.openai.com/articles/openai-harmony: <|channel|>final is the answer) and of
# Muse Glimmer (to=user is), which begin inside a header that the prompt opens.
_HEADER = re.compile(
    r"(?:\s*<\|start\|>)?(?:assistant)?(?:\s*to=(?P<to>[\w.]+))?\s*(?:<\|channel\|>(?P<channel>\w+)[^<]*)?"
    r"(?:<\|constrain\|>[^<]*)?<\|message\|>"
)
_END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|eom|eot)\|>\s*")
_LAST_END = re.compile(r"<\|(?:end|return|eom|eot)\|>\s*\Z")
_QUOTES = "`'\"“”‘’«»"  # noqa: RUF001 - typographic quotation marks are meant


# What every reply with thoughts begins with, or has in it: a closing mark, or the frame of special tokens.
_BEGINNINGS = ("<", "[", "◁", "/think", "analysis", *(f"Here{word} my thought" for word in (" is", "'s", "’s")))
#: First characters of all replies that begin with a mark.
FIRST_CHARACTERS = frozenset({mark[0] for mark in _BEGINNINGS} | set(" \t\r\n"))
_INSIDE = ("</", "[/", "|>", "◁/")


def may_hold_thoughts(reply: str) -> bool:
    """Return False, quickly, for nearly all replies without thoughts."""
    for inside in _INSIDE:
        if inside in reply:
            return True
    return reply.lstrip().startswith(_BEGINNINGS)


def split_thoughts(reply: str) -> SplitReply:
    """Split the text of a reply; a text without the marks of thoughts is the answer as it is.

    The first closing mark ends the thoughts, as it does for the parsers of servers. Thoughts that were never closed
    leave an empty answer.
    """
    header = _HEADER.match(reply)
    if header is not None and (header["to"] or header["channel"]):
        return _in_messages(reply)
    return _opened(reply) or _unopened(reply) or SplitReply(reply)


def _opened(reply: str) -> SplitReply | None:
    for form, opening, closing, frame in _COMPILED:
        if (opened := opening.match(reply)) is None:
            continue
        closed = closing.search(reply, opened.end())
        if closed is not None:
            thoughts = reply[opened.end() : closed.start()].strip()
            return _with_more(thoughts, _unframed(reply[closed.end() :], frame))
        if not form.is_prose:
            return SplitReply("", reply[opened.end() :].strip(), ended=False)
    return None


def _with_more(thoughts: str, rest: str) -> SplitReply:
    """Return the thoughts together with those that `rest` begins with."""
    more = _opened(rest)
    if more is None:
        return SplitReply(rest.strip(), thoughts)
    return SplitReply(more.answer, f"{thoughts}\n{more.thoughts}".strip(), more.ended)


def _unframed(answer: str, frame: re.Pattern[str] | None) -> str:
    framed = frame.fullmatch(answer) if frame is not None else None
    return framed[1] if framed is not None else answer


def _unopened(reply: str) -> SplitReply | None:
    depth = 0
    for mark in _marks(reply):
        if mark["opening"]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            frame = next(frame for _, _, closing, frame in _COMPILED if closing.fullmatch(mark[0]))
            return _with_more(reply[: mark.start()].strip(), _unframed(reply[mark.end() :], frame))
    return None


def _marks(reply: str) -> Iterator[re.Match[str]]:
    """Yield the marks that are not quoted: an answer may explain them."""
    return (mark for mark in _MARK.finditer(reply) if not _is_quoted(reply, mark.start(), mark.end()))


def _is_quoted(reply: str, start: int, end: int) -> bool:
    around = (reply[start - 1 : start], reply[end : end + 1])
    if all(around) and all(mark in _QUOTES for mark in around):
        return True
    line_start, line_end = reply.rfind("\n", 0, start) + 1, reply.find("\n", end)
    rest_of_line = reply[end : line_end if line_end >= 0 else len(reply)]
    is_in_span = reply.count("`", line_start, start) % 2 == 1 and "`" in rest_of_line
    return is_in_span or (reply.count("```", 0, start) % 2 == 1 and reply.find("```", end) >= 0)


def _in_messages(reply: str) -> SplitReply:
    thoughts: list[str] = []
    position = 0
    while (header := _HEADER.match(reply, position)) is not None:
        if header["channel"] == "final" or (header["channel"] is None and header["to"] in (None, "user")):
            return SplitReply(_LAST_END.sub("", reply[header.end() :]).strip(), "\n".join(thoughts))
        ended = _END_OF_MESSAGE.search(reply, header.end())
        thoughts.append(reply[header.end() : ended.start() if ended else len(reply)].strip())
        position = ended.end() if ended else len(reply)
    return SplitReply("", "\n".join(thoughts), ended=False)

"""Rows of datasets, whoever wrote them, back to prompts and answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nat_dpo_pipeline.core.messages import Message, Prompt, reply_of
from nat_dpo_pipeline.core.rendering import conversation, with_tools
from nat_dpo_pipeline.core.said import read_call
from nat_dpo_pipeline.dataset.formats.texts import ASSISTANT
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What a row says: of a pair the chosen and the rejected answer, else the answers that there are.

    `label` is whether the only answer is good, where a row says so.
    """

    prompt: Prompt
    answers: tuple[str, ...]
    is_pair: bool = True
    label: bool | None = None


_Json = Mapping[str, object]
# Keys of a message with calls, of a tool's result, and of thoughts.
_MORE_THAN_TEXT = frozenset({"tool_calls", "function_call", "tool_call_id", "reasoning_content"})


def recognised(row: _Json) -> str | None:
    """The name of the format that a row is in, by its keys and the types behind them."""
    keys = row.keys()
    # Columns beside these change nothing: trainers take them by name.
    if {"prompt", "chosen", "rejected"} <= keys:
        if isinstance(row["chosen"], str):
            return "trl_standard" if isinstance(row["prompt"], str) else "helix"
        return "trl"
    for name, needed in _KEYS:
        if needed <= keys:
            return name
    if {"chosen", "rejected"} <= keys:
        return "hh" if isinstance(row["chosen"], str) else "tulu3"
    return None


_KEYS: tuple[tuple[str, frozenset[str]], ...] = (
    ("openai", frozenset({"input", "preferred_output", "non_preferred_output"})),
    ("nemo_rl", frozenset({"context", "completions"})),
    ("helpsteer3", frozenset({"context", "response1", "response2", "overall_preference"})),
    ("nemo_customizer", frozenset({"prompt", "chosen_response", "rejected_response"})),
    ("llama_factory", frozenset({"conversations", "chosen", "rejected"})),
    ("ms_swift", frozenset({"messages", "rejected_response"})),
    ("axolotl", frozenset({"messages", "chosen", "rejected"})),
    ("alpaca", frozenset({"instruction", "chosen", "rejected"})),
    ("kto", frozenset({"prompt", "completion", "label"})),
    ("ultrafeedback", frozenset({"instruction", "completions"})),
    ("steerlm", frozenset({"question", "response", "helpfulness"})),
)


def read(name: str, row: _Json) -> ReadRow:
    """The row, which is in the format of this name. Raises InputError when it is not."""
    try:
        return _READERS[name](row)
    except KeyError as error:
        raise InputError(f"{name} needs {error.args[0]!r}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"a text was expected, not {value!r:.60}")
    return value


def _object(value: object) -> _Json:
    if not isinstance(value, Mapping):
        raise InputError(f"an object was expected, not {value!r:.60}")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise InputError(f"a list was expected, not {value!r:.60}")
    return value


def _messages(value: object) -> tuple[Message, ...]:
    """Return messages, none of which is joined with the one before it: a trainer takes them one by one."""
    return tuple(one if isinstance(one, Message) else _message(one) for one in _list(value))


def _message(value: object) -> Message:
    message = _object(value)
    if not message.keys() & _MORE_THAN_TEXT:
        return Message(_text(message["role"]), _text(message["content"]))
    (found,) = conversation([message])
    return found


def _prompt(value: object, tools: object = None) -> Prompt:
    prompt = value if isinstance(value, str) else _messages(value)
    return with_tools(prompt, tools) if tools else prompt


def _one_answer(value: object) -> str:
    """Return the reply in the only message, which is the assistant's."""
    messages = _messages(value)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise InputError("an answer must be one message of the assistant")
    return reply_of(messages[0])


def _answer(value: object) -> str:
    return value if isinstance(value, str) else reply_of(_message(value))


def _pair(prompt: str, chosen: str, rejected: str, answer: Callable[[object], str]) -> Callable[[_Json], ReadRow]:
    return lambda row: ReadRow(_prompt(row[prompt], row.get("tools")), (answer(row[chosen]), answer(row[rejected])))


def _trl(row: _Json) -> ReadRow:
    """Read messages; TRL stops at a prompt of text beside them, and trains twice on a prompt that the sides repeat."""
    answers = (_one_answer(row["chosen"]), _one_answer(row["rejected"]))
    return ReadRow(_prompt(_list(row["prompt"]), row.get("tools")), answers)


def _openai(row: _Json) -> ReadRow:
    answers = (_one_answer(row["preferred_output"]), _one_answer(row["non_preferred_output"]))
    asked = _object(row["input"])
    return ReadRow(_prompt(_list(asked["messages"]), asked.get("tools")), answers)


def _ms_swift(row: _Json) -> ReadRow:
    *asked, chosen = _messages(row["messages"])
    rejected = row["rejected_response"]
    # A list stands for all that comes after the last message of the user.
    last = rejected if isinstance(rejected, str) else reply_of(_messages(rejected)[-1])
    return ReadRow(_prompt(asked, row.get("tools")), (reply_of(chosen), last))


def _nemo_rl(row: _Json) -> ReadRow:
    completions = [_object(one) for one in _list(row["completions"])]
    ranks = [one["rank"] for one in completions]
    if sorted(map(str, ranks)) != ["0", "1"]:
        raise InputError(f"two completions of rank 0 and 1 were expected, not of {ranks!r:.60}")
    best, worst = sorted(completions, key=lambda one: str(one["rank"]))
    return ReadRow(_prompt(_list(row["context"])), (_one_answer(best["completion"]), _one_answer(worst["completion"])))


def _helpsteer3(row: _Json) -> ReadRow:
    first, second = _text(row["response1"]), _text(row["response2"])
    preference = row["overall_preference"]
    if type(preference) is not int or not -3 <= preference <= 3:
        raise InputError(f"overall_preference must be an integer from -3 to 3, not {preference!r:.60}")
    if preference == 0:
        # NeMo-RL trains on the first answer against itself.
        return ReadRow(_prompt(row["context"]), (first, first))
    return ReadRow(_prompt(row["context"]), (first, second) if preference < 0 else (second, first))


_ROLES = {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"}


def _sharegpt(value: object) -> Message:
    message = _object(value)
    role, text = _text(message["from"]), _text(message["value"])
    if role != "function_call":
        return Message(_ROLES.get(role, role), text)
    called = parse_json(text)
    calls = tuple(map(read_call, called if isinstance(called, list) else [called]))
    return Message("assistant", "", calls)


def _llama_factory(row: _Json) -> ReadRow:
    prompt = (*_before(row), *map(_sharegpt, _list(row["conversations"])))
    answers = tuple(reply_of(_sharegpt(row[side])) for side in ("chosen", "rejected"))
    return ReadRow(_prompt(prompt, row.get("tools")), answers)


def _alpaca(row: _Json) -> ReadRow:
    extra = _text(row.get("input") or "")
    text = "\n".join(part for part in (_text(row["instruction"]), extra) if part)
    before = _before(row)
    prompt: Prompt = (*before, Message("user", text)) if before else text
    return ReadRow(prompt, (_text(row["chosen"]), _text(row["rejected"])))


def _before(row: _Json) -> tuple[Message, ...]:
    """Return the messages that LLaMA-Factory puts before the prompt: `system`, and the turns of `history`."""
    system = _text(row.get("system") or "")
    turns = [_list(turn) for turn in _list(row.get("history") or [])]
    said = [
        Message(role, _text(text)) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=False)
    ]
    return (*((Message("system", system),) if system else ()), *said)


def _tulu3(row: _Json) -> ReadRow:
    chosen, rejected = (tuple(map(_message, _list(row[side]))) for side in ("chosen", "rejected"))
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise InputError("chosen and rejected must be conversations that differ in the last message only")
    return ReadRow(chosen[:-1], (reply_of(chosen[-1]), reply_of(rejected[-1])))


def _hh(row: _Json) -> ReadRow:
    (before, _, chosen), (same, _, rejected) = (
        _text(row[side]).rpartition(ASSISTANT) for side in ("chosen", "rejected")
    )
    if not before or before != same:
        raise InputError("chosen and rejected must be transcripts that differ after the last '\\n\\nAssistant:' only")
    return ReadRow(before, (chosen.removeprefix(" "), rejected.removeprefix(" ")))


def _kto(row: _Json) -> ReadRow:
    if not isinstance(row["label"], bool):
        raise InputError(f"label must be true or false, not {row['label']!r:.60}")
    completion = row["completion"]
    answer = completion if isinstance(completion, str) else _one_answer(completion)
    return ReadRow(_prompt(row["prompt"], row.get("tools")), (answer,), is_pair=False, label=row["label"])


def _ultrafeedback(row: _Json) -> ReadRow:
    answers = tuple(_text(_object(one)["response"]) for one in _list(row["completions"]))
    return ReadRow(_text(row["instruction"]), answers, is_pair=False)


def _steerlm(row: _Json) -> ReadRow:
    return ReadRow(_text(row["question"]), (_text(row["response"]),), is_pair=False)


_READERS: Mapping[str, Callable[[_Json], ReadRow]] = {
    "trl": _trl,
    "trl_standard": _pair("prompt", "chosen", "rejected", _text),
    "helix": _pair("prompt", "chosen", "rejected", _text),
    "nemo_customizer": _pair("prompt", "chosen_response", "rejected_response", _text),
    "axolotl": _pair("messages", "chosen", "rejected", _answer),
    "ms_swift": _ms_swift,
    "openai": _openai,
    "nemo_rl": _nemo_rl,
    "helpsteer3": _helpsteer3,
    "llama_factory": _llama_factory,
    "alpaca": _alpaca,
    "tulu3": _tulu3,
    "hh": _hh,
    "kto": _kto,
    "ultrafeedback": _ultrafeedback,
    "steerlm": _steerlm,
}

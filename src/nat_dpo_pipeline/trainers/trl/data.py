"""Pairs as the tokens that TRL trains on, and what of them it would leave out without a word."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError

from nat_dpo_pipeline.dataset.rendered import calls_in, lost_call, tools_in
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError

_Messages = list[dict[str, Any]]
_Row = Mapping[str, Any]
_COLUMNS = ("prompt", "chosen", "rejected", "tools")


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    chat_template: Any

    def apply_chat_template(self, conversation: _Messages, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """The ids of a pair, cut to the longest sequence that is trained on."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    asked: str
    has_call: bool = False


@dataclass(frozen=True, slots=True)
class TokenizedRows:
    """The pairs of one side that are trained on or measured, and their rows in the same order.

    `dropped` had a prompt that leaves no room for an answer, `alike` equal answers within the longest sequence, `cut`
    lost the end of an answer.
    """

    rows: Sequence[_Row]
    pairs: Sequence[TokenizedPair]
    dropped: int = 0
    alike: int = 0
    cut: int = 0

    @property
    def left_out_share(self) -> float:
        left_out = self.dropped + self.alike
        return left_out / max(len(self.pairs) + left_out, 1)


def read_rows(path: Path) -> list[_Row]:
    """Return the rows of a file in TRL's conversational format, with nothing but prompt, answers and tools on offer."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [{name: row[name] for name in _COLUMNS if name in row} for row in rows]


def has_calls(rows: Sequence[_Row]) -> bool:
    """Return True when a row has more than texts: calls, results of tools, tools on offer or thoughts."""
    return any("tools" in row or any(_is_more_than_text(row[name]) for name in _COLUMNS[:3]) for row in rows)


def _is_more_than_text(messages: _Messages) -> bool:
    return any(message.keys() - {"role", "content"} for message in messages)


def tokenized(rows: Sequence[_Row], tokenizer: Tokenizer, max_length: int) -> TokenizedRows:
    """Return the rows as tokens.

    Raises ConfigurationError when the tokenizer has no chat template, or one that drops a call, and TrainingError when
    the template refuses a row.
    """
    if not tokenizer.chat_template:
        raise ConfigurationError(
            "the model's tokenizer has no chat template, so it is not known how a conversation is written for it: "
            "take an instruction-tuned model, or put a chat_template.jinja into the model's folder"
        )
    kept: list[tuple[_Row, TokenizedPair]] = []
    dropped = alike = cut = 0
    for row in rows:
        prompt, chosen, rejected = _ids(row, tokenizer)
        room = max_length - len(prompt)
        if room <= 0:
            dropped += 1
        elif chosen[:room] == rejected[:room]:
            alike += 1
        else:
            cut += max(len(chosen), len(rejected)) > room
            asked, has_call = json.dumps(row["prompt"], sort_keys=True), bool(calls_in(row["chosen"] + row["rejected"]))
            kept.append((row, TokenizedPair(prompt, chosen[:room], rejected[:room], asked, has_call)))
    return TokenizedRows([row for row, _ in kept], [pair for _, pair in kept], dropped, alike, cut)


def check_left_out(train: TokenizedRows, max_length: int, max_dropped: float) -> None:
    """Raise TrainingError when more of the training pairs are left out for their length than is allowed."""
    share, count = train.left_out_share, train.dropped + train.alike
    if not train.pairs or share > max_dropped:
        total = count + len(train.pairs)
        raise TrainingError(
            f"{count} of {total} training pairs ({share:.0%}) do not fit into max_length {max_length}: {train.dropped} "
            f"with a prompt that leaves no room for an answer, {train.alike} with answers that are the same up to "
            f"there; max_dropped allows {max_dropped:.0%}. Raise max_length, or leave out long prompts"
        )


def _ids(row: _Row, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """An answer begins where the ids of the prompt and those of the whole conversation part, as TRL has it."""
    tools = tools_in(row)
    try:
        prompt = _encoded(tokenizer, row["prompt"], tools=tools, add_generation_prompt=True)
        whole = [_encoded(tokenizer, row["prompt"] + row[side], tools=tools) for side in ("chosen", "rejected")]
        for side in ("chosen", "rejected"):
            _check_calls(row["prompt"], row[side], tools, tokenizer)
    except (TemplateError, TypeError) as error:
        roles = ", ".join(message["role"] for message in row["prompt"])
        raise TrainingError(f"the model's chat template refuses a prompt of the roles {roles}: {error}") from error
    start = min(_common_prefix(prompt, ids) for ids in whole)
    return prompt[:start], whole[0][start:], whole[1][start:]


def _check_calls(prompt: _Messages, answer: _Messages, tools: Any, tokenizer: Tokenizer) -> None:
    """Raise ConfigurationError when the rendered answer, or prompt, lacks a call."""
    messages = prompt + answer
    if not calls_in(messages):
        return
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    if lost := lost_call(messages, text):
        raise ConfigurationError(
            f"the model's chat template drops or garbles calls of tools, such as that of {lost!r}, so that nothing "
            "would be learned from them: take a model whose template renders tool calls, or put such a "
            "chat_template.jinja into the model's folder"
        )


def _encoded(
    tokenizer: Tokenizer, messages: _Messages, *, tools: Any = None, add_generation_prompt: bool = False
) -> tuple[int, ...]:
    encoded = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
    )
    return tuple(encoded["input_ids"])


def _common_prefix(ids: Sequence[int], others: Sequence[int]) -> int:
    pairs = zip(ids, others, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(others)))

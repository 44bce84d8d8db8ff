"""A model of half a million weights for trying out a training where nothing can be downloaded.

Its tokenizer and a short warm start as a language model come from the training pairs themselves, chosen and rejected
answers alike: it knows the texts and prefers neither side. It is no use but to see that preferences are learned.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

from nat_dpo_pipeline.dataset.files import replaced_folder
from nat_dpo_pipeline.dataset.rendered import calls_in, tools_in

_PAD, _START, _END = "<|pad|>", "<|im_start|>", "<|im_end|>"
#: ChatML, with tools and calls in the form of Hermes and Qwen.
_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    "{{ call.function.name }}\n{{ call.function.arguments | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VOCABULARY = 1500
_LONGEST = 1024
_WARM_UP_EPOCHS = 2
_WARM_UP_BATCH = 16
_WARM_UP_RATE = 1e-3

_Row = Mapping[str, Any]


def make_tiny_model(folder: Path, rows: Sequence[_Row], seed: int, on_step: Callable[[], None]) -> None:
    """Write model and tokenizer to `folder`, whole or not at all; equal rows and seeds give equal weights on one
    machine. `on_step` is called after every step and may raise."""
    tokenizer = _tokenizer(rows)
    set_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=_LONGEST,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    _warm_up(model, [_conversation(tokenizer, row, side) for row in rows for side in ("chosen", "rejected")], on_step)
    with replaced_folder(folder) as stage:
        model.save_pretrained(stage)
        tokenizer.save_pretrained(stage)


def _tokenizer(rows: Sequence[_Row]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_texts(rows), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=_PAD, eos_token=_END)
    wrapped.chat_template = _TEMPLATE
    return wrapped


def _texts(rows: Sequence[_Row]) -> Iterator[str]:
    for row in rows:
        yield str(row.get("tools") or "")
        for messages in (row["prompt"], row["chosen"], row["rejected"]):
            yield from (message["content"] for message in messages)
            yield from (json.dumps(function["arguments"]) for function in calls_in(messages))


def _conversation(tokenizer: PreTrainedTokenizerFast, row: _Row, side: str) -> torch.Tensor:
    encoded = tokenizer.apply_chat_template(
        row["prompt"] + row[side], tools=tools_in(row), tokenize=True, return_dict=True
    )
    return torch.tensor(encoded["input_ids"][:_LONGEST])


def _warm_up(model: Qwen2ForCausalLM, sequences: Sequence[torch.Tensor], on_step: Callable[[], None]) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=_WARM_UP_RATE)
    order = list(sequences)
    shuffled = random.Random(0)  # noqa: S311 - not for secrets
    model.train()
    for _ in range(_WARM_UP_EPOCHS):
        shuffled.shuffle(order)
        for start in range(0, len(order), _WARM_UP_BATCH):
            batch = order[start : start + _WARM_UP_BATCH]
            ids = pad_sequence(batch, batch_first=True)
            mask = pad_sequence([torch.ones_like(one) for one in batch], batch_first=True)
            loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            on_step()

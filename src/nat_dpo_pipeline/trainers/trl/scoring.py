"""What a model prefers, by its own log-probabilities; the file about torch that does not train."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from nat_dpo_pipeline.trainers.trl.data import TokenizedPair
from nat_dpo_pipeline.trainers.trl.settings import Precision
from nat_dpo_pipeline.trainers.trl.verdict import PairScore

_REDUCED = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}
#: Of a GPU's memory, for logits in 32 bits. One sequence at a time would leave it idle for most of the time.
_SHARE_FOR_LOGITS = 1 / 64

_Sequence = tuple[Sequence[int], Sequence[int]]


def log_probabilities(model: Any, sequences: Sequence[_Sequence], logits_at_once: int = 0) -> list[float]:
    """log p(answer | prompt) in nats, summed over the answer's tokens, of each (prompt, answer).

    One sequence at a time unless more may be held; then the shorter ones are padded at their end, where no token before
    looks.
    """
    found = [0.0] * len(sequences)
    lengths = [len(prompt) + len(answer) for prompt, answer in sequences]
    for places in _batches(lengths, logits_at_once // int(model.config.get_text_config().vocab_size)):
        ids = pad_sequence(
            [torch.tensor([*sequences[place][0], *sequences[place][1]]) for place in places], batch_first=True
        ).to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits
        losses = []
        for row, place in enumerate(places):
            start, end = len(sequences[place][0]), lengths[place]
            predicted = logits[row, start - 1 : end - 1].float()
            losses.append(functional.cross_entropy(predicted, ids[row, start:end], reduction="sum"))
        for place, loss in zip(places, torch.stack(losses).tolist(), strict=True):
            found[place] = -loss
    return found


def pair_scores(model: Any, pairs: Sequence[TokenizedPair], precision: Precision) -> list[PairScore]:
    """The model's view of each pair, without dropout; its mode is what it was afterwards."""
    was_training = model.training
    model.eval()
    sequences: list[_Sequence] = [(pair.prompt, answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    try:
        with torch.no_grad(), _autocast(model, precision):
            found = log_probabilities(model, sequences, _logits_at_once(model.device))
    finally:
        model.train(was_training)
    margins = [chosen - rejected for chosen, rejected in zip(found[::2], found[1::2], strict=True)]
    return [
        PairScore(pair.asked, margin, len(pair.chosen) > len(pair.rejected), pair.has_call)
        for pair, margin in zip(pairs, margins, strict=True)
    ]


def _logits_at_once(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory * _SHARE_FOR_LOGITS / 4)


def _batches(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Places of sequences that go together, the longest first, padding counted as tokens; at least one a batch."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens_at_once:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _autocast(model: Any, precision: Precision) -> AbstractContextManager[Any]:
    reduced = _REDUCED.get(precision)
    return torch.autocast(model.device.type, reduced) if reduced else nullcontext()

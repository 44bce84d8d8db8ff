"""What a model prefers, by its own log-probabilities; the file about torch that does not train."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional

from nat_dpo_pipeline.trainers.trl.data import TokenizedPair
from nat_dpo_pipeline.trainers.trl.settings import Precision
from nat_dpo_pipeline.trainers.trl.verdict import PairScore

_REDUCED = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def log_probability(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """log p(answer | prompt) in nats, summed over the answer's tokens.

    One sequence at a time: no padding that could change a number, and the logits of one sequence in memory.
    """
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return -float(functional.cross_entropy(logits.float(), ids[0, len(prompt) :], reduction="sum"))


def pair_scores(model: Any, pairs: Sequence[TokenizedPair], precision: Precision) -> list[PairScore]:
    """The model's view of each pair, without dropout; its mode is what it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _autocast(model, precision):
            return [_score(model, pair) for pair in pairs]
    finally:
        model.train(was_training)


def _score(model: Any, pair: TokenizedPair) -> PairScore:
    chosen, rejected = (log_probability(model, pair.prompt, answer) for answer in (pair.chosen, pair.rejected))
    return PairScore(pair.asked, chosen - rejected, len(pair.chosen) > len(pair.rejected))


def _autocast(model: Any, precision: Precision) -> AbstractContextManager[Any]:
    reduced = _REDUCED.get(precision)
    return torch.autocast(model.device.type, reduced) if reduced else nullcontext()

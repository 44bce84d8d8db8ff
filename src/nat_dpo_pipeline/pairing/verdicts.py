"""Which pairs of a whole run are left out, by the definitions of `core.selection`, from the facts on disk.

What is in memory at a time is a bucket of the facts: texts and pairs go to buckets by their hashes, so that equal ones
meet; the smallest margins are found digit by digit.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from nat_dpo_pipeline.core.pairs import SkipReason
from nat_dpo_pipeline.core.selection import SelectionRules, share_of
from nat_dpo_pipeline.core.split import ranks_held_out, sample
from nat_dpo_pipeline.pairing.facts import fact_name
from nat_dpo_pipeline.records.columns import Ints
from nat_dpo_pipeline.records.hashing import Hashes, mixed
from nat_dpo_pipeline.records.places import Place

#: Why a pair is left out, by verdict; 0 is kept.
REASONS = (
    "",
    str(SkipReason.CONTRADICTION),
    str(SkipReason.OVER_MAX_PROMPTS_PER_CHOSEN),
    str(SkipReason.BELOW_MIN_MARGIN_QUANTILE),
    str(SkipReason.LENGTH_BALANCE),
    "duplicate_pairs",
    "over_max_pairs",
)
_CONTRADICTION, _TOO_OFTEN, _SMALL, _LONGER, _DUPLICATE, _NOT_DRAWN = range(1, len(REASONS))
# A bucket's keys and places, and what sorting them takes.
_BYTES_A_PAIR = 64
_DIGITS = 16


class Verdicts:
    """Decides on the pairs of all shards, of which there are so many each."""

    def __init__(self, folder: Place, pairs: Sequence[int], memory: int) -> None:
        self._folder = folder
        self._starts = np.concatenate(([0], np.cumsum(np.array(pairs, dtype=np.int64))))
        total = int(self._starts[-1])
        self._buckets = max(-(-total * _BYTES_A_PAIR // memory), 1)
        self._verdicts: Any = np.zeros(0, dtype=np.uint8)
        if total:
            # The map keeps the file, which has no name.
            with tempfile.TemporaryFile() as file:
                self._verdicts = np.memmap(file, dtype=np.uint8, mode="w+", shape=(total,))

    def decide(self, rules: SelectionRules, *, deduplicate: bool, max_pairs: int | None, seed: int) -> None:
        """Each rule looks at what those before it left."""
        if rules.drop_contradictions:
            self._drop_contradictions()
        if rules.max_prompts_per_chosen is not None:
            self._drop_chosen_too_often(rules.max_prompts_per_chosen)
        if rules.min_margin_quantile is not None:
            self._drop_small_margins(rules.min_margin_quantile)
        if rules.length_balance is not None:
            self._balance_lengths(rules.length_balance)
        if deduplicate:
            self._drop_duplicates()
        if max_pairs is not None:
            self._draw(max_pairs, seed)

    def held_out(self, fraction: float) -> Hashes:
        """The ranks of the prompts that go to validation, sorted: of those of kept pairs and of singles."""
        strata: dict[int, int] = {}
        for shard in self._shards():
            _, ranks, groups = self._read(shard, "ranks", "strata")
            singles = [self._fact(shard, name) for name in ("ranks_of_singles", "strata_of_singles")]
            for prompts, topics in ((ranks, groups), singles):
                for prompt, topic in zip(prompts.tolist(), topics.tolist(), strict=True):
                    strata.setdefault(prompt, topic)
        return np.array(sorted(ranks_held_out(strata, fraction)), dtype=np.uint64)

    def _fact(self, shard: int, name: str) -> Any:
        file = self._folder / fact_name(shard, name)
        return np.load(BytesIO(file.read())) if file.exists() else np.zeros(0, dtype=np.uint64)

    def of_shard(self, shard: int) -> np.ndarray:
        """The verdicts on the pairs of a shard, in their order."""
        return np.array(self._verdicts[self._starts[shard] : self._starts[shard + 1]])

    def _shards(self) -> range:
        return range(len(self._starts) - 1)

    def _read(self, shard: int, *names: str) -> list[Any]:
        """Facts of the pairs of a shard that are still kept, and first of all their places in the run."""
        kept = np.flatnonzero(self.of_shard(shard) == 0)
        facts = (
            [np.load(BytesIO((self._folder / fact_name(shard, name)).read()))[kept] for name in names]
            if len(kept)
            else [np.zeros(0, dtype=np.uint64) for _ in names]
        )
        return [kept + self._starts[shard], *facts]

    def _bucket(self, number: int, facts: Callable[[int], Sequence[Any]]) -> list[Any]:
        """Of all shards what is in a bucket by the second of its facts."""
        parts = []
        for shard in self._shards():
            found = facts(shard)
            is_inside = found[1] % np.uint64(self._buckets) == number
            parts.append([one[is_inside] for one in found])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _in_buckets(self, facts: Callable[[int], Sequence[Any]]) -> Iterator[list[Any]]:
        if len(self._verdicts):
            for number in range(self._buckets):
                yield self._bucket(number, facts)

    def _drop_contradictions(self) -> None:
        def facts(shard: int) -> Sequence[Any]:
            places, prompts, chosen, rejected = self._read(shard, "prompts", "chosen", "rejected")
            key = mixed(prompts, np.minimum(chosen, rejected), np.maximum(chosen, rejected))
            return places, key, chosen < rejected

        for places, keys, is_upward in self._in_buckets(facts):
            both = np.intersect1d(keys[is_upward], keys[~is_upward])
            self._verdicts[places[np.isin(keys, both)]] = _CONTRADICTION

    def _drop_chosen_too_often(self, most: int) -> None:
        def facts(shard: int) -> Sequence[Any]:
            places, chosen, prompts = self._read(shard, "chosen", "prompts")
            return places, chosen, prompts

        for places, chosen, prompts in self._in_buckets(facts):
            distinct = _distinct_pairs(chosen, prompts)
            texts, counts = np.unique(distinct, return_counts=True)
            self._verdicts[places[np.isin(chosen, texts[counts > most])]] = _TOO_OFTEN

    def _drop_small_margins(self, share: float) -> None:
        count = int((self._verdicts == 0).sum())
        if not count:
            return
        least = self._nth(lambda shard: self._read(shard, "margins")[1].view(np.uint64), share_of(share, count))
        for shard in self._shards():
            places, margins = self._read(shard, "margins")
            self._verdicts[places[margins.view(np.uint64) < least]] = _SMALL

    def _balance_lengths(self, share: float) -> None:
        counts = Counter[int]()
        for shard in self._shards():
            signs, numbers = np.unique(self._read(shard, "longer")[1].astype(np.int8), return_counts=True)
            counts.update(dict(zip(signs.tolist(), numbers.tolist(), strict=True)))
        longer, shorter = counts[1], counts[-1]
        too_many = longer - share_of(share / (1 - share), shorter)
        if too_many <= 0:
            return

        def margins(shard: int) -> Hashes:
            return self._longer(shard)[1]

        limit = self._nth(margins, too_many - 1)

        def fingerprints(shard: int) -> Hashes:
            _, at, marks = self._longer(shard)
            return np.asarray(marks[at == limit], dtype=np.uint64)

        below = sum(int((margins(shard) < limit).sum()) for shard in self._shards())
        last = self._nth(fingerprints, too_many - below - 1)
        left = too_many - below - sum(int((fingerprints(shard) < last).sum()) for shard in self._shards())
        for shard in self._shards():
            places, at, marks = self._longer(shard)
            is_out = (at < limit) | ((at == limit) & (marks < last))
            equal = np.flatnonzero((at == limit) & (marks == last))[:left]
            left -= len(equal)
            is_out[equal] = True
            self._verdicts[places[is_out]] = _LONGER

    def _longer(self, shard: int) -> tuple[Ints, Hashes, Hashes]:
        """Places, margins as numbers and fingerprints of the pairs whose chosen text is the longer one."""
        places, margins, marks, longer = self._read(shard, "margins", "fingerprints", "longer")
        is_longer = longer.astype(np.int8) > 0
        return places[is_longer], margins.view(np.uint64)[is_longer], marks[is_longer]

    def _drop_duplicates(self) -> None:
        def facts(shard: int) -> Sequence[Any]:
            places, high, low = self._read(shard, "exact_high", "exact_low")
            return places, high, low

        for places, high, low in self._in_buckets(facts):
            order = np.lexsort((places, low, high))
            is_repeated = np.zeros(len(places), dtype=bool)
            is_repeated[order[1:]] = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
            self._verdicts[places[is_repeated]] = _DUPLICATE

    def _draw(self, count: int, seed: int) -> None:
        total = int((self._verdicts == 0).sum())
        if total <= count:
            return
        drawn = np.array(sample(range(total), count, seed), dtype=np.int64)
        before = 0
        for shard in self._shards():
            (places,) = self._read(shard)
            inside = drawn[np.searchsorted(drawn, before) : np.searchsorted(drawn, before + len(places))] - before
            before += len(places)
            self._verdicts[np.delete(places, inside)] = _NOT_DRAWN

    def _nth(self, values: Callable[[int], Hashes], place: int) -> np.uint64:
        """The value at this place, from 0, if all of them were sorted: 16 bits at a time, the highest first."""
        found, known = np.uint64(0), 0
        while known < 64:
            shift = np.uint64(64 - known - _DIGITS)
            counts = np.zeros(1 << _DIGITS, dtype=np.int64)
            for shard in self._shards():
                some = values(shard)
                if known:
                    some = some[(some >> np.uint64(64 - known)) == (found >> np.uint64(64 - known))]
                digits = (some >> shift) & np.uint64((1 << _DIGITS) - 1)
                counts += np.bincount(digits.astype(np.int64), minlength=1 << _DIGITS)
            ends = np.cumsum(counts)
            digit = int(np.searchsorted(ends, place, side="right"))
            place -= int(ends[digit - 1]) if digit else 0
            found |= np.uint64(digit) << shift
            known += _DIGITS
        return found


def _distinct_pairs(chosen: Hashes, prompts: Hashes) -> Hashes:
    """The text of each distinct (text, prompt)."""
    order = np.lexsort((prompts, chosen))
    texts, asked = chosen[order], prompts[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (texts[1:] != texts[:-1]) | (asked[1:] != asked[:-1])
    return texts[is_first]

"""What the whole run has to know of each pair, some 8 to 56 bytes, in files of a shard's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from nat_dpo_pipeline.core.messages import exact_key, prompt_key
from nat_dpo_pipeline.core.selection import SelectionRules, fingerprint
from nat_dpo_pipeline.core.split import rank
from nat_dpo_pipeline.dataset.formats.rows import facts_of
from nat_dpo_pipeline.pairing.encoding import Block
from nat_dpo_pipeline.records.columns import Ints, Objects
from nat_dpo_pipeline.records.hashing import Hashes, digest, hashes, mixed
from nat_dpo_pipeline.records.places import Place

Array = Ints | Hashes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which facts are needed."""

    margins: bool
    texts: bool
    lengths: bool
    exact: bool
    sides: bool = False
    strata: bool = False

    @classmethod
    def of(cls, rules: SelectionRules, *, deduplicate: bool, sides: bool = False, strata: bool = False) -> "Wanted":
        return cls(
            margins=rules.min_margin_quantile is not None or rules.length_balance is not None,
            texts=rules.drop_contradictions or rules.max_prompts_per_chosen is not None,
            lengths=rules.length_balance is not None,
            exact=deduplicate,
            sides=sides,
            strata=strata,
        )


class Facts:
    """The facts of a shard's pairs, in their order."""

    def __init__(self, wanted: Wanted, seed: int) -> None:
        self._wanted = wanted
        self._seed = seed
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, block: Block) -> None:
        """Take the pairs of some turns."""
        if self._wanted.sides and len(block):
            self._add_sides(block)
        if not len(block.pairs):
            return
        if self._wanted.margins:
            self._put("margins", block.pairs.margin)
        if self._wanted.texts:
            self._add_texts(block)
        if self._wanted.lengths:
            self._add_lengths(block)
        if self._wanted.exact:
            self._add_exact(block)

    def _put(self, name: str, values: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(values)

    def _add_texts(self, block: Block) -> None:
        responses = block.turns.columns.response
        rows = np.unique(np.concatenate((block.pairs.chosen, block.pairs.rejected)))
        texts = hashes(text.strip() for text in responses[rows])
        turns, prompts = block.prompts()
        keys = hashes(map(prompt_key, prompts))
        self._put("prompts", keys[np.searchsorted(turns, block.pairs.turn)])
        self._put("chosen", texts[np.searchsorted(rows, block.pairs.chosen)])
        self._put("rejected", texts[np.searchsorted(rows, block.pairs.rejected)])

    def _add_lengths(self, block: Block) -> None:
        columns, pairs = block.turns.columns, block.pairs
        lengths = np.fromiter(map(len, columns.response), np.int64, len(columns))
        self._put("longer", np.sign(lengths[pairs.chosen] - lengths[pairs.rejected]).astype(np.int8))
        turns, prompts = block.prompts()
        keys = dict(zip(turns.tolist(), map(prompt_key, prompts), strict=True))
        texts = zip(
            (keys[turn] for turn in pairs.turn.tolist()),
            columns.response[pairs.chosen],
            columns.response[pairs.rejected],
            strict=True,
        )
        self._put("fingerprints", np.fromiter((fingerprint(*three) for three in texts), np.uint64, len(pairs)))

    def _add_exact(self, block: Block) -> None:
        columns, pairs = block.turns.columns, block.pairs
        rows = np.unique(np.concatenate((pairs.chosen, pairs.rejected)))
        turns, prompts = block.prompts()
        asked = _halves([exact_key(prompt) for prompt in prompts])
        answers = _halves(columns.response[rows])
        places = (
            np.searchsorted(turns, pairs.turn),
            *(np.searchsorted(rows, one) for one in (pairs.chosen, pairs.rejected)),
        )
        for name, prompt, answer in zip(("exact_high", "exact_low"), asked, answers, strict=True):
            self._put(name, mixed(prompt[places[0]], answer[places[1]], answer[places[2]]))

    def _add_sides(self, block: Block) -> None:
        """What the split is made by: a prompt's rank, and that of its subtopic."""
        turns, prompts = block.prompts()
        ranks = np.fromiter((rank(prompt_key(one), self._seed) for one in prompts), np.uint64, len(turns))
        strata = np.zeros(len(turns), dtype=np.uint64)
        if self._wanted.strata:
            candidates = map(block.turns.columns.candidate, block.first_rows[turns].tolist())
            topics = (facts_of(one.metadata).subtopic or "" for one in candidates)
            strata = np.fromiter((rank(one, self._seed) for one in topics), np.uint64, len(turns))
        for suffix, of_rows in (("", block.pairs.turn), ("_of_singles", block.turns_of_singles)):
            places = np.searchsorted(turns, of_rows)
            self._put(f"ranks{suffix}", ranks[places])
            self._put(f"strata{suffix}", strata[places])

    def write(self, folder: Place, shard: int) -> None:
        """One file a fact."""
        for name, parts in self._parts.items():
            buffer = BytesIO()
            np.save(buffer, np.concatenate(parts))
            (folder / fact_name(shard, name)).write(buffer.getvalue())


def _halves(texts: Sequence[str] | Objects) -> tuple[Hashes, Hashes]:
    both = np.frombuffer(b"".join(map(digest, texts)), dtype="<u8").astype(np.uint64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def fact_name(shard: int, name: str) -> str:
    """The file of one fact of one shard."""
    return f"{shard:05}-{name}.npy"

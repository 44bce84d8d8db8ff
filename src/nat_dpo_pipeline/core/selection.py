"""Which pairs of a whole run are kept: what can be said only when all of them are known."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.messages import Prompt, prompt_key
from nat_dpo_pipeline.core.pairs import PreferencePair, SkipReason


@dataclass(frozen=True, slots=True)
class SelectionRules:
    """What is left out of a run's pairs, in this order, each looking at what those before it left.

    - `evaluation`: prompts that overlap with it;
    - `drop_contradictions`: A over B and B over A for one prompt (white space folded): both;
    - `max_prompts_per_chosen`: a text chosen for more different prompts than this, for all of them;
    - `min_margin_quantile`: margins below this quantile; never more than that share of the pairs;
    - `length_balance`: pairs whose chosen text is the longer one, smallest margins first, until they are no more than
      this share of the pairs of unequal length.

    None of it depends on the order of the pairs. Raises ValueError on what no run could meet.
    """

    evaluation: EvaluationSet | None = None
    drop_contradictions: bool = False
    max_prompts_per_chosen: int | None = None
    min_margin_quantile: float | None = None
    length_balance: float | None = None

    def __post_init__(self) -> None:
        if self.max_prompts_per_chosen is not None and self.max_prompts_per_chosen < 1:
            raise ValueError(f"max_prompts_per_chosen must be at least 1, got {self.max_prompts_per_chosen!r}")
        for name in ("min_margin_quantile", "length_balance"):
            if (share := getattr(self, name)) is not None and not 0.0 < share < 1.0:
                raise ValueError(f"{name} must be above 0 and below 1, got {share!r}")

    @property
    def is_empty(self) -> bool:
        """Whether every pair is kept, so that there is nothing to find out."""
        return self == SelectionRules()


class Selection:
    """The verdict on every pair of a run, one byte each; the pairs themselves are not held."""

    def __init__(self, verdicts: bytes) -> None:
        self._verdicts = verdicts

    @classmethod
    def of(cls, rules: SelectionRules, pairs: Iterable[PreferencePair]) -> "Selection":
        """Read all pairs once and decide on each; they are named by their order from then on."""
        facts = _Facts.of(rules, pairs)
        for reason, left_out in _STEPS:
            for place in list(left_out(facts, rules)):
                facts.verdicts[place] = _REASONS.index(reason)
        return cls(bytes(facts.verdicts))

    @property
    def skipped(self) -> Counter[SkipReason]:
        """How many pairs are left out, by reason."""
        return Counter(reason for reason in self.reasons() if reason is not None)

    def reasons(self) -> Iterator[SkipReason | None]:
        """For each pair, in order, why it is left out; None for one that is kept."""
        return (_REASONS[verdict] for verdict in self._verdicts)

    def kept(self, pairs: Iterable[PreferencePair]) -> Iterator[PreferencePair]:
        """Those of the same pairs, in the same order, that are kept. Raises ValueError when they are more or fewer."""
        return (pair for pair, verdict in zip(pairs, self._verdicts, strict=True) if not verdict)


@dataclass(slots=True)
class _Facts:
    """What the steps need to know of each pair: some 40 bytes, of texts only their hashes."""

    margins: "array[float]" = field(default_factory=lambda: array("d"))
    prompts: "array[int]" = field(default_factory=lambda: array("q"))
    chosen: "array[int]" = field(default_factory=lambda: array("q"))
    rejected: "array[int]" = field(default_factory=lambda: array("q"))
    longer: "array[int]" = field(default_factory=lambda: array("b"))
    fingerprints: "array[int]" = field(default_factory=lambda: array("Q"))
    contaminated: bytearray = field(default_factory=bytearray)
    verdicts: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, rules: SelectionRules, pairs: Iterable[PreferencePair]) -> "_Facts":
        facts = cls()
        asked: Prompt | None = None
        key, is_contaminated = "", False
        for pair in pairs:
            prompt = pair.chosen.prompt
            # The pairs of a turn follow one another and share its prompt.
            if prompt is not asked:
                asked, key = prompt, prompt_key(prompt)
                is_contaminated = rules.evaluation is not None and rules.evaluation.overlaps(prompt)
            facts._add(pair, key, is_contaminated, with_fingerprint=rules.length_balance is not None)
        facts.verdicts = bytearray(len(facts.margins))
        return facts

    def _add(self, pair: PreferencePair, key: str, is_contaminated: bool, *, with_fingerprint: bool) -> None:
        better, worse = pair.chosen.response, pair.rejected.response
        self.margins.append(pair.margin)
        self.prompts.append(hash(key))
        self.chosen.append(hash(better.strip()))
        self.rejected.append(hash(worse.strip()))
        self.longer.append((len(better) > len(worse)) - (len(better) < len(worse)))
        self.contaminated.append(is_contaminated)
        if with_fingerprint:
            self.fingerprints.append(fingerprint(key, better, worse))

    def left(self) -> Iterator[int]:
        """The places of the pairs that no step has left out so far."""
        return (place for place, verdict in enumerate(self.verdicts) if not verdict)


def fingerprint(*texts: str) -> int:
    """The same in every process, which `hash` is not: it orders pairs of equal margin."""
    return int.from_bytes(blake2b(repr(texts).encode(), digest_size=8).digest())


def _contaminated(facts: _Facts, _rules: SelectionRules) -> Iterable[int]:
    return (place for place in facts.left() if facts.contaminated[place])


def _contradictions(facts: _Facts, rules: SelectionRules) -> Iterable[int]:
    if not rules.drop_contradictions:
        return
    made = {hash((facts.prompts[one], facts.chosen[one], facts.rejected[one])) for one in facts.left()}
    for place in facts.left():
        if hash((facts.prompts[place], facts.rejected[place], facts.chosen[place])) in made:
            yield place


def _chosen_too_often(facts: _Facts, rules: SelectionRules) -> Iterable[int]:
    most = rules.max_prompts_per_chosen
    if most is None:
        return
    prompts: dict[int, set[int]] = {}
    for place in facts.left():
        known = prompts.setdefault(facts.chosen[place], set())
        if len(known) <= most:
            known.add(facts.prompts[place])
    yield from (place for place in facts.left() if len(prompts[facts.chosen[place]]) > most)


def _small_margins(facts: _Facts, rules: SelectionRules) -> Iterable[int]:
    share = rules.min_margin_quantile
    margins = sorted(facts.margins[place] for place in facts.left())
    if share is None or not margins:
        return
    least = margins[share_of(share, len(margins))]
    yield from (place for place in facts.left() if facts.margins[place] < least)


def _longer_ones(facts: _Facts, rules: SelectionRules) -> Iterable[int]:
    share = rules.length_balance
    if share is None:
        return
    longer = [place for place in facts.left() if facts.longer[place] > 0]
    shorter = sum(facts.longer[place] < 0 for place in facts.left())
    too_many = len(longer) - share_of(share / (1 - share), shorter)
    longer.sort(key=lambda place: (facts.margins[place], facts.fingerprints[place]))
    yield from longer[: max(too_many, 0)]


def share_of(share: float, number: int) -> int:
    # 0.29 * 100 is a little less than 29.
    return int(share * number + 1e-9)


_STEPS = (
    (SkipReason.CONTAMINATED, _contaminated),
    (SkipReason.CONTRADICTION, _contradictions),
    (SkipReason.OVER_MAX_PROMPTS_PER_CHOSEN, _chosen_too_often),
    (SkipReason.BELOW_MIN_MARGIN_QUANTILE, _small_margins),
    (SkipReason.LENGTH_BALANCE, _longer_ones),
)
_REASONS: tuple[SkipReason | None, ...] = (None, *(reason for reason, _ in _STEPS))

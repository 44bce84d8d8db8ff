"""Whether a training taught the preference: figures before and after, and the sentence about them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import comb
from statistics import fmean

_SIGNIFICANT = 0.05
_MEMORISED = 0.75
_ONE_SIDED = 0.8
_ENOUGH_TO_TELL = 5


@dataclass(frozen=True, slots=True)
class PairScore:
    """What a model says of a pair: log p(chosen) - log p(rejected), each summed over the answer's tokens, in nats."""

    prompt: str
    margin: float
    chosen_is_longer: bool
    has_call: bool = False

    @property
    def is_right(self) -> bool:
        return self.margin > 0


@dataclass(frozen=True, slots=True)
class Preference:
    """What a model prefers among pairs: the share of pairs with chosen above rejected, and the mean margin."""

    pairs: int
    prompts: int
    accuracy: float
    margin: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a training. `before` and `after` score the same held-out pairs, in the same order.

    `training_accuracy` is what TRL logged last: the share of training pairs whose margin grew. `chosen_longer` is the
    share of training pairs whose chosen answer has more tokens than the rejected one.
    """

    before: Sequence[PairScore]
    after: Sequence[PairScore]
    training_accuracy: float | None
    chosen_longer: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`learned` is None where the pairs cannot tell."""

    learned: bool | None
    sentence: str


def preference(scores: Sequence[PairScore]) -> Preference | None:
    """None without a pair."""
    if not scores:
        return None
    return Preference(
        pairs=len(scores),
        prompts=len({score.prompt for score in scores}),
        accuracy=fmean(score.is_right for score in scores),
        margin=fmean(score.margin for score in scores),
    )


def figures(evidence: Evidence) -> dict[str, float]:
    """Everything measured, by name; what was not measured is left out."""
    before, after = preference(evidence.before), preference(evidence.after)
    found: dict[str, float | None] = {"training_accuracy": evidence.training_accuracy}
    found["training_chosen_longer"] = evidence.chosen_longer
    if before and after:
        found |= {f"held_out_{name}_before": value for name, value in asdict(before).items() if name in _MEASURES}
        found |= {f"held_out_{name}_after": value for name, value in asdict(after).items() if name in _MEASURES}
        found |= {"held_out_pairs": before.pairs, "held_out_prompts": before.prompts}
        found["held_out_margin_grew"] = fmean(
            new.margin > old.margin for old, new in zip(evidence.before, evidence.after, strict=True)
        )
        found["held_out_accuracy_where_chosen_is_not_longer"] = _accuracy_where_shorter(evidence)
        found |= _apart(evidence)
    return {name: value for name, value in found.items() if value is not None}


def _apart(evidence: Evidence) -> dict[str, float]:
    """Return the accuracy on pairs with tool calls and on texts, where there are both."""
    found = {}
    for name, scores in (("before", evidence.before), ("after", evidence.after)):
        for kind, has_call in (("calls", True), ("texts", False)):
            of_kind = preference([score for score in scores if score.has_call is has_call])
            if of_kind is not None:
                found[f"held_out_accuracy_on_{kind}_{name}"] = of_kind.accuracy
    return found if len(found) == _KINDS_TIMES_TWO else {}


_KINDS_TIMES_TWO = 4
_MEASURES = ("accuracy", "margin")


def verdict(evidence: Evidence) -> Verdict:
    """Learned: held-out prompts that came out better outnumber those that came out worse, by more than chance (sign
    test over prompts, 5 %), and the mean margin grew."""
    before, after = preference(evidence.before), preference(evidence.after)
    if before is None or after is None:
        return Verdict(None, "not known whether it learned: no pair was held out")
    told = (
        f"held-out preference accuracy {before.accuracy:.2f} → {after.accuracy:.2f} on {before.pairs} pairs of "
        f"{before.prompts} prompts, mean margin {before.margin:.2f} → {after.margin:.2f}"
    )
    better, worse = _changed_prompts(evidence)
    if _chance(better, worse) <= _SIGNIFICANT and after.margin > before.margin:
        return Verdict(True, f"learned: {told}{_length_caution(evidence)}")
    if before.accuracy == after.accuracy == 1.0:
        return Verdict(None, f"cannot tell: {told}; the model preferred every chosen answer before")
    if better > worse and after.margin > before.margin:
        return Verdict(None, f"cannot tell: {told}; {better} prompts better, {worse} worse may be chance")
    return Verdict(False, f"did not learn: {told}{_memorised(evidence)}")


def _changed_prompts(evidence: Evidence) -> tuple[int, int]:
    changes: dict[str, list[int]] = defaultdict(list)
    for old, new in zip(evidence.before, evidence.after, strict=True):
        changes[old.prompt].append(new.is_right - old.is_right)
    totals = [sum(one) for one in changes.values()]
    return sum(total > 0 for total in totals), sum(total < 0 for total in totals)


def _chance(better: int, worse: int) -> float:
    """How likely so many or more are better when each way is as likely as the other."""
    count = better + worse
    return sum(comb(count, more) for more in range(better, count + 1)) / (1 << count)


def _memorised(evidence: Evidence) -> str:
    accuracy = evidence.training_accuracy
    if accuracy is None or accuracy < _MEMORISED:
        return ""
    return f"; on the training pairs {accuracy:.2f} went the right way, so it memorised them"


def _length_caution(evidence: Evidence) -> str:
    if evidence.chosen_longer < _ONE_SIDED:
        return ""
    share = f"; caution: chosen is the longer answer in {evidence.chosen_longer:.0%} of the training pairs"
    shorter = _accuracy_where_shorter(evidence)
    if shorter is None:
        return f"{share}, and too few held-out pairs are otherwise to rule out that it learned length"
    return f"{share}; where it is not, held-out accuracy is {shorter:.2f}"


def _accuracy_where_shorter(evidence: Evidence) -> float | None:
    shorter = [score.is_right for score in evidence.after if not score.chosen_is_longer]
    return fmean(shorter) if len(shorter) >= _ENOUGH_TO_TELL else None


def share(values: Iterable[bool]) -> float:
    """The share that is true; 0 of nothing."""
    found = list(values)
    return fmean(found) if found else 0.0

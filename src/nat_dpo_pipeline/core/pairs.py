"""From the candidates of a turn to preference pairs, with every pair that was not made counted under a reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import combinations
from math import inf, isfinite
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import NamedTuple

from nat_dpo_pipeline.core import filters
from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.strategies import CutAt, Ranked, Strategy, Thoughts, propose, rank
from nat_dpo_pipeline.core.ties import ROUNDING, is_higher

_score = attrgetter("score")
_margin_of = itemgetter(0)
_Proposal = tuple[float, Candidate, Candidate]


class SkipReason(StrEnum):
    """Why two candidates of one turn are not a pair; the last ones are found over a whole run (core.selection)."""

    TIE = "tie"
    IDENTICAL_TEXT = "identical_text"
    BELOW_MIN_SCORE_DIFF = "below_min_score_diff"
    SCORE_DIFF_NOT_FINITE = "score_diff_not_finite"
    NOT_BEST_VS_WORST = "not_best_vs_worst"
    OVER_MAX_PAIRS_PER_TURN = "over_max_pairs_per_turn"
    NOT_BEST_VS_SECOND = "not_best_vs_second"
    NOT_BEST_VS_RANDOM = "not_best_vs_random"
    NOT_ADJACENT = "not_adjacent"
    NOT_MEAN_MINUS_2_SIGMA = "not_mean_minus_2_sigma"
    BLANK = "blank"
    FLAWED = "flawed"
    BELOW_MIN_BEST_SCORE = "below_min_best_score"
    TURNED_BY_LENGTH_PENALTY = "turned_by_length_penalty"
    OVER_MAX_SCORE_DIFF = "over_max_score_diff"
    BELOW_MIN_CHOSEN_SCORE = "below_min_chosen_score"
    BELOW_MIN_REJECTED_SCORE = "below_min_rejected_score"
    BELOW_MIN_REJECTED_LENGTH = "below_min_rejected_length"
    OVER_MAX_LENGTH_RATIO = "over_max_length_ratio"
    NO_MEMBER_SCORES = "no_member_scores"
    BELOW_MIN_AGREEMENT = "below_min_agreement"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"
    CONTRADICTION = "contradiction"
    OVER_MAX_PROMPTS_PER_CHOSEN = "over_max_prompts_per_chosen"
    BELOW_MIN_ROLLOUTS = "below_min_rollouts"
    BELOW_MIN_MARGIN_QUANTILE = "below_min_margin_quantile"
    LENGTH_BALANCE = "length_balance"


PASSED_OVER: Mapping[Strategy, SkipReason] = MappingProxyType(
    {
        Strategy.BEST_VS_WORST: SkipReason.NOT_BEST_VS_WORST,
        Strategy.BEST_VS_SECOND: SkipReason.NOT_BEST_VS_SECOND,
        Strategy.BEST_VS_RANDOM: SkipReason.NOT_BEST_VS_RANDOM,
        Strategy.ADJACENT: SkipReason.NOT_ADJACENT,
        Strategy.MEAN_MINUS_2_SIGMA: SkipReason.NOT_MEAN_MINUS_2_SIGMA,
    }
)
_Fails = Callable[[Candidate, Candidate], bool]
_Check = tuple[SkipReason, _Fails]


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Which pairs are made of a turn. Raises ValueError on a bound that no pair could meet.

    All bounds are on the recorded scores, the margin too. `length_penalty` (per 1,000 characters) only ranks: a pair
    has a chosen response that is the better one with the penalty and without. A `strategy` takes the place of
    `exhaustive_pairs`. `at` and `min_rollouts` say where rollouts become turns (`core.branches`).
    """

    exhaustive_pairs: bool = True
    min_score_diff: float = 0.0
    max_pairs_per_turn: int | None = None
    strategy: Strategy | None = None
    seed: int = 0
    max_score_diff: float | None = None
    min_chosen_score: float | None = None
    min_best_score: float | None = None
    min_rejected_score: float | None = None
    min_rejected_length: int | None = None
    min_agreement: float | None = None
    max_length_ratio: float | None = None
    length_penalty: float = 0.0
    near_duplicate: float | None = None
    pair_flawed: bool = False
    at: CutAt | None = None
    min_rollouts: int = 1
    thoughts: Thoughts = Thoughts.KEEP
    #: The strategy, also where only `exhaustive_pairs` says it.
    applied_strategy: Strategy = field(init=False, repr=False, compare=False)
    checks: tuple[_Check, ...] = field(init=False, repr=False, compare=False)
    is_plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for refusal in _refusals(self):
            raise ValueError(refusal)
        checks = _checks_of(self)
        named = Strategy.EXHAUSTIVE if self.exhaustive_pairs else Strategy.BEST_VS_WORST
        named = named if self.strategy is None else Strategy(self.strategy)
        is_ranked_otherwise = self.length_penalty > 0.0 or self.min_best_score is not None
        object.__setattr__(self, "applied_strategy", named)
        object.__setattr__(self, "checks", checks)
        object.__setattr__(self, "is_plain", named in _PLAIN and not checks and not is_ranked_otherwise)


_PLAIN = (Strategy.EXHAUSTIVE, Strategy.BEST_VS_WORST)


def _refusals(rules: PairingRules) -> Iterator[str]:
    """What is impossible about the rules, in words."""
    for names, is_possible, wanted in _BOUNDS:
        for name in names:
            limit = getattr(rules, name)
            if limit is not None and not is_possible(limit):
                yield f"{name} must be {wanted}, got {limit!r}"
    if rules.max_score_diff is not None and rules.max_score_diff < rules.min_score_diff:
        yield f"max_score_diff is {rules.max_score_diff!r}, below min_score_diff, which is {rules.min_score_diff!r}"
    if not rules.exhaustive_pairs and rules.strategy not in (None, Strategy.BEST_VS_WORST):
        yield f"exhaustive_pairs: false is best_vs_worst, which contradicts the strategy {str(rules.strategy)!r}"


_BOUNDS: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (("min_score_diff",), lambda limit: 0.0 <= limit < inf, "finite and not negative"),
    (("max_score_diff",), lambda limit: 0.0 < limit < inf, "finite and above 0"),
    (("max_pairs_per_turn", "min_rollouts"), lambda limit: limit >= 1, "at least 1"),
    (("max_length_ratio", "min_rejected_length"), lambda limit: 1 <= limit < inf, "finite and at least 1"),
    (("min_chosen_score", "min_best_score", "min_rejected_score"), isfinite, "finite"),
    (("min_agreement", "near_duplicate"), lambda limit: 0.0 < limit <= 1.0, "above 0 and at most 1"),
    (("length_penalty",), lambda limit: 0.0 <= limit <= 1e6, "between 0 and 1e6"),
)


def _checks_of(rules: PairingRules) -> tuple[_Check, ...]:
    """What a pair must pass besides the checks that always apply; the dearest come last."""
    known: tuple[tuple[SkipReason, Callable[[float, Candidate, Candidate], bool], float | None], ...] = (
        (SkipReason.OVER_MAX_SCORE_DIFF, filters.is_over_max_score_diff, rules.max_score_diff),
        (SkipReason.BELOW_MIN_CHOSEN_SCORE, filters.is_below_min_chosen_score, rules.min_chosen_score),
        (SkipReason.BELOW_MIN_REJECTED_SCORE, filters.is_below_min_rejected_score, rules.min_rejected_score),
        (SkipReason.BELOW_MIN_REJECTED_LENGTH, filters.is_below_min_rejected_length, rules.min_rejected_length),
        (SkipReason.OVER_MAX_LENGTH_RATIO, filters.is_over_max_length_ratio, rules.max_length_ratio),
        (SkipReason.NO_MEMBER_SCORES, filters.lacks_member_scores, rules.min_agreement),
        (SkipReason.BELOW_MIN_AGREEMENT, filters.is_below_min_agreement, rules.min_agreement),
        (SkipReason.NEAR_DUPLICATE, filters.is_near_duplicate, rules.near_duplicate),
    )
    return tuple((reason, partial(fails, limit)) for reason, fails, limit in known if limit is not None)


class PreferencePair(NamedTuple):
    """Two candidates of one turn; `chosen` scored strictly higher. A tuple, as a turn of n makes up to n²/2 of them."""

    chosen: Candidate
    rejected: Candidate
    num_candidates: int

    @property
    def margin(self) -> float:
        return self.chosen.score - self.rejected.score


@dataclass(frozen=True, slots=True)
class PairingResult:
    """Pairs in the order of their turns, largest margin first within a turn.

    `len(pairs) + skipped.total()` is the number of pairs of candidates that share a turn.
    """

    pairs: list[PreferencePair] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)


def possible_pairs(turn: Turn) -> int:
    """How many unordered pairs the candidates of a turn form."""
    return len(turn.candidates) * (len(turn.candidates) - 1) // 2


def make_pairs(turns: Iterable[Turn], rules: PairingRules) -> PairingResult:
    """Pair the candidates of each turn.

    Scores that are equal but for rounding, blank texts and texts that differ in outer white space only never pair.
    """
    result = PairingResult()
    for turn in turns:
        result.pairs.extend(pair_turn(turn, rules, result.skipped))
    return result


def pair_turn(turn: Turn, rules: PairingRules, skipped: Counter[SkipReason]) -> list[PreferencePair]:
    """The pairs of one turn, largest margin first; what is left out is counted in `skipped`."""
    size = len(turn.candidates)
    texts = {candidate.response.strip() for candidate in turn.candidates}
    candidates = turn.candidates
    if "" in texts or (not rules.pair_flawed and _are_marked(candidates)):
        candidates = _usable(candidates, rules, skipped)
    if rules.is_plain:
        accepted = _acceptable(candidates, rules, skipped, has_twins=len(texts) < size)
    else:
        accepted = _checked(candidates, rules, skipped)
    return [PreferencePair(chosen, rejected, size) for _, chosen, rejected in _within_limit(accepted, rules, skipped)]


def _are_marked(candidates: Sequence[Candidate]) -> bool:
    for candidate in candidates:  # noqa: SIM110 - a generator in `any` takes longer, for every turn
        if "flaw" in candidate.metadata:
            return True
    return False


def _usable(candidates: Sequence[Candidate], rules: PairingRules, skipped: Counter[SkipReason]) -> Sequence[Candidate]:
    filled = [one for one in candidates if not filters.is_blank(one)]
    usable = filled if rules.pair_flawed else [one for one in filled if not filters.is_flawed(one)]
    _count(skipped, SkipReason.BLANK, _pairs_among(candidates) - _pairs_among(filled))
    _count(skipped, SkipReason.FLAWED, _pairs_among(filled) - _pairs_among(usable))
    return usable


def _acceptable(
    candidates: Sequence[Candidate], rules: PairingRules, skipped: Counter[SkipReason], *, has_twins: bool
) -> list[_Proposal]:
    """What most runs need, and fast: no more is asked than that the margin is large enough and the texts differ."""
    lowest = rules.min_score_diff
    accepted: list[_Proposal] = []
    for chosen, rejected in _proposed(candidates, rules, skipped):
        margin = chosen.score - rejected.score
        # `is_higher`, written out: a call would take as long as all the rest.
        is_apart = lowest <= margin < inf and margin > ROUNDING * abs(chosen.score)
        if is_apart and not (has_twins and _same_text(chosen, rejected)):
            accepted.append((margin, chosen, rejected))
        else:
            skipped[_reason(margin, chosen, rejected)] += 1
    return accepted


def _proposed(
    candidates: Sequence[Candidate], rules: PairingRules, skipped: Counter[SkipReason]
) -> Iterator[tuple[Candidate, Candidate]] | Sequence[tuple[Candidate, Candidate]]:
    # A stable sort: among equal scores the first to arrive is the best, the last to arrive the worst.
    ranked = sorted(candidates, key=_score, reverse=True)
    if rules.applied_strategy is Strategy.EXHAUSTIVE:
        return combinations(ranked, 2)
    if len(ranked) < 2:
        return ()
    if len(ranked) > 2:
        skipped[SkipReason.NOT_BEST_VS_WORST] += _pairs_among(ranked) - 1
    return ((ranked[0], ranked[-1]),)


def _checked(candidates: Sequence[Candidate], rules: PairingRules, skipped: Counter[SkipReason]) -> list[_Proposal]:
    possible = _pairs_among(candidates)
    if rules.min_best_score is not None and all(one.score < rules.min_best_score for one in candidates):
        _count(skipped, SkipReason.BELOW_MIN_BEST_SCORE, possible)
        return []
    strategy = rules.applied_strategy
    proposals = propose(strategy, rank(candidates, rules.length_penalty), rules.seed)
    if possible > len(proposals):
        skipped[PASSED_OVER[strategy]] += possible - len(proposals)
    accepted: list[_Proposal] = []
    for better, worse in proposals:
        reason = _objection(better, worse, rules)
        if reason is None:
            chosen, rejected = better.candidate, worse.candidate
            accepted.append((chosen.score - rejected.score, chosen, rejected))
        else:
            skipped[reason] += 1
    return accepted


def _objection(better: Ranked, worse: Ranked, rules: PairingRules) -> SkipReason | None:
    chosen, rejected = better.candidate, worse.candidate
    margin = chosen.score - rejected.score
    if _same_text(chosen, rejected):
        return SkipReason.IDENTICAL_TEXT
    if not is_higher(better.value, worse.value):
        return SkipReason.TIE
    if is_higher(rejected.score, chosen.score):
        return SkipReason.TURNED_BY_LENGTH_PENALTY
    if not (rules.min_score_diff <= margin < inf and is_higher(chosen.score, rejected.score)):
        return _reason(margin, chosen, rejected)
    return next((reason for reason, fails in rules.checks if fails(chosen, rejected)), None)


def _count(skipped: Counter[SkipReason], reason: SkipReason, number: int) -> None:
    if number:
        skipped[reason] += number


def _pairs_among(candidates: Sequence[Candidate]) -> int:
    return len(candidates) * (len(candidates) - 1) // 2


def _same_text(chosen: Candidate, rejected: Candidate) -> bool:
    return chosen.response.strip() == rejected.response.strip()


def _reason(margin: float, chosen: Candidate, rejected: Candidate) -> SkipReason:
    if _same_text(chosen, rejected):
        return SkipReason.IDENTICAL_TEXT
    if not is_higher(chosen.score, rejected.score):
        return SkipReason.TIE
    return SkipReason.SCORE_DIFF_NOT_FINITE if margin == inf else SkipReason.BELOW_MIN_SCORE_DIFF


def _within_limit(proposals: list[_Proposal], rules: PairingRules, skipped: Counter[SkipReason]) -> list[_Proposal]:
    proposals.sort(key=_margin_of, reverse=True)
    limit = rules.max_pairs_per_turn
    if limit is None or len(proposals) <= limit:
        return proposals
    skipped[SkipReason.OVER_MAX_PAIRS_PER_TURN] += len(proposals) - limit
    return proposals[:limit]

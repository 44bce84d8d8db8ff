"""What in the numbers is known to spoil a training, in words: the number, what it means, and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from nat_dpo_pipeline.generation.turns import Flaw
from nat_dpo_pipeline.generation.watching import FIRST_SCORES
from nat_dpo_pipeline.report.numbers import Numbers

LONGER_CHOSEN = 0.65
SAME_WINNER_SHARE = 0.01
SAME_WINNER_PROMPTS = 3
UNDER_MEDIAN = 0.5
TINY_MARGINS = 0.25
ALWAYS_WINS = 0.95
VALIDATION_PROMPTS = 30
FLAWED = 0.05
TIED = 0.2
AGREED = 0.7
# A share of fewer says nothing.
_ENOUGH = 20


class DangerKind(StrEnum):
    """What a warning is about."""

    UNFINISHED = "unfinished"
    UNREADABLE = "unreadable"
    NO_PAIRS = "no_pairs"
    LENGTH_BIAS = "length_bias"
    SAME_WINNER = "same_winner"
    SMALL_MARGINS = "small_margins"
    TINY_MARGINS = "tiny_margins"
    ONE_MODEL_WINS = "one_model_wins"
    FEW_PROMPTS = "few_prompts"
    FLAWED_RESPONSES = "flawed_responses"
    MANY_TIES = "many_ties"
    ONE_SCORE = "one_score"
    DISAGREEMENT = "disagreement"


@dataclass(frozen=True, slots=True)
class Danger:
    """One warning: what was seen, with the number, why that matters, and what to do."""

    kind: DangerKind
    title: str
    seen: str
    why: str
    advice: str

    def to_json(self) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(self).items()}


def dangers_in(numbers: Numbers) -> list[Danger]:
    """The warnings that the numbers give reason for."""
    return [danger for check in _CHECKS for danger in check(numbers)]


def _unfinished(numbers: Numbers) -> Iterator[Danger]:
    if numbers.run.status not in ("complete", "empty"):
        message = f" ({numbers.run.message})" if numbers.run.message else ""
        yield Danger(
            DangerKind.UNFINISHED,
            "The run did not finish",
            f"Its manifest says: {numbers.run.status}{message}.",
            "What is shown here is what was there by then.",
            "Start the same command again; nothing that was answered is paid for twice.",
        )


def _unreadable(numbers: Numbers) -> Iterator[Danger]:
    if count := numbers.flow.unreadable_rows:
        yield Danger(
            DangerKind.UNREADABLE,
            "Some rows cannot be read",
            f"{_count(count, 'row')} of the run's candidates {'is' if count == 1 else 'are'} damaged and left out.",
            "The file was changed or cut off after the run.",
            "Start the same command again: it writes the file anew from the journal.",
        )


def _no_pairs(numbers: Numbers) -> Iterator[Danger]:
    if not numbers.flow.pairs:
        yield Danger(
            DangerKind.NO_PAIRS,
            "There are no pairs",
            f"None of {_count(numbers.flow.possible_pairs, 'possible pair')} was kept.",
            "There is nothing to train on.",
            "Look at the reasons under “From responses to pairs” and loosen the rule that takes the most.",
        )


def _length_bias(numbers: Numbers) -> Iterator[Danger]:
    lengths, pairs = numbers.lengths, numbers.flow.pairs
    if pairs >= _ENOUGH and lengths.share_longer > LONGER_CHOSEN:
        yield Danger(
            DangerKind.LENGTH_BIAS,
            "The longer answer mostly wins",
            f"The chosen answer is the longer one in {_percent(lengths.share_longer)} of the pairs "
            f"({lengths.longer:,} of {pairs:,}), at the median {lengths.median_ratio:.1f} times as long.",
            "A model trained on this learns to write more before it learns to write better.",
            "Set length_balance, max_length_ratio or length_penalty in the trajectory builder, or train with length "
            "normalisation.",
        )


def _same_winner(numbers: Numbers) -> Iterator[Danger]:
    winner, prompts = numbers.duplicates.most_wins, numbers.flow.prompts_with_pairs
    if winner and winner.won >= max(SAME_WINNER_PROMPTS, SAME_WINNER_SHARE * prompts):
        yield Danger(
            DangerKind.SAME_WINNER,
            "One text wins for different prompts",
            f"It is chosen for {winner.won:,} of {_count(prompts, 'prompt')}: “{winner.excerpt}”",
            "An answer that fits everything answers nothing; reward models are known to fall for such texts.",
            "Read it under “The same text for several prompts”; max_prompts_per_chosen leaves such texts out.",
        )


def _small_margins(numbers: Numbers) -> Iterator[Danger]:
    margins = numbers.margins
    if numbers.flow.pairs >= _ENOUGH and margins.under_median > UNDER_MEDIAN:
        yield Danger(
            DangerKind.SMALL_MARGINS,
            "Most margins are small for this run",
            f"{_percent(margins.under_median)} of the pairs lie under {margins.median_of_all:.3g}, the median of all "
            "margins between two candidates of a turn.",
            "Below its own median a reward model is right about as often as a coin.",
            "Raise min_score_diff or set min_margin_quantile to 0.5.",
        )


def _tiny_margins(numbers: Numbers) -> Iterator[Danger]:
    tiny = numbers.margins.tiny
    if numbers.flow.pairs >= _ENOUGH and tiny > TINY_MARGINS:
        yield Danger(
            DangerKind.TINY_MARGINS,
            "Many pairs are nearly ties",
            f"In {_percent(tiny)} of the pairs the margin is less than a tenth of the distance between the best and "
            "the worst answer to the prompt.",
            "Such pairs say at random which of two equals is better.",
            "Raise min_score_diff, or set strategy to best_vs_worst.",
        )


def _one_model_wins(numbers: Numbers) -> Iterator[Danger]:
    for model in numbers.models:
        if (model.win_rate or 0.0) >= ALWAYS_WINS and model.comparisons >= _ENOUGH:
            yield Danger(
                DangerKind.ONE_MODEL_WINS,
                f"{model.name} nearly always wins",
                f"It wins {_percent(model.win_rate or 0.0)} of {model.comparisons:,} comparisons with other models.",
                "The pairs then teach how this model writes, which is easier to learn than what makes an answer good.",
                "Draw more responses from this model alone, or leave out the models that only lose.",
            )


def _few_prompts(numbers: Numbers) -> Iterator[Danger]:
    prompts = numbers.validation_prompts
    if prompts is not None and numbers.flow.pairs and prompts < VALIDATION_PROMPTS:
        yield Danger(
            DangerKind.FEW_PROMPTS,
            "Few prompts to validate on",
            f"About {prompts:,} of {_count(numbers.flow.prompts_with_pairs, 'prompt')} on the validation side, with "
            f"{_count(numbers.run.validation_pairs or 0, 'pair')}.",
            f"A measurement on fewer than {VALIDATION_PROMPTS} prompts moves by chance more than by training.",
            "Ask more questions, or raise validation_fraction.",
        )


def _flawed(numbers: Numbers) -> Iterator[Danger]:
    flaws = numbers.flaws
    if flaws.responses >= _ENOUGH and flaws.share > FLAWED:
        named = {Flaw.TRUNCATED: "cut off", Flaw.REFUSAL: "refused"}
        parts = ((named.get(Flaw(flaw), flaw.replace("_", " ")), count) for flaw, count in flaws.counts.items())
        yield Danger(
            DangerKind.FLAWED_RESPONSES,
            "Many responses are no whole answers",
            f"{_percent(flaws.share)} of {flaws.responses:,} responses: "
            f"{', '.join(f'{count:,} {name}' for name, count in parts)}.",
            "They cost money, and where they are kept they teach to stop early or to decline.",
            "Raise max_tokens for what is cut off or only thoughts; look at the others in failures.jsonl.",
        )


def _many_ties(numbers: Numbers) -> Iterator[Danger]:
    ties = numbers.ties
    if ties.comparisons >= _ENOUGH and ties.rate > TIED:
        yield Danger(
            DangerKind.MANY_TIES,
            "The scores often tie",
            f"{_percent(ties.rate)} of {ties.comparisons:,} comparisons between different texts end with equal scores.",
            "The scale is too coarse to tell the answers apart, so that much of what was generated makes no pair.",
            "Score with a reward model, with several judges, or by comparing answers in pairs.",
        )


def _one_score(numbers: Numbers) -> Iterator[Danger]:
    scores = numbers.scores.summaries["all"]
    if scores.count >= FIRST_SCORES and scores.minimum == scores.maximum:
        yield Danger(
            DangerKind.ONE_SCORE,
            "All responses have one score",
            f"Each of {scores.count:,} candidates has {scores.minimum:g}.",
            "Such scores tell nothing apart, so that no pair can be made of them.",
            "Check the scorer, its criteria and its scale, or compare answers in pairs.",
        )


def _disagreement(numbers: Numbers) -> Iterator[Danger]:
    agreement = numbers.agreement
    if agreement is not None and agreement.count >= _ENOUGH and agreement.mean < AGREED:
        yield Danger(
            DangerKind.DISAGREEMENT,
            "The scorers disagree",
            f"On average {_percent(agreement.mean)} of the scorers order two answers alike.",
            "Where reward models split they are right hardly more often than a coin.",
            "Set min_agreement, which keeps the pairs on which they agree.",
        )


_CHECKS: tuple[Callable[[Numbers], Iterator[Danger]], ...] = (
    _unfinished,
    _unreadable,
    _no_pairs,
    _length_bias,
    _same_winner,
    _small_margins,
    _tiny_margins,
    _one_model_wins,
    _few_prompts,
    _flawed,
    _many_ties,
    _one_score,
    _disagreement,
)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

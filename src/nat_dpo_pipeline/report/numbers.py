"""The numbers of a report: values only, the same in report.json, on the page and on the terminal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import sqrt

from nat_dpo_pipeline.report.run import RunFacts
from nat_dpo_pipeline.report.samples import Histogram, Summary


@dataclass(frozen=True, slots=True)
class Flow:
    """How much came as far as each stage, and what was lost on the way there, by reason."""

    responses: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    candidates: int = 0
    unreadable_rows: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    turns_with_one_candidate: int = 0
    possible_pairs: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    prompts: int = 0
    prompts_with_pairs: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A summary of each series, and their histogram over one set of edges."""

    summaries: dict[str, Summary]
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class Margins:
    """Of the pairs, beside those between any two candidates of a turn with different scores.

    `under_median` is the share of pairs under the median of all margins, `tiny` that under a tenth of the distance
    between the best and the worst candidate of their turn.
    """

    spread: Spread
    median_of_all: float
    under_median: float
    tiny: float


@dataclass(frozen=True, slots=True)
class LengthCell:
    """How many pairs have a chosen and a rejected response of about these many characters."""

    chosen_from: float
    chosen_to: float
    rejected_from: float
    rejected_to: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of chosen and rejected responses; `longer`, `same` and `shorter` speak of the chosen one."""

    chosen: Summary
    rejected: Summary
    longer: int
    same: int
    shorter: int
    median_ratio: float
    cells: tuple[LengthCell, ...] = ()

    @property
    def share_longer(self) -> float:
        return _share(self.longer, self.longer + self.same + self.shorter)


@dataclass(frozen=True, slots=True)
class ModelNumbers:
    """One model; compared with responses of other models to the same prompt, whether they became pairs or not."""

    name: str
    candidates: int
    mean_score: float
    chosen: int
    rejected: int
    wins: int
    ties: int
    losses: int
    flawed: int

    @property
    def comparisons(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def win_rate(self) -> float | None:
        """A tie is half a win; None where there was nobody to compare with."""
        return (self.wins + self.ties / 2) / self.comparisons if self.comparisons else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the win rate lies with 95 % confidence (Wilson, JASA 1927)."""
        rate = self.win_rate
        return None if rate is None else wilson(rate, self.comparisons)


@dataclass(frozen=True, slots=True)
class Versus:
    """How often one model scored higher than another on the same prompt."""

    model: str
    other: str
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True, slots=True)
class SubtopicNumbers:
    """What came of the questions about one subtopic."""

    name: str
    turns: int
    candidates: int
    pairs: int
    mean_score: float
    mean_margin: float
    share_longer: float


@dataclass(frozen=True, slots=True)
class TextGroup:
    """Responses to different prompts that say the same in the same words; `won` counts prompts where it is chosen."""

    excerpt: str
    responses: int
    prompts: int
    won: int


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Texts that stand under more than one prompt, the most frequent first; `groups` holds some of all `count`."""

    count: int = 0
    responses: int = 0
    groups: tuple[TextGroup, ...] = ()
    most_wins: TextGroup | None = None


@dataclass(frozen=True, slots=True)
class Ties:
    """Candidates of one turn with different texts and the same score."""

    ties: int = 0
    comparisons: int = 0
    identical_texts: int = 0

    @property
    def rate(self) -> float:
        return _share(self.ties, self.comparisons)


@dataclass(frozen=True, slots=True)
class Flaws:
    """Responses that are no whole answer, scored or not, by their flaws."""

    counts: Mapping[str, int] = field(default_factory=dict)
    responses: int = 0

    @property
    def share(self) -> float:
        return _share(sum(self.counts.values()), self.responses)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Everything that is counted in a run; `agreement` only where an ensemble scored."""

    run: RunFacts
    flow: Flow
    scores: Spread
    margins: Margins
    lengths: Lengths
    models: tuple[ModelNumbers, ...]
    versus: tuple[Versus, ...]
    subtopics: tuple[SubtopicNumbers, ...]
    duplicates: Duplicates
    ties: Ties
    flaws: Flaws
    agreement: Summary | None = None

    @property
    def validation_prompts(self) -> int | None:
        """About how many prompts the validation side has; None without a dataset."""
        train, validation = self.run.train_pairs, self.run.validation_pairs
        if train is None or validation is None:
            return None
        return round(self.flow.prompts_with_pairs * _share(validation, train + validation))

    def to_json(self) -> dict[str, object]:
        """All of it as JSON values, with what follows from it."""
        models = [{**asdict(one), "win_rate": one.win_rate, "win_rate_interval": one.interval} for one in self.models]
        return {
            **asdict(self),
            "models": models,
            "lengths": {**asdict(self.lengths), "share_longer": self.lengths.share_longer},
            "ties": {**asdict(self.ties), "rate": self.ties.rate},
            "flaws": {**asdict(self.flaws), "share": self.flaws.share},
            "validation_prompts": self.validation_prompts,
        }


def wilson(rate: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in `count` cases, at least one."""
    z = 1.959964
    centre = rate + z * z / (2 * count)
    half = z * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

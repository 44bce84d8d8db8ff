"""Turns → numbers, one turn after the other."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import floor, isfinite, log2
from textwrap import shorten

from nat_dpo_pipeline.core.candidates import Candidate, finite_number
from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.core.similarity import content_words
from nat_dpo_pipeline.core.ties import is_higher
from nat_dpo_pipeline.generation.turns import Flaw
from nat_dpo_pipeline.report import numbers as told
from nat_dpo_pipeline.report.paired import PairedTurn, clean, model_of, subtopic_of
from nat_dpo_pipeline.report.run import RunFacts, SetAside
from nat_dpo_pipeline.report.samples import Sample, Summary, histogram

_TINY = 0.1
_CELLS_AN_OCTAVE = 2
_GROUPS_TOLD = 20
_EXCERPT = 160


def measure(turns: Iterable[PairedTurn], facts: RunFacts, set_aside: SetAside) -> told.Numbers:
    """The numbers of a run. Texts are let go turn by turn; a hash stays of each that differs from the others."""
    scores, margins, lengths = _Scores(), _Margins(), _Lengths()
    models, subtopics, texts, flow = _Models(), _Subtopics(), _Texts(), _Flow(set_aside)
    for turn in turns:
        for part in (flow, scores, margins, lengths, models, subtopics, texts):
            part.add(turn)
    return told.Numbers(
        run=facts,
        flow=flow.result(),
        scores=scores.result(),
        margins=margins.result(),
        lengths=lengths.result(),
        models=models.result(),
        versus=models.versus(),
        subtopics=subtopics.result(),
        duplicates=texts.result(),
        ties=margins.ties(),
        flaws=flow.flaws(),
        agreement=scores.agreement(),
    )


@dataclass(slots=True)
class _Flow:
    set_aside: SetAside
    counts: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    flawed: Counter[str] = field(default_factory=Counter)
    prompts: set[int] = field(default_factory=set)
    prompts_with_pairs: set[int] = field(default_factory=set)

    def add(self, paired: PairedTurn) -> None:
        turn = paired.turn
        key = hash(prompt_key(turn.prompt))
        self.prompts.add(key)
        if paired.pairs:
            self.prompts_with_pairs.add(key)
        self.counts["turns"] += 1
        self.counts["candidates"] += len(turn.candidates)
        self.counts["single"] += len(turn.candidates) == 1
        self.counts["pairs"] += len(paired.pairs)
        self.left_out.update(one.reason for one in paired.left_out)
        self.flawed.update(str(flaw) for one in turn.candidates if (flaw := one.metadata.get("flaw")))

    def result(self) -> told.Flow:
        counts, aside = self.counts, self.set_aside
        return told.Flow(
            responses=self._responses(),
            unscored=_frequent(aside.responses),
            candidates=counts["candidates"] + aside.scored,
            unreadable_rows=aside.unreadable,
            set_aside=_frequent(aside.turns),
            turns=counts["turns"],
            turns_with_one_candidate=counts["single"],
            possible_pairs=counts["pairs"] + self.left_out.total(),
            left_out=_frequent(self.left_out),
            pairs=counts["pairs"],
            prompts=len(self.prompts),
            prompts_with_pairs=len(self.prompts_with_pairs),
        )

    def flaws(self) -> told.Flaws:
        found = self.flawed + self.set_aside.flaws
        return told.Flaws({str(flaw): found[flaw] for flaw in Flaw if found[flaw]}, self._responses())

    def _responses(self) -> int:
        return self.counts["candidates"] + self.set_aside.scored + self.set_aside.responses.total()


@dataclass(slots=True)
class _Scores:
    all: Sample = field(default_factory=Sample)
    chosen: Sample = field(default_factory=Sample)
    rejected: Sample = field(default_factory=Sample)
    agreements: Sample = field(default_factory=Sample)

    def add(self, paired: PairedTurn) -> None:
        for candidate in paired.turn.candidates:
            self.all.add(candidate.score)
            if (agreed := finite_number(candidate.metadata.get("agreement"))) is not None:
                self.agreements.add(agreed)
        for chosen, rejected, _ in paired.pairs:
            self.chosen.add(chosen.score)
            self.rejected.add(rejected.score)

    def result(self) -> told.Spread:
        return _spread({"all": self.all, "chosen": self.chosen, "rejected": self.rejected})

    def agreement(self) -> Summary | None:
        return self.agreements.summary() if self.agreements.count else None


@dataclass(slots=True)
class _Margins:
    all: Sample = field(default_factory=Sample)
    pairs: Sample = field(default_factory=Sample)
    tiny: int = 0
    tied: int = 0
    compared: int = 0
    identical: int = 0

    def add(self, paired: PairedTurn) -> None:
        for one, other in combinations(paired.turn.candidates, 2):
            self._compare(one, other)
        scores = [candidate.score for candidate in paired.turn.candidates]
        smallest = _TINY * (max(scores) - min(scores)) if scores else 0.0
        for pair in paired.pairs:
            self.pairs.add(pair.margin)
            self.tiny += pair.margin < smallest

    def _compare(self, one: Candidate, other: Candidate) -> None:
        margin = abs(one.score - other.score)
        if one.response.strip() == other.response.strip():
            self.identical += 1
            return
        self.compared += 1
        if not (is_higher(one.score, other.score) or is_higher(other.score, one.score)):
            self.tied += 1
        elif isfinite(margin):
            self.all.add(margin)

    def result(self) -> told.Margins:
        spread = _spread({"pairs": self.pairs, "all": self.all})
        median = spread.summaries["all"].median
        tiny = self.tiny / self.pairs.count if self.pairs.count else 0.0
        return told.Margins(spread, median, self.pairs.share_below(median), tiny)

    def ties(self) -> told.Ties:
        return told.Ties(self.tied, self.compared, self.identical)


@dataclass(slots=True)
class _Lengths:
    chosen: Sample = field(default_factory=Sample)
    rejected: Sample = field(default_factory=Sample)
    ratios: Sample = field(default_factory=Sample)
    order: Counter[int] = field(default_factory=Counter)
    cells: Counter[tuple[int, int]] = field(default_factory=Counter)

    def add(self, paired: PairedTurn) -> None:
        for chosen, rejected, _ in paired.pairs:
            long, other = len(chosen.response), len(rejected.response)
            self.chosen.add(long)
            self.rejected.add(other)
            self.ratios.add(max(long, 1) / max(other, 1))
            self.order[(long > other) - (long < other)] += 1
            self.cells[_octave(long), _octave(other)] += 1

    def result(self) -> told.Lengths:
        return told.Lengths(
            chosen=self.chosen.summary(),
            rejected=self.rejected.summary(),
            longer=self.order[1],
            same=self.order[0],
            shorter=self.order[-1],
            median_ratio=self.ratios.summary().median,
            cells=tuple(_cell(long, other, pairs) for (long, other), pairs in sorted(self.cells.items())),
        )


def _octave(length: int) -> int:
    return floor(_CELLS_AN_OCTAVE * log2(max(length, 1)))


def _cell(chosen: int, rejected: int, pairs: int) -> told.LengthCell:
    def edge(place: int) -> float:
        return float(2.0 ** (place / _CELLS_AN_OCTAVE))

    return told.LengthCell(edge(chosen), edge(chosen + 1), edge(rejected), edge(rejected + 1), pairs)


@dataclass(slots=True)
class _Models:
    scores: dict[str, Sample] = field(default_factory=lambda: defaultdict(lambda: Sample(1)))
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wins: Counter[tuple[str, str]] = field(default_factory=Counter)
    tied: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, paired: PairedTurn) -> None:
        named = [(model_of(candidate), candidate) for candidate in paired.turn.candidates]
        for name, candidate in named:
            self.scores[name].add(candidate.score)
            self.counts[name, "flawed"] += bool(candidate.metadata.get("flaw"))
        for (one, a), (other, b) in combinations(named, 2):
            if one != other:
                self._compare(one, a.score, other, b.score)
        for chosen, rejected, _ in paired.pairs:
            self.counts[model_of(chosen), "chosen"] += 1
            self.counts[model_of(rejected), "rejected"] += 1

    def _compare(self, one: str, score: float, other: str, other_score: float) -> None:
        if is_higher(score, other_score):
            self.wins[one, other] += 1
        elif is_higher(other_score, score):
            self.wins[other, one] += 1
        else:
            self.tied[one, other] += 1
            self.tied[other, one] += 1

    def result(self) -> tuple[told.ModelNumbers, ...]:
        found = [self._model(name) for name in self.scores]
        return tuple(sorted(found, key=lambda one: (-(one.win_rate or 0.0), one.name)))

    def _model(self, name: str) -> told.ModelNumbers:
        others = [other for other in self.scores if other != name]
        return told.ModelNumbers(
            name=name,
            candidates=self.scores[name].count,
            mean_score=self.scores[name].summary().mean,
            chosen=self.counts[name, "chosen"],
            rejected=self.counts[name, "rejected"],
            wins=sum(self.wins[name, other] for other in others),
            ties=sum(self.tied[name, other] for other in others),
            losses=sum(self.wins[other, name] for other in others),
            flawed=self.counts[name, "flawed"],
        )

    def versus(self) -> tuple[told.Versus, ...]:
        return tuple(self._versus())

    def _versus(self) -> Iterator[told.Versus]:
        for one in self.scores:
            for other in self.scores:
                counts = self.wins[one, other], self.tied[one, other], self.wins[other, one]
                if one != other and any(counts):
                    yield told.Versus(one, other, *counts)


@dataclass(slots=True)
class _Subtopic:
    turns: int = 0
    longer: int = 0
    scores: Sample = field(default_factory=lambda: Sample(1))
    margins: Sample = field(default_factory=lambda: Sample(1))


@dataclass(slots=True)
class _Subtopics:
    found: dict[str, _Subtopic] = field(default_factory=lambda: defaultdict(_Subtopic))

    def add(self, paired: PairedTurn) -> None:
        one = self.found[subtopic_of(paired.turn)]
        one.turns += 1
        for candidate in paired.turn.candidates:
            one.scores.add(candidate.score)
        for pair in paired.pairs:
            one.margins.add(pair.margin)
            one.longer += len(pair.chosen.response) > len(pair.rejected.response)

    def result(self) -> tuple[told.SubtopicNumbers, ...]:
        rows = [
            told.SubtopicNumbers(
                name=name,
                turns=one.turns,
                candidates=one.scores.count,
                pairs=one.margins.count,
                mean_score=one.scores.summary().mean,
                mean_margin=one.margins.summary().mean,
                share_longer=one.longer / one.margins.count if one.margins.count else 0.0,
            )
            for name, one in self.found.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.pairs, row.name)))


@dataclass(slots=True)
class _Group:
    excerpt: str
    responses: int
    prompts: set[int]
    won: set[int]


@dataclass(slots=True)
class _Texts:
    """Of a text that stands under one prompt only: that prompt, and whether it won, in one number."""

    once: dict[int, int] = field(default_factory=dict)
    groups: dict[int, _Group] = field(default_factory=dict)

    def add(self, paired: PairedTurn) -> None:
        prompt = hash(prompt_key(paired.turn.prompt))
        winners = {pair.chosen.response for pair in paired.pairs}
        texts: dict[int, tuple[str, bool]] = {}
        for candidate in paired.turn.candidates:
            text = candidate.response
            key = hash(content_words(text))
            texts[key] = (text, text in winners or (key in texts and texts[key][1]))
        for key, (text, won) in texts.items():
            self._add(key, text, prompt, won)

    def _add(self, key: int, text: str, prompt: int, won: bool) -> None:
        before = self.once.setdefault(key, 2 * prompt + won)
        if before // 2 == prompt and key not in self.groups:
            self.once[key] = before | won
            return
        if key not in self.groups:
            first = before // 2
            self.groups[key] = _Group(_excerpt(text), 1, {first}, {first} if before % 2 else set())
        group = self.groups[key]
        group.responses += 1
        group.prompts.add(prompt)
        if won:
            group.won.add(prompt)

    def result(self) -> told.Duplicates:
        groups = [
            told.TextGroup(one.excerpt, one.responses, len(one.prompts), len(one.won)) for one in self.groups.values()
        ]
        groups.sort(key=lambda one: (-one.prompts, -one.won, one.excerpt))
        winner = max(groups, key=lambda one: one.won, default=None)
        responses = sum(one.responses for one in groups)
        return told.Duplicates(len(groups), responses, tuple(groups[:_GROUPS_TOLD]), winner)


def _excerpt(text: str) -> str:
    return shorten(clean(text), _EXCERPT, placeholder=" …")


def _spread(samples: dict[str, Sample]) -> told.Spread:
    values = {name: sample.values() for name, sample in samples.items()}
    return told.Spread({name: sample.summary() for name, sample in samples.items()}, histogram(values))


def _frequent(reasons: Counter[str]) -> dict[str, int]:
    return dict(reasons.most_common())

"""The turns of a finished run with the pairs that were made of them, for a report."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.selection import Selection
from nat_dpo_pipeline.dataset.run_files import DATASET
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings, recorded_builder
from nat_dpo_pipeline.report.paired import LeftOut, PairedTurn
from nat_dpo_pipeline.report.run import read_manifest, read_turns


@dataclass(frozen=True, slots=True)
class PairedRun:
    """The turns of the run in a folder, each time it is called, paired as the run itself was."""

    run_dir: Path
    rules: PairingRules
    selection: Selection | None

    def __call__(self) -> Iterator[PairedTurn]:
        """Raises InputError when the candidates cannot be read."""
        verdicts = None if self.selection is None else self.selection.reasons()
        for turn in read_turns(self.run_dir):
            paired = paired_turn(turn, self.rules)
            yield paired if verdicts is None else _selected(paired, verdicts)


def paired_run(run_dir: Path) -> PairedRun:
    """The run with the rules of its trajectory builder, or the default ones where it had none.

    Raises ConfigurationError and InputError.
    """
    builder = _builder(_settings(run_dir))
    rules, selecting = builder.pairing_rules(), builder.selection_rules()
    if selecting.is_empty:
        return PairedRun(run_dir, rules, None)
    made = (pair for turn in read_turns(run_dir) for pair in pair_turn(turn, rules, Counter()))
    return PairedRun(run_dir, rules, Selection.of(selecting, made))


def _settings(run_dir: Path) -> dict[str, object]:
    for folder in (run_dir / DATASET, run_dir):
        configuration = read_manifest(folder).get("configuration")
        builder = configuration.get("trajectory_builder") if isinstance(configuration, dict) else None
        if isinstance(builder, dict):
            return {name: value for name, value in builder.items() if name != "type" and value is not None}
    return {}


def _builder(settings: dict[str, object]) -> BuilderSettings:
    try:
        return recorded_builder(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"the run's manifest has a trajectory_builder that is none: {error}") from error


def paired_turn(turn: Turn, rules: PairingRules) -> PairedTurn:
    """The turn with its pairs, and why every other two of its candidates are none."""
    skipped: Counter[SkipReason] = Counter()
    pairs = pair_turn(turn, rules, skipped)
    return PairedTurn(turn, pairs, list(_left_out(turn, pairs, rules, skipped)))


def _left_out(
    turn: Turn, pairs: Sequence[PreferencePair], rules: PairingRules, skipped: Counter[SkipReason]
) -> Iterator[LeftOut]:
    """A reason for each two, as often as it was counted: first those that two candidates have by themselves."""
    kept = {frozenset((id(chosen), id(rejected))) for chosen, rejected, _ in pairs}
    others = [two for two in combinations(turn.candidates, 2) if frozenset(map(id, two)) not in kept]
    left = +skipped
    waiting: list[tuple[Candidate, Candidate]] = []
    for two in others:
        reason = next(iter(left), None) if len(left) == 1 else _reason_of_two(turn, two, rules)
        if reason is not None and left[reason]:
            left[reason] -= 1
            yield _told(two, reason)
        else:
            waiting.append(two)
    # What only the whole turn decides, it counts without saying of which two: then the order of the reasons decides.
    waiting.sort(key=lambda two: -abs(two[0].score - two[1].score))
    yield from (_told(two, reason) for two, reason in zip(waiting, left.elements(), strict=True))


def _reason_of_two(turn: Turn, two: tuple[Candidate, Candidate], rules: PairingRules) -> SkipReason | None:
    skipped: Counter[SkipReason] = Counter()
    pair_turn(Turn(turn.example_id, turn.turn_id, turn.prompt, two), rules, skipped)
    return next(iter(+skipped), None)


def _selected(paired: PairedTurn, verdicts: Iterator[SkipReason | None]) -> PairedTurn:
    reasons = [next(verdicts) for _ in paired.pairs]
    kept = [pair for pair, reason in zip(paired.pairs, reasons, strict=True) if reason is None]
    left_out = _refused(paired.pairs, reasons)
    return PairedTurn(paired.turn, kept, [*paired.left_out, *left_out])


def _refused(pairs: Iterable[PreferencePair], reasons: Iterable[SkipReason | None]) -> Iterator[LeftOut]:
    for (chosen, rejected, _), reason in zip(pairs, reasons, strict=True):
        if reason is not None:
            yield LeftOut(chosen, rejected, str(reason))


def _told(two: tuple[Candidate, Candidate], reason: SkipReason) -> LeftOut:
    chosen, rejected = sorted(two, key=lambda candidate: -candidate.score)
    return LeftOut(chosen, rejected, str(reason))

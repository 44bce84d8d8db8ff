"""What a run collected: candidates decoded, grouped and paired, and what was left out of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from nat_dpo_pipeline.core.branches import branched
from nat_dpo_pipeline.core.candidates import Candidate, Turn, group_turns
from nat_dpo_pipeline.core.filters import is_blank, is_flawed
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.selection import Selection, SelectionRules
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.generation.record import read_summary
from nat_dpo_pipeline.plugin.finetuning.trajectories import build_trajectories
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.nat_api import EvalInputItem, EvaluationRunOutput, IntermediateStepType, Trajectory
from nat_dpo_pipeline.plugin.steps import decode_candidates
from nat_dpo_pipeline.records.ranges import FileCounts
from nat_dpo_pipeline.report.summary import CollectionReport

_PROBLEMS_TOLD = 5


@dataclass(slots=True)
class Collected:
    """What an evaluation or files held, and the trajectories made of it."""

    trajectories: list[list[Trajectory]] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    singles: list[Candidate] = field(default_factory=list)
    candidates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    turns_split: int = 0
    turns_with_one_candidate: int = 0
    empty_examples: int = 0
    generated: Counter[str] = field(default_factory=Counter)
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    files: tuple[FileCounts, ...] = ()
    problems: list[str] = field(default_factory=list)
    failures: list[Mapping[str, object]] = field(default_factory=list)
    refusals: list[Mapping[str, object]] = field(default_factory=list)

    def report(self, *, examples: int, interrupted: bool = False, errors: Iterable[str] = ()) -> CollectionReport:
        return CollectionReport(
            examples=examples,
            examples_without_candidates=self.empty_examples,
            interrupted_runs=int(interrupted),
            generated=self.generated,
            failed=self.failed,
            candidates=self.candidates,
            refused=self.refused,
            turns=self.turns,
            turns_split=self.turns_split,
            turns_with_one_candidate=self.turns_with_one_candidate,
            pairs=sum(map(len, self.trajectories)),
            skipped=Counter({str(reason): count for reason, count in self.skipped.items() if count}),
            files=self.files,
            problems=_first_of(tuple(dict.fromkeys((*self.problems, *errors)))),
        )


def collect(evaluation: EvaluationRunOutput, config: DPOTrajectoryBuilderConfig) -> Collected:
    """Decode, group and pair every item, in order. Items without an id are told apart by their position."""
    collected = Collected()
    pair_examples(_examples(evaluation, config, collected), config, collected)
    collected.failures.extend(collected.refusals)
    return collected


def pair_examples(examples: Iterable[Sequence[Turn]], config: DPOTrajectoryBuilderConfig, collected: Collected) -> None:
    """Pair the turns of every example, which are asked for one after the other."""
    rules, selecting = config.pairing_rules(), config.selection_rules()
    undecided: list[list[list[PreferencePair]]] = []
    for turns in examples:
        collected.singles.extend(_singles(turns, config))
        paired = _paired(turns, rules, config, collected)
        if selecting.is_empty:
            _add(paired, rules, config, collected)
        else:
            undecided.append(list(paired))
    for selected in _selected(undecided, selecting, collected):
        _add(selected, rules, config, collected)


def _examples(
    evaluation: EvaluationRunOutput, config: DPOTrajectoryBuilderConfig, collected: Collected
) -> Iterator[list[Turn]]:
    for position, item in enumerate(evaluation.eval_input.eval_input_items):
        example_id = str(item.id) if item.id not in ("", None) else f"row-{position}"
        decoded = decode_candidates(item.trajectory, config.ttc_step_name, example_id)
        grouping = group_turns(decoded.candidates)
        yield grouping.turns
        collected.candidates += len(decoded.candidates)
        collected.refused.update(refusal.reason for refusal in decoded.refusals)
        collected.refusals.extend(map(asdict, decoded.refusals))
        collected.turns_split += grouping.split
        failures = _read_summary(item.output_obj, example_id, collected)
        if not decoded.candidates:
            collected.empty_examples += 1
            collected.problems.extend(str(failure["detail"]) for failure in failures[:1])
            _note_other_steps(item, config.ttc_step_name, collected)


def _paired(
    turns: Iterable[Turn], rules: PairingRules, config: DPOTrajectoryBuilderConfig, collected: Collected
) -> Iterator[list[PreferencePair]]:
    """The pairs of each turn."""
    for turn in branched(turns, rules, collected.skipped):
        collected.turns += 1
        if len(turn.candidates) == 1 and config.require_multiple_candidates:
            collected.turns_with_one_candidate += 1
        yield pair_turn(turn, rules, collected.skipped)


def _selected(
    examples: list[list[list[PreferencePair]]], selecting: SelectionRules, collected: Collected
) -> Iterator[Iterator[list[PreferencePair]]]:
    """What is kept of the pairs of each turn of each example, when all are seen together."""
    selection = Selection.of(selecting, (pair for turns in examples for pairs in turns for pair in pairs))
    collected.skipped.update(selection.skipped)
    reasons = selection.reasons()
    for turns in examples:
        yield ([pair for pair in pairs if next(reasons) is None] for pairs in turns)


def _add(
    paired: Iterable[list[PreferencePair]],
    rules: PairingRules,
    config: DPOTrajectoryBuilderConfig,
    collected: Collected,
) -> None:
    """Add the trajectories of one example; its pairs come by turn."""
    trajectories: list[Trajectory] = []
    for pairs in paired:
        trajectories += build_trajectories(
            pairs,
            exhaustive=rules.applied_strategy is not Strategy.BEST_VS_WORST,
            reward_from_score_diff=config.reward_from_score_diff,
        )
    if trajectories:
        collected.trajectories.append(trajectories)


def _first_of(problems: tuple[str, ...]) -> tuple[str, ...]:
    more = len(problems) - _PROBLEMS_TOLD
    return (*problems[:_PROBLEMS_TOLD], f"and {more} more") if more > 0 else problems


def _note_other_steps(item: EvalInputItem, step_name: str, collected: Collected) -> None:
    names = {step.payload.name for step in item.trajectory if step.event_type is IntermediateStepType.TTC_END}
    others = sorted(map(repr, names))
    if others and step_name not in names:
        found = ", ".join(others)
        collected.problems.append(f"no step is called {step_name!r}, but there are {found}: set ttc_step_name")


def _read_summary(output: object, example_id: str, collected: Collected) -> list[Mapping[str, object]]:
    """Add what the package's own workflows say of themselves in their JSON output; returns the failures in it."""
    summary = read_summary(output)
    if summary is None:
        return []
    failures: list[Mapping[str, object]] = [{"example_id": example_id, **failure} for failure in summary["failures"]]
    collected.generated.update({name: count for name, count in summary.items() if type(count) is int})
    for step, reasons in summary["skipped"].items():
        collected.failed.setdefault(step, Counter()).update(reasons)
    collected.failures.extend(failures)
    if summary["stopped"]:
        collected.problems.append(summary["stopped"])
    return failures


def _singles(turns: Iterable[Turn], builder: DPOTrajectoryBuilderConfig) -> Iterator[Candidate]:
    """The candidates that are alone in their turn, where the builder wants them; not what never pairs."""
    if builder.require_multiple_candidates:
        return
    for turn in turns:
        if len(turn.candidates) == 1:
            (one,) = turn.candidates
            if not is_blank(one) and (builder.pair_flawed or not is_flawed(one)):
                yield one

"""What passes from a trajectory builder to a trainer and from a trainer to an adapter, beside NAT's trajectories.

Both are collections of trajectories, so that builders, trainers and adapters of other packages give and take them, too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import nextafter
from typing import TypeVar

from pydantic import ConfigDict, Field

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Prompt, prompt_key
from nat_dpo_pipeline.core.split import stratified_validation_prompts, validation_prompts
from nat_dpo_pipeline.dataset.formats import DatasetRow, PreferenceRow, SplitName, UnpairedRow
from nat_dpo_pipeline.plugin.finetuning.trajectories import collector_paused, row_of_item
from nat_dpo_pipeline.plugin.nat_api import DPOItem, Trajectory, TrajectoryCollection
from nat_dpo_pipeline.report.summary import CollectionReport

#: Key of a trajectory's metadata for the side of the split that the trainer chose.
SPLIT_KEY = "split"
_NEARLY_ALL = nextafter(1.0, 0.0)
#: Gives what a row keeps of a prompt.
Shorten = Callable[[Prompt], Prompt]
_SIDES = frozenset(name.value for name in SplitName)
_Row = TypeVar("_Row", bound=DatasetRow)


@dataclass(frozen=True, slots=True)
class SubmittedPair:
    """A pair as a row of a dataset, the trajectory that holds this pair alone, and its side if a trainer chose one."""

    row: PreferenceRow
    trajectory: Trajectory
    side: SplitName | None = None

    def on(self, side: SplitName) -> "SubmittedPair":
        """Return the pair with its side, which is written into the trajectory's metadata."""
        self.trajectory.metadata = {**(self.trajectory.metadata or {}), SPLIT_KEY: side.value}
        return replace(self, side=side)


class ReportedTrajectories(TrajectoryCollection):
    """The trajectories of a run, its report, and the candidates that were alone in their turns."""

    model_config = ConfigDict(arbitrary_types_allowed=True, defer_build=True)

    report: CollectionReport | None = Field(default=None, exclude=True)
    singles: Sequence[Candidate] = Field(default=(), exclude=True)


class PairSubmission(ReportedTrajectories):
    """The pairs that a trainer chose; `dropped` are those that it left out, by reason, `seed` is that of its draw."""

    pairs: Sequence[SubmittedPair] = Field(exclude=True)
    seed: int | None = Field(default=None, exclude=True)
    dropped: Mapping[str, int] = Field(default_factory=dict, exclude=True)

    @classmethod
    def of(cls, submitted: TrajectoryCollection, shorten: Shorten | None = None) -> "PairSubmission":
        """Return what was submitted, decoded if a trainer of another package submitted it."""
        if isinstance(submitted, PairSubmission):
            return submitted
        pairs = decoded(submitted, shorten)
        return cls.model_construct(trajectories=submitted.trajectories, run_id=submitted.run_id, pairs=pairs)


def decoded(collection: TrajectoryCollection, shorten: Shorten | None = None) -> list[SubmittedPair]:
    """Return the DPO items of the trajectories, with their prompts shortened; other items are left out."""
    with collector_paused():
        return [pair for group in collection.trajectories for one in group for pair in pairs_of(one, shorten)]


def pairs_of(trajectory: Trajectory, shorten: Shorten | None = None) -> Iterator[SubmittedPair]:
    """Yield the pairs of a trajectory; one of several items is taken apart."""
    mark = (trajectory.metadata or {}).get(SPLIT_KEY)
    side = SplitName(mark) if isinstance(mark, str) and mark in _SIDES else None
    for item in trajectory.episode:
        if isinstance(item, DPOItem):
            row = row_of_item(item, trajectory)
            alone = trajectory if len(trajectory.episode) == 1 else trajectory.model_copy(update={"episode": [item]})
            yield SubmittedPair(row if shorten is None else replace(row, prompt=shorten(row.prompt)), alone, side)


def held_out_prompts(
    pairs: Iterable[SubmittedPair],
    fraction: float,
    seed: int,
    *,
    stratify: bool = False,
    singles: Iterable[UnpairedRow] = (),
) -> frozenset[str]:
    """Return the keys of the prompts on the validation side.

    They are as a trainer marked them, if it marked all and no prompt is on both sides, or else drawn here. A stratified
    draw is always made here, of as large a share as is marked; so is that of the prompts that only singles have.
    """
    keys: dict[SplitName | None, set[str]] = {side: set() for side in (*SplitName, None)}
    strata: dict[str, str] = {}
    for pair in pairs:
        key = prompt_key(pair.row.prompt)
        keys[pair.side].add(key)
        strata.setdefault(key, pair.row.subtopic or "")
    marked = frozenset(keys[SplitName.VALIDATION])
    is_a_split = not keys[None] and marked.isdisjoint(keys[SplitName.TRAIN])
    share = min(len(marked) / len(strata), _NEARLY_ALL) if is_a_split and strata else fraction
    others = {key: row.subtopic or "" for row in singles if (key := prompt_key(row.prompt)) not in strata}
    if stratify:
        return stratified_validation_prompts([*strata.items(), *others.items()], share, seed)
    if is_a_split:
        return marked | validation_prompts(others, share, seed)
    return validation_prompts([*strata, *others], fraction, seed)


def by_side(rows: Iterable[_Row], held_out: Set[str]) -> dict[SplitName, list[_Row]]:
    """Return the rows of each side, in order."""
    splits: dict[SplitName, list[_Row]] = {side: [] for side in SplitName}
    for row in rows:
        splits[SplitName.VALIDATION if prompt_key(row.prompt) in held_out else SplitName.TRAIN].append(row)
    return splits

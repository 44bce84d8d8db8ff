"""Which side of the split the pairs of a submission are on."""

from collections.abc import Iterable, Iterator, Sequence, Set

from nat_dpo_pipeline.core.candidates import prompt_key
from nat_dpo_pipeline.core.split import stratified_validation_prompts, validation_prompts
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.plugin.nat_api import Trajectory
from nat_dpo_pipeline.plugin.trajectories import preference_rows

#: Where the trainer writes the side of the split into a trajectory's metadata.
SPLIT_KEY = "split"
_SIDES = frozenset(name.value for name in SplitName)


def held_out_prompts(
    trajectories: Sequence[Trajectory], fraction: float, seed: int, *, stratify: bool = False
) -> frozenset[str]:
    """The keys of the prompts on the validation side: as a trainer marked them all, if no prompt is on both sides, or
    else drawn here. A stratified draw is always made here, of as many prompts as are marked."""
    keys: dict[SplitName | None, set[str]] = {side: set() for side in (*SplitName, None)}
    strata: dict[str, str] = {}
    for trajectory in trajectories:
        side = _side(trajectory)
        for row in preference_rows(trajectory):
            key = prompt_key(row.prompt)
            keys[side].add(key)
            strata.setdefault(key, row.subtopic or "")
    marked = frozenset(keys[SplitName.VALIDATION])
    is_a_split = not keys[None] and marked.isdisjoint(keys[SplitName.TRAIN])
    if not stratify:
        return marked if is_a_split else validation_prompts(strata, fraction, seed)
    share = len(marked) / max(len(strata), 1) if is_a_split else fraction
    return stratified_validation_prompts(strata.items(), share, seed)


def rows_on(trajectories: Iterable[Trajectory], held_out: Set[str], side: SplitName) -> Iterator[PreferenceRow]:
    """The rows of one side, made as they are read."""
    for trajectory in trajectories:
        for row in preference_rows(trajectory):
            if (prompt_key(row.prompt) in held_out) is (side is SplitName.VALIDATION):
                yield row


def _side(trajectory: Trajectory) -> SplitName | None:
    mark = (trajectory.metadata or {}).get(SPLIT_KEY)
    return SplitName(mark) if isinstance(mark, str) and mark in _SIDES else None

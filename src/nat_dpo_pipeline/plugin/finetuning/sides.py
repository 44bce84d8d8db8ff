"""Which side of the split the pairs of a submission are on."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from math import nextafter

from nat_dpo_pipeline.core.candidates import Prompt, prompt_key
from nat_dpo_pipeline.core.split import stratified_validation_prompts, validation_prompts
from nat_dpo_pipeline.dataset.formats import DatasetRow, PreferenceRow, SplitName, UnpairedRow
from nat_dpo_pipeline.plugin.finetuning.trajectories import preference_rows
from nat_dpo_pipeline.plugin.nat_api import Trajectory

#: Where the trainer writes the side of the split into a trajectory's metadata.
SPLIT_KEY = "split"
_NEARLY_ALL = nextafter(1.0, 0.0)
#: Gives what a row keeps of a prompt.
Shorten = Callable[[Prompt], Prompt]
_SIDES = frozenset(name.value for name in SplitName)


def held_out_prompts(
    trajectories: Sequence[Trajectory],
    fraction: float,
    seed: int,
    *,
    stratify: bool = False,
    singles: Iterable[UnpairedRow] = (),
    shorten: Shorten | None = None,
) -> frozenset[str]:
    """The keys of the prompts on the validation side.

    They are as a trainer marked them, if it marked all and no prompt is on both sides, or else drawn here. A stratified
    draw is always made here, of as large a share as is marked; so is that of the prompts that only singles have.
    Prompts that `shorten` makes equal are one.
    """
    keys: dict[SplitName | None, set[str]] = {side: set() for side in (*SplitName, None)}
    strata: dict[str, str] = {}
    for trajectory in trajectories:
        side = _side(trajectory)
        for row in rows_of(trajectory, shorten):
            key = prompt_key(row.prompt)
            keys[side].add(key)
            strata.setdefault(key, row.subtopic or "")
    marked = frozenset(keys[SplitName.VALIDATION])
    is_a_split = not keys[None] and marked.isdisjoint(keys[SplitName.TRAIN])
    share = min(len(marked) / len(strata), _NEARLY_ALL) if is_a_split and strata else fraction
    others = {key: row.subtopic or "" for row in singles if (key := prompt_key(row.prompt)) not in strata}
    if stratify:
        return stratified_validation_prompts([*strata.items(), *others.items()], share, seed)
    if is_a_split:
        return marked | validation_prompts(others, share, seed)
    return validation_prompts([*strata, *others], fraction, seed)


def pairs_on(
    trajectories: Iterable[Trajectory],
    held_out: Set[str],
    side: SplitName,
    shorten: Shorten | None = None,
) -> Iterator[PreferenceRow]:
    """Yield the pairs of one side, with their prompts shortened."""
    for trajectory in trajectories:
        for row in rows_of(trajectory, shorten):
            if _is_on(side, row, held_out):
                yield row


def rows_of(trajectory: Trajectory, shorten: Shorten | None) -> Iterator[PreferenceRow]:
    """Yield the pairs of a trajectory, with their prompts shortened."""
    rows = preference_rows(trajectory)
    return rows if shorten is None else (replace(row, prompt=shorten(row.prompt)) for row in rows)


def rows_on(
    trajectories: Iterable[Trajectory], held_out: Set[str], side: SplitName, singles: Iterable[UnpairedRow] = ()
) -> Iterator[DatasetRow]:
    """The pairs of one side, then the singles."""
    yield from pairs_on(trajectories, held_out, side)
    yield from (row for row in singles if _is_on(side, row, held_out))


def _is_on(side: SplitName, row: DatasetRow, held_out: Set[str]) -> bool:
    return (prompt_key(row.prompt) in held_out) is (side is SplitName.VALIDATION)


def _side(trajectory: Trajectory) -> SplitName | None:
    mark = (trajectory.metadata or {}).get(SPLIT_KEY)
    return SplitName(mark) if isinstance(mark, str) and mark in _SIDES else None

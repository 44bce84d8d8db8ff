"""Turns to a dataset of pairs."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from nat_dpo_pipeline.core.candidates import Candidate, Turn, prompt_key
from nat_dpo_pipeline.core.filters import is_blank, is_flawed
from nat_dpo_pipeline.core.pairs import PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.selection import Selection
from nat_dpo_pipeline.core.split import sample, stratified_validation_prompts, validation_prompts
from nat_dpo_pipeline.dataset.formats import DatasetRow, SplitName, UnpairedRow, row_of
from nat_dpo_pipeline.dataset.formats.rows import single_row
from nat_dpo_pipeline.dataset.writer import Provenance, Target, WrittenDataset, write_dataset
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings

Turns = Callable[[], Iterable[Turn]]
HeldOut = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class PairedDataset:
    """What was written, also when there was no pair, and what was left out, by reason."""

    written: WrittenDataset
    skipped: Mapping[str, int]


def write_pairs(
    folder: Path,
    turns: Turns,
    builder: BuilderSettings,
    trainer: SplitSettings,
    configuration: Mapping[str, object],
    adapter: DatasetSettings | None = None,
    held_out: HeldOut | None = None,
) -> PairedDataset:
    """Pair the turns and write the dataset that `dpo_trainer` and `dataset_trainer_adapter` would write of them.

    `adapter` says in which formats; TRL's when there is none. `held_out` says which prompts, by their keys, go to
    validation; without it the trainer's share of them does.

    The turns are read several times rather than held in memory. Raises OutputError.
    """
    skipped: Counter[str] = Counter()
    selection = _selection(turns, builder)
    total = sum(1 for _ in _pairs(turns, builder, trainer, skipped, selection))
    drawn: Container[int] = range(total)
    if trainer.max_pairs is not None and trainer.max_pairs < total:
        drawn = frozenset(sample(range(total), trainer.max_pairs, trainer.seed))
        skipped["over_max_pairs"] = total - trainer.max_pairs

    def rows() -> Iterator[DatasetRow]:
        found = _pairs(turns, builder, trainer, Counter(), selection)
        yield from (row_of(pair) for index, pair in enumerate(found) if index in drawn)
        yield from single_rows(singles_in(turns(), builder), adapter)

    if held_out is None:
        held_out = _held_out(rows(), trainer, stratify=adapter is not None and adapter.stratify).__contains__
    splits = {side: _side(rows(), held_out, side) for side in SplitName}
    provenance = Provenance(trainer.seed, configuration, {"pairs": dict(+skipped)})
    target = Target() if adapter is None else adapter.target()
    return PairedDataset(write_dataset(folder, splits, provenance, target), +skipped)


def singles_in(turns: Iterable[Turn], builder: BuilderSettings) -> Iterator[Candidate]:
    """The candidates that are alone in their turn, where the trajectory builder wants them; not what never pairs."""
    if builder.require_multiple_candidates:
        return
    for turn in turns:
        if len(turn.candidates) == 1:
            (one,) = turn.candidates
            if not is_blank(one) and (builder.pair_flawed or not is_flawed(one)):
                yield one


def single_rows(singles: Iterable[Candidate], adapter: DatasetSettings | None) -> Iterator[UnpairedRow]:
    """Their rows; none without a score that tells good from bad."""
    if adapter is None or adapter.single_label_score is None:
        return
    for candidate in singles:
        yield single_row(candidate, label=candidate.score >= adapter.single_label_score)


def _held_out(rows: Iterable[DatasetRow], trainer: SplitSettings, *, stratify: bool) -> frozenset[str]:
    keyed = ((prompt_key(row.prompt), row.subtopic or "") for row in rows)
    if stratify:
        return stratified_validation_prompts(keyed, trainer.validation_fraction, trainer.seed)
    return validation_prompts((key for key, _ in keyed), trainer.validation_fraction, trainer.seed)


def _selection(turns: Turns, builder: BuilderSettings) -> Selection | None:
    selecting = builder.selection_rules()
    if selecting.is_empty:
        return None
    rules = builder.pairing_rules()
    return Selection.of(selecting, (pair for turn in turns() for pair in pair_turn(turn, rules, Counter())))


def _pairs(
    turns: Turns,
    builder: BuilderSettings,
    trainer: SplitSettings,
    skipped: Counter[str],
    selection: Selection | None,
) -> Iterator[PreferencePair]:
    rules = builder.pairing_rules()
    reasons: Counter[SkipReason] = Counter() if selection is None else selection.skipped
    seen: set[bytes] = set()
    made = (pair for turn in turns() for pair in pair_turn(turn, rules, reasons))
    for pair in made if selection is None else selection.kept(made):
        if trainer.deduplicate_pairs and not _is_new(pair, seen):
            skipped["duplicate_pairs"] += 1
        else:
            yield pair
    skipped.update({str(reason): count for reason, count in reasons.items()})


def _is_new(pair: PreferencePair, seen: set[bytes]) -> bool:
    key = repr((pair.chosen.prompt, pair.chosen.response, pair.rejected.response))
    digest = sha256(key.encode(errors="surrogatepass")).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _side(rows: Iterable[DatasetRow], held_out: HeldOut, side: SplitName) -> Iterator[DatasetRow]:
    return (row for row in rows if held_out(prompt_key(row.prompt)) is (side is SplitName.VALIDATION))

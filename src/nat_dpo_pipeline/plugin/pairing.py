"""From the configured trajectory builder and trainer to a dataset of pairs, without an evaluation in between."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from nat_dpo_pipeline.core.candidates import Turn, prompt_key
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.split import sample, validation_prompts
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, WrittenDataset, write_dataset
from nat_dpo_pipeline.plugin.config import DPOTrainerConfig, DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.nat_api import Config

Turns = Callable[[], Iterable[Turn]]


@dataclass(frozen=True, slots=True)
class PairedDataset:
    """What was written, also when there was no pair, and what was left out, by reason."""

    written: WrittenDataset
    skipped: Mapping[str, int]


def rules_of(config: DPOTrajectoryBuilderConfig) -> PairingRules:
    """How the trajectory builder pairs."""
    return PairingRules(
        exhaustive_pairs=config.exhaustive_pairs,
        min_score_diff=config.min_score_diff,
        max_pairs_per_turn=config.max_pairs_per_turn,
    )


def builder_of(config: Config) -> DPOTrajectoryBuilderConfig | None:
    """The trajectory builder that fine-tuning names, or the only one there is, if it is one of ours."""
    builders = config.trajectory_builders
    name = config.finetuning.trajectory_builder
    chosen = builders.get(name) if name else next(iter(builders.values())) if len(builders) == 1 else None
    return chosen if isinstance(chosen, DPOTrajectoryBuilderConfig) else None


def trainer_of(config: Config) -> DPOTrainerConfig:
    """The trainer that fine-tuning names, or else one with the defaults: it says how to draw and split."""
    trainer = config.trainers.get(config.finetuning.trainer or "")
    return trainer if isinstance(trainer, DPOTrainerConfig) else DPOTrainerConfig()


def write_pairs(
    folder: Path,
    turns: Turns,
    builder: DPOTrajectoryBuilderConfig,
    trainer: DPOTrainerConfig,
    configuration: Mapping[str, object],
) -> PairedDataset:
    """Pair the turns and write the dataset that `dpo_trainer` and `dataset_trainer_adapter` would write of them.

    The turns are read several times rather than held in memory. Raises OutputError.
    """
    skipped: Counter[str] = Counter()
    total = sum(1 for _ in _pairs(turns, builder, trainer, skipped))
    drawn = frozenset(sample(range(total), trainer.max_pairs or total, trainer.seed))
    skipped["over_max_pairs"] = total - len(drawn)

    def chosen() -> Iterator[PreferencePair]:
        found = _pairs(turns, builder, trainer, Counter())
        return (pair for index, pair in enumerate(found) if index in drawn)

    keys = (prompt_key(pair.chosen.prompt) for pair in chosen())
    held_out = validation_prompts(keys, trainer.validation_fraction, trainer.seed)
    splits = {side: _side(chosen(), held_out, side) for side in SplitName}
    provenance = Provenance(trainer.seed, configuration, {"pairs": dict(+skipped)})
    return PairedDataset(write_dataset(folder, splits, provenance), +skipped)


def _pairs(
    turns: Turns, builder: DPOTrajectoryBuilderConfig, trainer: DPOTrainerConfig, skipped: Counter[str]
) -> Iterator[PreferencePair]:
    rules = rules_of(builder)
    reasons: Counter[SkipReason] = Counter()
    seen: set[bytes] = set()
    for turn in turns():
        for pair in pair_turn(turn, rules, reasons):
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


def _side(pairs: Iterable[PreferencePair], held_out: frozenset[str], side: SplitName) -> Iterator[PreferenceRow]:
    for chosen, rejected, _ in pairs:
        if (prompt_key(chosen.prompt) in held_out) is (side is SplitName.VALIDATION):
            yield PreferenceRow(
                prompt=chosen.prompt,
                chosen=chosen.response,
                rejected=rejected.response,
                chosen_score=chosen.score,
                rejected_score=rejected.score,
                example_id=chosen.example_id,
                turn_id=chosen.turn_id,
            )

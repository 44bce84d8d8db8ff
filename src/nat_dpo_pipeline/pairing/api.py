"""The door to pairing. Light: what is heavy is imported when a run starts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.evaluation_rows import read_evaluation_texts
from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.engines import engine_of
from nat_dpo_pipeline.pairing.options import (
    Decontamination,
    EngineName,
    FileKind,
    PairedFiles,
    PairingOptions,
    Progress,
    Written,
)
from nat_dpo_pipeline.records.inputs import files_found
from nat_dpo_pipeline.records.places import place

_EVERYTHING = SelectionRules()
_DEFAULTS = PairingOptions()
_PAIRS_ALONE = Written()
_HERE = PairingOptions(engine=EngineName.MEMORY)
#: Of trajectory builder, trainer and adapter.
Settings = tuple[BuilderSettings, SplitSettings, DatasetSettings]


def _unheard(_stage: str, _done: int, _tasks: int) -> None:
    pass


def pair_files(
    inputs: Sequence[str],
    output: str,
    rules: PairingRules,
    selection: SelectionRules = _EVERYTHING,
    options: PairingOptions = _DEFAULTS,
    told: Progress = _unheard,
    written: Written = _PAIRS_ALONE,
) -> PairedFiles:
    """Pair the candidates in files, and write a dataset.

    `inputs` are files of recorded candidates in any format, patterns or folders of them, `output` a folder, each a path
    or a URI. With the engine `memory` one task in this process makes one file a side (`<output>/<format>/train.jsonl`),
    which replaces a dataset of ours that is there; else tasks make shards (`train-00000.jsonl`, …), and a run with the
    same arguments goes on where another one ended. `told` hears how many tasks of a stage are done.
    An evaluation set goes into `options.decontamination`, as its hashes mean nothing to another process.

    Raises InputError, ConfigurationError and OutputError, each with one line for the user.
    """
    if selection.evaluation is not None:
        raise ConfigurationError("the evaluation set is given as texts: options.decontamination")
    _check_installed(options)
    try:
        with engine_of(options) as engine:
            # Its processes start while this one imports.
            from nat_dpo_pipeline.pairing.run import Asked
            from nat_dpo_pipeline.pairing.shards import run_shards
            from nat_dpo_pipeline.pairing.whole import run_whole, without_own

            run = run_whole if options.engine is EngineName.MEMORY else run_shards
            asked = Asked(rules, selection, options, written)
            files = without_own(files_found(inputs), inputs, place(output))
            return run(place(output), files, asked, engine, told)
    except OSError as error:
        raise OutputError(f"cannot write the dataset to {output!r}: {error}") from error


def pair_as_set(
    inputs: Sequence[str],
    output: str,
    settings: Settings,
    options: PairingOptions = _HERE,
    told: Progress = _unheard,
    configuration: Mapping[str, object] = MappingProxyType({}),
    *,
    with_candidates: bool = False,
    needs_rows: bool = False,
) -> PairedFiles:
    """Pair the candidates in files by the settings of trajectory builder, trainer and adapter.

    `options` say how the run goes and whether the split is exact, the settings all else. `with_candidates` writes the
    turns beside the pairs of a dataset that is not in shards, for reports. `needs_rows` is that of `Written`.
    """
    builder, trainer, adapter = settings
    evaluation = builder.decontaminate_against
    against = None
    if evaluation is not None:
        against = Decontamination(tuple(read_evaluation_texts(evaluation)), builder.decontaminate_ngram)
    target = adapter.target()
    is_whole = options.engine is EngineName.MEMORY
    return pair_files(
        inputs,
        output,
        builder.pairing_rules(),
        builder.model_copy(update={"decontaminate_against": None}).selection_rules(),
        replace(
            options,
            formats=target.formats,
            kind=FileKind.PARQUET if adapter.parquet and not is_whole else FileKind.JSONL,
            validation_fraction=trainer.validation_fraction,
            seed=trainer.seed,
            stratify=adapter.stratify,
            deduplicate=trainer.deduplicate_pairs,
            max_pairs=trainer.max_pairs,
            single_label_score=None if builder.require_multiple_candidates else adapter.single_label_score,
            decontamination=against,
            step_name=builder.ttc_step_name,
            columns=builder.columns(),
        ),
        told,
        Written(target, configuration, with_candidates=with_candidates and is_whole, needs_rows=needs_rows),
    )


def _check_installed(options: PairingOptions) -> None:
    from importlib.util import find_spec

    if options.engine is EngineName.RAY and find_spec("ray") is None:
        raise ConfigurationError("this needs ray: pip install 'nat-dpo-pipeline[ray]'")

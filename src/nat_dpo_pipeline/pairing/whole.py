"""One dataset of one task in this process, which appears when it is whole."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from nat_dpo_pipeline.dataset.card import WrittenFormat
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import Format, SplitName, formats_named
from nat_dpo_pipeline.dataset.run_files import CANDIDATES
from nat_dpo_pipeline.dataset.streams import Tally
from nat_dpo_pipeline.dataset.writer import Provenance, Staged, is_dataset, publish
from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.pairing.engines import Engine
from nat_dpo_pipeline.pairing.manifest import identity_in
from nat_dpo_pipeline.pairing.options import PairedFiles, Progress
from nat_dpo_pipeline.pairing.plan import identity_of, planned
from nat_dpo_pipeline.pairing.run import STATE, Asked, Run
from nat_dpo_pipeline.records.inputs import InputFile
from nat_dpo_pipeline.records.places import Place


class _NoRowsError(Exception):
    """Ends the writing of a dataset that would hold nothing."""


def without_own(files: Sequence[InputFile], inputs: Sequence[str], folder: Place) -> Sequence[InputFile]:
    """Leave out the candidates that an earlier run wrote beside its dataset in the folder, unless they are named.

    An input that is a folder or a pattern would hold each candidate twice when the same command is called again.
    """
    own = os.path.realpath(Path(folder.path) / CANDIDATES)
    others = [file for file in files if os.path.realpath(Place(file.uri).path) != own]
    is_named = own in map(os.path.realpath, inputs)
    return others if folder.is_local and others and not is_named and _has_own_candidates(folder) else files


def _has_own_candidates(folder: Place) -> bool:
    # No candidates are written beside shards.
    return is_dataset(Path(folder.path)) and identity_in(folder) is None


def run_whole(folder: Place, files: Sequence[InputFile], asked: Asked, engine: Engine, told: Progress) -> PairedFiles:
    """Make one dataset in the place of an older one. Raises OutputError where something else is in the folder."""
    identity = identity_of(files, asked.rules, asked.selection, asked.options)
    if not folder.is_local:
        raise ConfigurationError(f"{str(folder)!r} is not on this machine: write shards to it (--engine local)")
    plan = planned(files, identity, asked.options, 1, is_whole=True)
    candidates = Path(folder.path) / CANDIDATES
    if asked.written.with_candidates and candidates.exists() and not _has_own_candidates(folder):
        raise OutputError(f"{str(candidates)!r} exists and is of no dataset of this package: choose another folder")
    state = folder / STATE
    results: list[PairedFiles] = []

    def fill(stages: Mapping[str, Path]) -> Staged:
        state.remove()
        state.create_folder()
        run = Run(state, {name: Place(str(path)) for name, path in stages.items()}, plan, asked, engine, told)
        results.append(run.go())
        if asked.written.needs_rows and not results[0].has_rows:
            raise _NoRowsError
        return _staged(stages, results[0], asked)

    try:
        dataset = publish(Path(folder.path), asked.written.target, fill)
        if asked.written.with_candidates:
            found = Path((state / CANDIDATES).path)
            found.touch()
            found.replace(candidates)
    except _NoRowsError:
        return results[0]
    finally:
        state.remove()
    pairs = {side: results[0].pairs.get(side, 0) for side in SplitName}
    return replace(results[0], folder=folder.uri, manifest=str(dataset.manifest), pairs=pairs, dataset=dataset)


def _staged(stages: Mapping[str, Path], result: PairedFiles, asked: Asked) -> Staged:
    formats = [
        WrittenFormat(
            one,
            _sides(one, stages[one.name], result),
            has_calls=result.has_calls,
        )
        for one in formats_named(asked.options.formats)
    ]
    tally = Tally(pairs={side: result.pairs.get(side, 0) for side in SplitName})
    tally.refused = {name: Counter(reasons) for name, reasons in result.left_out.items()}
    configuration = dict(asked.written.configuration)
    if asked.written.with_candidates:
        configuration["recorded"] = [one.to_json() for one in result.read]
    return Staged(formats, tally, Provenance(asked.options.seed, configuration, {"pairs": dict(result.skipped)}))


def _sides(one: Format, stage: Path, result: PairedFiles) -> dict[SplitName, WrittenFile]:
    """Return the file of each side, also of one without rows."""
    sides = {}
    for side, name in one.files.items():
        found = next((file for file in result.files if file.path == f"{one.name}/{name}"), None)
        if found is None:
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).touch()
            found = WrittenFile(name, 0, 0, sha256().hexdigest())
        sides[side] = replace(found, path=name)
    return sides

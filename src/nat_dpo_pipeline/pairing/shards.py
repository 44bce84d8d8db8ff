"""Shards: files of a dataset that several tasks make, in a folder, local or not, where a run may go on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.dataset.card import CARD_NAME
from nat_dpo_pipeline.dataset.files import lock_of
from nat_dpo_pipeline.dataset.formats import format_names, formats_named
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME
from nat_dpo_pipeline.dataset.writer import (
    MARK,
    Target,
    check_target,
)
from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.pairing.engines import Engine, workers_of
from nat_dpo_pipeline.pairing.manifest import identity_in, result_in, write_card, write_manifest
from nat_dpo_pipeline.pairing.options import FileKind, PairedFiles, PairingOptions, Progress
from nat_dpo_pipeline.pairing.partition import write_scores
from nat_dpo_pipeline.pairing.plan import Plan, difference, identity_of, planned
from nat_dpo_pipeline.pairing.run import PLAN, STATE, Asked, Run
from nat_dpo_pipeline.records.inputs import InputFile
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.stored import restored, stored


def run_shards(folder: Place, files: Sequence[InputFile], asked: Asked, engine: Engine, told: Progress) -> PairedFiles:
    """Make the shards of a dataset; what an earlier run of the same has made is not made again.

    Raises OutputError where something else is in the folder.
    """
    _check_formats(asked.options)
    identity = identity_of(files, asked.rules, asked.selection, asked.options)
    with _locked(folder):
        if (folder / MANIFEST_NAME).exists() and _is_same(folder, identity_in(folder), identity, asked.options):
            result = result_in(folder)
            write_card(folder, result, identity, asked.written.target.about)
            return result
        plan = _plan(folder, files, identity, asked.options)
        folders = {one.name: folder / one.name for one in formats_named(asked.options.formats)}
        run = Run(folder / STATE, folders, plan, asked, engine, told)
        result = replace(run.go(), folder=folder.uri, manifest=(folder / MANIFEST_NAME).uri)
        run.remove_files(result.files)
        write_manifest(folder, result, plan.identity, asked.written.target.about)
        (folder / STATE).remove()
        return result


def _check_formats(options: PairingOptions) -> None:
    for one in formats_named(options.formats):
        if options.kind is FileKind.PARQUET and one.columns is None:
            raise ConfigurationError(f"the format {one.name!r} has no fixed columns: write it as jsonl, not parquet")


@contextmanager
def _locked(folder: Place) -> Iterator[None]:
    folder.create_folder()
    if not folder.is_local:
        yield
        return
    with lock_of(Path(folder.path)):
        yield


def _is_same(
    folder: Place, before: Mapping[str, Any] | None, identity: Mapping[str, Any], options: PairingOptions
) -> bool:
    """Whether what is in the folder is of the same run; if not it is removed, or OutputError raised."""
    differs = "that it was not made by a run over files" if before is None else difference(identity, before)
    if differs is None:
        return True
    if not options.overwrite:
        raise OutputError(
            f"{str(folder)!r} holds a dataset, or part of one, that is of something else; what differs is {differs}: "
            "choose another folder, or overwrite it"
        )
    _clear(folder)
    return False


def _clear(folder: Place) -> None:
    # The manifest first: what is left without one is no dataset.
    for name in (MANIFEST_NAME, CARD_NAME, STATE):
        (folder / name).remove()
    for name in format_names():
        if (folder / name / MARK).exists():
            (folder / name).remove()


def _plan(folder: Place, files: Sequence[InputFile], identity: Mapping[str, Any], options: PairingOptions) -> Plan:
    """The plan of the unfinished run in the folder, if it is of the same; else a new one."""
    file = folder / STATE / PLAN
    if file.exists():
        plan = restored(Plan, file.read())
        if _is_same(folder, plan.identity, identity, options):
            return plan
    if folder.is_local:
        check_target(Path(folder.path), Target(options.formats))
    plan = planned(files, identity, options, workers_of(options), is_whole=False)
    _clear(folder)
    (folder / STATE).create_folder()
    write_scores(folder / STATE, plan.scores)
    file.write(stored(replace(plan, scores={})))
    return plan

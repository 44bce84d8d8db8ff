"""A run over files: plan, shards, what the whole run decides, manifest. What is done already is not done again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.card import CARD_NAME
from nat_dpo_pipeline.dataset.files import WrittenFile, lock_of
from nat_dpo_pipeline.dataset.formats import FORMATS, SplitName, formats_named
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME
from nat_dpo_pipeline.dataset.writer import MARK, Target, check_target
from nat_dpo_pipeline.errors import ConfigurationError, InputError, OutputError
from nat_dpo_pipeline.pairing.api import Progress
from nat_dpo_pipeline.pairing.encoding import needs_all_facts
from nat_dpo_pipeline.pairing.engines import Engine, workers_of
from nat_dpo_pipeline.pairing.facts import Wanted
from nat_dpo_pipeline.pairing.manifest import identity_in, result_in, write_card, write_manifest
from nat_dpo_pipeline.pairing.options import FileKind, ScaleOptions, ScaleResult
from nat_dpo_pipeline.pairing.partition import PARTS, PARTS_LIST
from nat_dpo_pipeline.pairing.plan import InputFile, Plan, difference, found_inputs, identity_of, planned
from nat_dpo_pipeline.pairing.stages import Stage
from nat_dpo_pipeline.pairing.tasks import Done, Job, PairTask, Part, PartitionTask
from nat_dpo_pipeline.pairing.verdicts import Verdicts
from nat_dpo_pipeline.pairing.work import EVALUATION, FACTS, TURNS, VERDICTS, shard_name
from nat_dpo_pipeline.records.places import PARTIAL, Place, place

#: The folder, in that of the output, of what only an unfinished run needs.
STATE = ".scale"
_PLAN = "plan.json"
_DECIDED = "decided.json"
_MOST_BAD_TOLD = 20
# A hash, where it is read, gathered and sorted.
_BYTES_A_TURN = 32


def run_files(
    inputs: Sequence[str],
    output: str,
    rules: PairingRules,
    selection: SelectionRules,
    options: ScaleOptions,
    engine: Engine,
    told: Progress,
) -> ScaleResult:
    """See `nat_dpo_pipeline.pairing.api.pair_files`."""
    _check_formats(options)
    folder = place(output)
    files = found_inputs(inputs)
    identity = identity_of(files, rules, selection, options)
    with _locked(folder):
        if (folder / MANIFEST_NAME).exists() and _is_same(folder, identity_in(folder), identity, options):
            result = result_in(folder)
            write_card(folder, result, identity, options.about)
            return result
        plan = _plan(folder, files, identity, options)
        return _Run(folder, plan, rules, selection, options, engine, told).go()


def _check_formats(options: ScaleOptions) -> None:
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
    folder: Place, before: Mapping[str, Any] | None, identity: Mapping[str, Any], options: ScaleOptions
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
    for one in FORMATS:
        if (folder / one.name / MARK).exists():
            (folder / one.name).remove()


def _plan(folder: Place, files: Sequence[InputFile], identity: Mapping[str, Any], options: ScaleOptions) -> Plan:
    """The plan of the unfinished run in the folder, if it is of the same; else a new one."""
    stored = folder / STATE / _PLAN
    if stored.exists():
        plan = Plan.from_json(stored.read())
        if _is_same(folder, plan.identity, identity, options):
            return plan
    if folder.is_local:
        check_target(Path(folder.path), Target(options.formats))
    plan = planned(files, identity, options, workers_of(options))
    _clear(folder)
    (folder / STATE).create_folder()
    stored.write(plan.to_json())
    return plan


class _Run:
    """One run, from its plan to its manifest."""

    def __init__(
        self,
        folder: Place,
        plan: Plan,
        rules: PairingRules,
        selection: SelectionRules,
        options: ScaleOptions,
        engine: Engine,
        told: Progress,
    ) -> None:
        self._folder, self._state = folder, folder / STATE
        self._plan, self._selection, self._options, self._engine, self._told = plan, selection, options, engine, told
        self._resumed = 0
        self._job = Job(
            rules=rules,
            formats=options.formats,
            kind=options.kind,
            validation_fraction=options.validation_fraction,
            seed=options.seed,
            wanted=Wanted.of(selection, deduplicate=options.deduplicate),
            is_decontaminated=options.decontamination is not None,
            with_raw=rules.min_agreement is not None or any(map(needs_all_facts, formats_named(options.formats))),
            folder=folder,
            state=self._state,
        )

    def go(self) -> ScaleResult:
        self._prepare()
        partitioned: list[Done] = []
        paired = None if self._plan.is_scattered else self._pair([*self._plan.ranges])
        if paired is None:
            partitioned = self._partition()
            paired = self._pair([Part(number, self._plan.partitions) for number in range(self._plan.partitions)]) or []
        done = self._selected(paired)
        result = self._result(partitioned, done)
        self._check_bad_share(result, partitioned, done)
        self._remove_files(result.files)
        write_manifest(self._folder, result, self._plan.identity, self._options.about)
        self._state.remove()
        return result

    def _prepare(self) -> None:
        for one in formats_named(self._options.formats):
            (self._folder / one.name).create_folder()
            if not (self._folder / one.name / MARK).exists():
                (self._folder / one.name / MARK).write(b"")
            _remove_partial(self._folder / one.name)
        for name in (FACTS, VERDICTS, TURNS, PARTS):
            (self._state / name).create_folder()
            _remove_partial(self._state / name)
        against = self._options.decontamination
        if against is not None:
            stored = {"texts": [text.encode(errors="replace").decode() for text in against.texts]}
            (self._state / EVALUATION).write(orjson.dumps({**stored, "ngram": against.ngram}))

    def _partition(self) -> list[Done]:
        tasks = [
            PartitionTask(self._job, number, source, self._plan.partitions)
            for number, source in enumerate(self._plan.ranges)
        ]
        done = self._stage("partition").run(self._engine, tasks, is_valid=lambda _: True)
        (self._state / PARTS_LIST).write(orjson.dumps([name for one in done for name in one.parts]))
        return done

    def _pair(self, sources: Sequence[Any]) -> list[Done] | None:
        """What came of the shards; None when the candidates of turns turned out to be scattered."""
        tasks = [
            PairTask(
                self._job,
                number,
                source,
                with_facts=self._is_selective,
                with_rows=self._writes_at_once,
                with_verdicts=False,
            )
            for number, source in enumerate(sources)
        ]
        is_decided = (self._state / _DECIDED).exists()
        name = "pair_partitions" if self._plan.is_scattered else "pair"
        stage = self._stage(name)
        done = stage.run(self._engine, tasks, is_valid=lambda one: is_decided or self._is_there(one))
        self._resumed = stage.resumed
        if self._plan.is_scattered or not (any(one.is_scattered for one in done) or self._have_turns_in_common(done)):
            return done
        self._plan = self._plan.scattered()
        (self._state / _PLAN).write(self._plan.to_json())
        self._remove_files(())
        return None

    @property
    def _is_selective(self) -> bool:
        """Whether the whole run has a say in which pairs are kept."""
        return not self._selection.is_empty or self._options.deduplicate or self._options.max_pairs is not None

    @property
    def _writes_at_once(self) -> bool:
        """Whether rows are written before all pairs are known: few of them are expected to go."""
        return self._selection.is_empty and self._options.max_pairs is None

    def _stage(self, name: str) -> Stage:
        return Stage(self._state, name, self._told)

    def _is_there(self, done: Done) -> bool:
        return all((self._folder / file.path).info().size == file.size for file in done.files)

    def _have_turns_in_common(self, done: Sequence[Done]) -> bool:
        total = sum(one.turns for one in done)
        buckets = total * _BYTES_A_TURN // self._options.memory + 1
        for bucket in range(buckets):
            inside = [np.zeros(0, dtype=np.uint64)]
            for one in done:
                seen = np.frombuffer((self._state / TURNS / shard_name(one.number)).read(), np.uint64)
                inside.append(seen[seen % np.uint64(buckets) == bucket])
            found = np.sort(np.concatenate(inside))
            if (found[1:] == found[:-1]).any():
                return True
        return False

    def _remove_files(self, kept: Iterable[WrittenFile]) -> None:
        """Remove what shards have written that is not among the files: those that have lost all pairs of a side."""
        paths = {file.path for file in kept}
        for one in formats_named(self._options.formats):
            for name in (self._folder / one.name).files():
                if name != MARK and f"{one.name}/{name}" not in paths:
                    (self._folder / one.name / name).remove()

    def _selected(self, paired: Sequence[Done]) -> list[Done]:
        """The shards as they are to be, once the whole run has had its say."""
        if not self._is_selective:
            return list(paired)
        if not (self._state / _DECIDED).exists():
            self._decide(paired)
        changed = set(orjson.loads((self._state / _DECIDED).read()))
        by_number = {one.number: one for one in paired}
        sources: Sequence[Any] = self._plan.ranges
        if self._plan.is_scattered:
            sources = [Part(number, self._plan.partitions) for number in range(self._plan.partitions)]
        tasks = [
            PairTask(self._job, number, source, with_facts=False, with_rows=True, with_verdicts=True)
            for number, source in enumerate(sources)
            if number in changed
        ]
        for one in self._stage("select").run(self._engine, tasks, is_valid=self._is_there):
            by_number[one.number] = one
        return [by_number[number] for number in sorted(by_number)]

    def _decide(self, paired: Sequence[Done]) -> None:
        verdicts = Verdicts(self._state / FACTS, [one.pairs_made for one in paired], self._options.memory)
        verdicts.decide(
            self._selection,
            deduplicate=self._options.deduplicate,
            max_pairs=self._options.max_pairs,
            seed=self._options.seed,
        )
        changed = []
        for one in paired:
            found = verdicts.of_shard(one.number)
            if not self._writes_at_once or found.any():
                buffer = BytesIO()
                np.save(buffer, found)
                (self._state / VERDICTS / f"{shard_name(one.number)}.npy").write(buffer.getvalue())
                changed.append(one.number)
        (self._state / _DECIDED).write(orjson.dumps(changed))

    def _result(self, partitioned: Sequence[Done], done: Sequence[Done]) -> ScaleResult:
        every = [*partitioned, *done]
        bad = [*self._plan.bad, *(one for each in every for one in each.bad)]
        left_out: dict[str, Counter[str]] = {}
        for one in done:
            for name, reasons in one.left_out.items():
                left_out.setdefault(name, Counter()).update(reasons)
        return ScaleResult(
            folder=self._folder.uri,
            manifest=(self._folder / MANIFEST_NAME).uri,
            files=[file for one in done for file in one.files],
            pairs={side: sum(one.pairs.get(side, 0) for one in done) for side in SplitName},
            candidates=sum(one.candidates for one in done),
            turns=sum(one.turns for one in done),
            skipped=_summed(one.skipped for one in done),
            refused=_summed(one.refused for one in every),
            left_out={name: dict(sorted(reasons.items())) for name, reasons in left_out.items()},
            bad_rows=sum(one.bad_rows for one in every),
            bad=bad[:_MOST_BAD_TOLD],
            scattered=self._plan.is_scattered,
            shards=len(done),
            resumed=self._resumed,
        )

    def _check_bad_share(self, result: ScaleResult, partitioned: Sequence[Done], done: Sequence[Done]) -> None:
        rows = result.candidates + sum(result.refused.values()) + result.bad_rows
        files = len(self._plan.identity["inputs"])
        bad_files = len(self._plan.bad) + sum(one.bad_files for one in (*partitioned, *done))
        most = self._options.max_bad_share
        for bad, total, what in ((result.bad_rows, rows, "rows"), (bad_files, files, "files")):
            if bad > most * total:
                raise InputError(
                    f"{bad:,} of {total:,} {what} cannot be read, and max_bad_share is {most}: first of them "
                    f"{result.bad[0]}"
                )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _remove_partial(folder: Place) -> None:
    """What a run that was killed has left half written."""
    for name in folder.files():
        if PARTIAL in name:
            (folder / name).remove()

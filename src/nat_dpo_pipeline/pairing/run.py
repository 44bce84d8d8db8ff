"""One run over files: from its plan to its pairs. What is done already is not done again."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import orjson

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.files import PARTIAL, WrittenFile
from nat_dpo_pipeline.dataset.formats import SplitName, formats_named
from nat_dpo_pipeline.dataset.writer import (
    MARK,
)
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.pairing.encoding import needs_all_facts
from nat_dpo_pipeline.pairing.engines import Engine
from nat_dpo_pipeline.pairing.facts import Wanted
from nat_dpo_pipeline.pairing.options import EngineName, PairedFiles, PairingOptions, Progress, Written
from nat_dpo_pipeline.pairing.partition import PARTS, PARTS_LIST, write_scores
from nat_dpo_pipeline.pairing.plan import Plan
from nat_dpo_pipeline.pairing.stages import Stage
from nat_dpo_pipeline.pairing.tasks import Done, Job, PairTask, Part, PartitionTask
from nat_dpo_pipeline.pairing.verdicts import Verdicts
from nat_dpo_pipeline.pairing.work import EVALUATION, FACTS, TURNS, VERDICTS, shard_name
from nat_dpo_pipeline.pairing.writing import HELD_OUT
from nat_dpo_pipeline.records.inputs import counted_files, problems_of
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.ranges import ReadCounts
from nat_dpo_pipeline.records.stored import stored

_DECIDED = "decided.json"
#: The file of an unfinished run's plan, in the folder of its state.
PLAN = "plan.json"
#: The folder, in that of the output, of what only an unfinished run needs.
STATE = ".scale"
_MOST_BAD_TOLD = 20
# A hash, where it is read, gathered and sorted.
_BYTES_A_TURN = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to make, and by which rules."""

    rules: PairingRules
    selection: SelectionRules
    options: PairingOptions
    written: Written


class Run:
    """One run, from its plan to its pairs."""

    def __init__(
        self,
        state: Place,
        folders: Mapping[str, Place],
        plan: Plan,
        asked: Asked,
        engine: Engine,
        told: Progress,
    ) -> None:
        options = asked.options
        is_whole = options.engine is EngineName.MEMORY
        self._state, self._folders = state, folders
        self._plan, self._selection, self._options, self._engine, self._told = (
            plan,
            asked.selection,
            options,
            engine,
            told,
        )
        self._resumed = 0
        formats = formats_named(options.formats)
        wants_facts = asked.rules.min_agreement is not None or options.stratify or asked.written.with_candidates
        self._job = Job(
            rules=asked.rules,
            formats=options.formats,
            kind=options.kind,
            validation_fraction=options.validation_fraction,
            seed=options.seed,
            single_label_score=options.single_label_score,
            is_split_late=options.is_split_late,
            wanted=Wanted.of(
                asked.selection,
                deduplicate=options.deduplicate,
                sides=options.is_split_late,
                strata=options.stratify,
            ),
            is_decontaminated=options.decontamination is not None,
            step_name=options.step_name,
            with_raw=wants_facts or any(map(needs_all_facts, formats)),
            with_candidates=asked.written.with_candidates,
            is_whole=is_whole,
            folders=folders,
            state=state,
        )

    def go(self) -> PairedFiles:
        """Do all tasks. Raises InputError when too much cannot be read."""
        self._prepare()
        partitioned: list[Done] = []
        paired = None if self._plan.is_scattered else self._pair(self._plan.tasks)
        if paired is None:
            partitioned = self._partition()
            paired = self._pair(self._parts()) or []
        read = partitioned or paired
        result = self._result(read, self._selected(paired))
        self._check_bad_share(result, read)
        return result

    def _prepare(self) -> None:
        for folder in self._folders.values():
            folder.create_folder()
            if not (folder / MARK).exists():
                (folder / MARK).write(b"")
            _remove_partial(folder)
        for name in (FACTS, VERDICTS, TURNS, PARTS):
            (self._state / name).create_folder()
            _remove_partial(self._state / name)
        write_scores(self._state, self._plan.scores)
        against = self._options.decontamination
        if against is not None:
            texts = {"texts": [text.encode(errors="replace").decode() for text in against.texts]}
            (self._state / EVALUATION).write(orjson.dumps({**texts, "ngram": against.ngram}))

    def _parts(self) -> list[list[Part]]:
        parts = [Part(number, self._plan.partitions) for number in range(self._plan.partitions)]
        return [parts] if self._job.is_whole else [[part] for part in parts]

    def _partition(self) -> list[Done]:
        tasks = [
            PartitionTask(self._job, number, sources, self._plan.partitions)
            for number, sources in enumerate(self._plan.tasks)
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
        (self._state / PLAN).write(stored(replace(self._plan, scores={})))
        self.remove_files(())
        return None

    @property
    def _is_selective(self) -> bool:
        """Whether the whole run has a say in which pairs are kept, or on which side they are."""
        options = self._options
        has_rules = not self._selection.is_empty or options.deduplicate or options.max_pairs is not None
        return has_rules or options.is_split_late

    @property
    def _writes_at_once(self) -> bool:
        """Whether rows are written before all pairs are known: few of them are expected to go."""
        return self._selection.is_empty and self._options.max_pairs is None and not self._options.is_split_late

    def _stage(self, name: str) -> Stage:
        return Stage(self._state, name, self._told)

    def _is_there(self, done: Done) -> bool:
        for file in done.files:
            name, _, path = file.path.partition("/")
            info = (self._folders[name] / path).info()
            if info is None or info.size != file.size:
                return False
        return True

    def _have_turns_in_common(self, done: Sequence[Done]) -> bool:
        if len(done) < 2:
            return False
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

    def remove_files(self, kept: Iterable[WrittenFile]) -> None:
        """Remove what shards have written that is not among the files: those that have lost all pairs of a side."""
        paths = {file.path for file in kept}
        for one, folder in self._folders.items():
            for name in folder.files():
                if name != MARK and f"{one}/{name}" not in paths:
                    (folder / name).remove()

    def _selected(self, paired: Sequence[Done]) -> list[Done]:
        """The shards as they are to be, once the whole run has had its say."""
        if not self._is_selective:
            return list(paired)
        if not (self._state / _DECIDED).exists():
            self._decide(paired)
        changed = set(orjson.loads((self._state / _DECIDED).read()))
        by_number = {one.number: one for one in paired}
        sources: Sequence[Any] = self._parts() if self._plan.is_scattered else self._plan.tasks
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
        if self._options.is_split_late:
            (self._state / HELD_OUT).write(_saved(verdicts.held_out(self._options.validation_fraction)))
        changed = []
        for one in paired:
            found = verdicts.of_shard(one.number)
            if not self._writes_at_once or found.any():
                (self._state / VERDICTS / f"{shard_name(one.number)}.npy").write(_saved(found))
                changed.append(one.number)
        (self._state / _DECIDED).write(orjson.dumps(changed))

    def _result(self, read: Sequence[Done], done: Sequence[Done]) -> PairedFiles:
        counts: dict[int, ReadCounts] = {}
        for one in read:
            for number, found in one.read.items():
                counts.setdefault(number, ReadCounts()).add(found)
        in_order = [counts[number] for number in sorted(counts)]
        left_out: dict[str, Counter[str]] = {}
        for one in done:
            for name, reasons in one.left_out.items():
                left_out.setdefault(name, Counter()).update(reasons)
        files = counted_files(self._plan.files, counts)
        other_names = {name for one in read for name in one.other_names}
        return PairedFiles(
            folder="",
            manifest="",
            files=[file for one in done for file in one.files],
            pairs={side: sum(one.pairs.get(side, 0) for one in done) for side in SplitName},
            candidates=sum(one.candidates for one in done),
            turns=sum(one.turns for one in done),
            turns_split=sum(one.turns_split for one in done),
            skipped=_summed(one.skipped for one in done),
            refused=_summed(one.refused for one in in_order),
            left_out={name: dict(sorted(reasons.items())) for name, reasons in left_out.items()},
            bad_rows=sum(one.bad_rows for one in in_order),
            bad=[*self._plan.bad, *(told for one in in_order for told in one.told)][:_MOST_BAD_TOLD],
            read=files,
            problems=list(problems_of(files, self._options.step_name, other_names)),
            scattered=self._plan.is_scattered,
            shards=len(done),
            has_calls=any(one.has_calls for one in done),
            resumed=self._resumed,
        )

    def _check_bad_share(self, result: PairedFiles, read: Sequence[Done]) -> None:
        rows = result.candidates + sum(result.refused.values()) + result.bad_rows
        files = len(self._plan.identity["inputs"])
        bad_files = len(self._plan.bad) + sum(found.bad_files for one in read for found in one.read.values())
        most = self._options.most_bad
        for bad, total, what in ((result.bad_rows, rows, "rows"), (bad_files, files, "files")):
            if bad > most * total:
                raise InputError(
                    f"{bad:,} of {total:,} {what} cannot be read, and max_bad_share is {most}: first of them "
                    f"{result.bad[0]}"
                )


def _saved(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


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

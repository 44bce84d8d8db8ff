"""What a process does with a task. Doing it again leaves the same files."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

import numpy as np
import orjson

from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.pairs import SkipReason
from nat_dpo_pipeline.dataset.formats import formats_named
from nat_dpo_pipeline.pairing.encoding import Block
from nat_dpo_pipeline.pairing.facts import Facts
from nat_dpo_pipeline.pairing.kernel import pair_turns
from nat_dpo_pipeline.pairing.partition import partition, partition_turns
from nat_dpo_pipeline.pairing.tasks import Done, PairTask, Part, PartitionTask, Task
from nat_dpo_pipeline.pairing.verdicts import REASONS
from nat_dpo_pipeline.pairing.writing import ShardFiles
from nat_dpo_pipeline.records.columns import Columns, accepted, contiguous_turns
from nat_dpo_pipeline.records.hashing import Hashes, hashes, turn_text
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.ranges import Troubles
from nat_dpo_pipeline.records.rows import FLAT
from nat_dpo_pipeline.records.whole_turns import whole_turns

FACTS, VERDICTS, TURNS = "facts", "verdicts", "turns"
EVALUATION = "evaluation.json"


def shard_name(shard: int) -> str:
    """The name of what is kept of a shard, without its suffix."""
    return f"{shard:05}"


def do(task: Task) -> Done:
    """Do the task."""
    return partition(task) if isinstance(task, PartitionTask) else _pair(task)


class _Scattered(Exception):  # noqa: N818 - a finding, no error
    """A turn that had ended goes on."""


def _pair(task: PairTask) -> Done:
    try:
        return _Shard(task).done()
    except _Scattered:
        return Done(task.number, is_scattered=True)


class _Shard:
    """One shard: from its rows to facts and files."""

    def __init__(self, task: PairTask) -> None:
        self._task = task
        self._troubles = Troubles()
        self._refused: Counter[str] = Counter()
        self._skipped: Counter[SkipReason] = Counter()
        self._left_out: Counter[str] = Counter()
        self._facts = Facts(task.job.wanted)
        self._seen: set[int] = set()
        self._candidates = self._turns = self._made = 0
        self._verdicts = _verdicts(task) if task.with_verdicts else None

    def done(self) -> Done:
        task, job = self._task, self._task.job
        formats = formats_named(job.formats)
        files = ShardFiles(job.folder, formats, job.kind, task.number)
        with files:
            for columns in self._rows():
                block = self._block(columns)
                if task.with_rows and len(block.pairs):
                    files.add(block, job.validation_fraction, job.seed)
        if task.with_facts:
            self._facts.write(job.state / FACTS, task.number)
        if not isinstance(task.source, Part):
            seen = np.sort(np.fromiter(self._seen, np.uint64, len(self._seen)))
            (job.state / TURNS / shard_name(task.number)).write(seen.tobytes())
        return Done(
            number=task.number,
            candidates=self._candidates,
            turns=self._turns,
            pairs_made=self._made,
            pairs=files.pairs,
            skipped=Counter({str(reason): count for reason, count in self._skipped.items()}) + self._left_out,
            refused=self._refused,
            left_out={
                name: {str(why): n for why, n in found.items()} for name, found in files.refused.items() if found
            },
            files=files.written(),
            bad_rows=self._troubles.rows,
            bad_files=self._troubles.files,
            bad=tuple(self._troubles.told),
        )

    def _rows(self) -> Iterator[Columns]:
        source, job = self._task.source, self._task.job
        if isinstance(source, Part):
            yield from partition_turns(source, job)
            return
        for columns in whole_turns(source, self._refused, self._troubles, with_raw=job.with_raw):
            self._note_turns(columns)
            yield columns

    def _note_turns(self, columns: Columns) -> None:
        """Raise _Scattered for a turn that was there before."""
        is_first = np.concatenate(([True], columns.borders()))
        rows = np.flatnonzero(is_first & (columns.line == FLAT))
        found = _turn_hashes(columns, rows).tolist()
        before = len(self._seen)
        self._seen.update(found)
        if len(self._seen) < before + len(found):
            raise _Scattered

    def _block(self, columns: Columns) -> Block:
        """The pairs of the rows, as far as they are kept."""
        task = self._task
        turns = contiguous_turns(accepted(columns, self._refused))
        self._candidates += len(turns.columns)
        self._turns += len(turns)
        block = Block(turns, pair_turns(turns, task.job.rules, self._skipped))
        if task.job.is_decontaminated:
            block = self._decontaminated(block)
        if task.with_facts:
            self._facts.add(block)
        start = self._made
        self._made += len(block.pairs)
        if self._verdicts is None:
            return block
        verdicts = self._verdicts[start : self._made]
        self._left_out.update(
            {REASONS[code]: count for code, count in enumerate(np.bincount(verdicts).tolist()) if code and count}
        )
        return Block(turns, block.pairs.take(verdicts == 0))

    def _decontaminated(self, block: Block) -> Block:
        evaluation = _evaluation(self._task.job.state)
        turns, prompts = block.prompts()
        is_clean = np.ones(len(block.turns), dtype=bool)
        is_clean[turns] = [not evaluation.overlaps(prompt) for prompt in prompts]
        is_kept = is_clean[block.pairs.turn]
        if not is_kept.all():
            self._skipped[SkipReason.CONTAMINATED] += int((~is_kept).sum())
        return Block(block.turns, block.pairs.take(is_kept))


def _turn_hashes(columns: Columns, rows: np.ndarray) -> Hashes:
    names = (columns.run_id[rows], columns.example_id[rows], columns.turn_id[rows])
    return hashes(turn_text(*ids) for ids in zip(*names, strict=True))


def _verdicts(task: PairTask) -> np.ndarray:
    stored = (task.job.state / VERDICTS / f"{shard_name(task.number)}.npy").read()
    return np.load(BytesIO(stored))  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _evaluation(state: Place) -> EvaluationSet:
    # Its hashes are those of a process, so that each makes its own.
    stored = orjson.loads((state / EVALUATION).read())
    return EvaluationSet(stored["texts"], stored["ngram"])

"""What a process does with a task. Doing it again leaves the same files."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from io import BytesIO

import numpy as np
import orjson

from nat_dpo_pipeline.core.decontamination import EvaluationSet
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason
from nat_dpo_pipeline.dataset.files import Sink
from nat_dpo_pipeline.dataset.run_files import CANDIDATES
from nat_dpo_pipeline.dataset.turn_rows import scored_turn_row
from nat_dpo_pipeline.pairing.encoding import Block
from nat_dpo_pipeline.pairing.facts import Facts
from nat_dpo_pipeline.pairing.kernel import pair_turns
from nat_dpo_pipeline.pairing.partition import partition, partition_turns, scores_in
from nat_dpo_pipeline.pairing.tasks import Done, PairTask, Part, PartitionTask, Task
from nat_dpo_pipeline.pairing.verdicts import REASONS
from nat_dpo_pipeline.pairing.writing import ShardFiles
from nat_dpo_pipeline.records.branching import without_rollouts
from nat_dpo_pipeline.records.columns import FLAT, Columns, Ints, Turns, contiguous_turns
from nat_dpo_pipeline.records.places import FileInfo, Place
from nat_dpo_pipeline.records.ranges import ReadCounts
from nat_dpo_pipeline.records.reader import Reader
from nat_dpo_pipeline.records.values import Shared
from nat_dpo_pipeline.records.whole_turns import whole_turns

FACTS, VERDICTS, TURNS = "facts", "verdicts", "turns"
EVALUATION = "evaluation.json"
#: The candidates that pairs are made of, in the folder of the state.


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
        self._read: dict[int, ReadCounts] = {}
        self._shared = Shared(task.job.step_name, scores_in(task.job.state))
        self._skipped: Counter[SkipReason] = Counter()
        self._left_out: Counter[str] = Counter()
        self._facts = Facts(task.job.wanted, task.job.seed)
        self._seen: set[int] = set()
        self._candidates = self._turns = self._split = self._made = 0
        self._verdicts = _verdicts(task) if task.with_verdicts else None

    def done(self) -> Done:
        task, job = self._task, self._task.job
        with ExitStack() as stack:
            files = stack.enter_context(ShardFiles(job, task.number))
            candidates = stack.enter_context((job.state / CANDIDATES).replaced()) if self._is_told else None
            for columns in self._rows():
                block = self._block(columns, candidates)
                if task.with_rows and len(block):
                    files.add(block)
        if task.with_facts:
            self._facts.write(job.state / FACTS, task.number)
        if not self._is_partitioned:
            seen = np.sort(np.fromiter(self._seen, np.uint64, len(self._seen)))
            (job.state / TURNS / shard_name(task.number)).write(seen.tobytes())
        return Done(
            number=task.number,
            candidates=self._candidates,
            turns=self._turns,
            turns_split=self._split,
            pairs_made=self._made,
            pairs=files.pairs,
            skipped=Counter({str(reason): count for reason, count in self._skipped.items()}) + self._left_out,
            left_out={
                name: {str(why): n for why, n in found.items()} for name, found in files.refused.items() if found
            },
            files=files.written(),
            has_calls=files.has_calls,
            read=self._read,
            other_names=sorted(self._shared.other_names),
        )

    @property
    def _is_partitioned(self) -> bool:
        return isinstance(self._task.sources[0], Part)

    @property
    def _is_told(self) -> bool:
        """Whether the candidates are written beside their pairs: in the last pass."""
        return self._task.job.with_candidates and self._task.with_rows

    def _rows(self) -> Iterator[Columns]:
        job = self._task.job
        reader = Reader(self._shared, with_raw=job.with_raw)
        for source in self._task.sources:
            if isinstance(source, Part):
                yield from partition_turns(source, job)
                continue
            counts = ReadCounts()
            for columns in whole_turns(source, reader, counts):
                self._note_turns(columns)
                yield columns
            self._read.setdefault(source.number, ReadCounts()).add(counts)

    def _note_turns(self, columns: Columns) -> None:
        """Raise _Scattered for a turn that was there before."""
        is_first = np.concatenate(([True], columns.borders()))
        found = columns.take(is_first & (columns.line == FLAT)).turn_hashes().tolist()
        before = len(self._seen)
        self._seen.update(found)
        if len(self._seen) < before + len(found):
            raise _Scattered

    def _block(self, columns: Columns, candidates: Sink | None) -> Block:
        """The pairs of the rows, as far as they are kept."""
        task, job = self._task, self._task.job
        turns = contiguous_turns(without_rollouts(columns, job.rules, self._skipped))
        if candidates is not None:
            candidates.write(b"".join(map(scored_turn_row, turns.each())))
        self._candidates += len(turns.columns)
        self._turns += len(turns)
        self._split += turns.split
        block = Block(turns, pair_turns(turns, job.rules, self._skipped))
        if job.is_decontaminated:
            block = self._decontaminated(block)
        if job.single_label_score is not None:
            block = replace(block, singles=singles_in(turns, job.rules), label_score=job.single_label_score)
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
        return replace(block, pairs=block.pairs.take(verdicts == 0))

    def _decontaminated(self, block: Block) -> Block:
        file = self._task.job.state / EVALUATION
        evaluation = _evaluation(file, file.info())
        turns, prompts = block.prompts()
        is_clean = np.ones(len(block.turns), dtype=bool)
        is_clean[turns] = [not evaluation.overlaps(prompt) for prompt in prompts]
        is_kept = is_clean[block.pairs.turn]
        if not is_kept.all():
            self._skipped[SkipReason.CONTAMINATED] += int((~is_kept).sum())
        return replace(block, pairs=block.pairs.take(is_kept))


def singles_in(turns: Turns, rules: PairingRules) -> Ints:
    """The candidates that are alone in their turn; not what never pairs."""
    rows: Ints = turns.starts[:-1][np.diff(turns.starts) == 1]
    columns = turns.columns
    is_usable = np.array([bool(text.strip()) for text in columns.response[rows]], dtype=bool)
    return rows[is_usable if rules.pair_flawed else is_usable & ~columns.is_flawed[rows]]


def _verdicts(task: PairTask) -> np.ndarray:
    stored = (task.job.state / VERDICTS / f"{shard_name(task.number)}.npy").read()
    return np.load(BytesIO(stored))  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _evaluation(file: Place, _as_of: FileInfo | None) -> EvaluationSet:
    # Its hashes are those of a process, so that each makes its own.
    stored = orjson.loads(file.read())
    return EvaluationSet(stored["texts"], stored["ngram"])

"""The folder of a generation run: candidates, what was set aside, failures, and a manifest that says what they are."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from nat_dpo_pipeline.dataset.files import (
    WrittenFile,
    append_json,
    check_writable,
    lock_of,
    write_json,
    write_lines,
)
from nat_dpo_pipeline.dataset.manifest import GENERATOR, MANIFEST_NAME, ManifestKind, is_ours, versions
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, FAILURES, SET_ASIDE
from nat_dpo_pipeline.dataset.turn_rows import TurnSpool
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.generation import turns
from nat_dpo_pipeline.generation.record import Failure, GenerationRecord
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.generation.steps import Item

_OWN = (CANDIDATES, SET_ASIDE, FAILURES, MANIFEST_NAME)
_SPOOL = ".turns.sqlite"
# Says whose folder it is while there is no manifest: a run may be killed at any time.
_MARK = ".nat-dpo-pipeline"


class RunFolder:
    """Of one process at a time. A run that is started again replaces what an earlier one wrote, but for the journal.

    `first_failure` is the first that was not about an input.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first_failure: Failure | None = None
        self._started = _now()
        self._stack = ExitStack()
        self._spool: TurnSpool
        self._files: list[WrittenFile] = []

    def __enter__(self) -> Self:
        """Raises OutputError when the folder cannot be written to, is in use, or holds files of somebody else."""
        check_writable(self.path)
        with ExitStack() as stack:
            stack.enter_context(lock_of(self.path))
            self._claim()
            self._spool = TurnSpool(self.path / _SPOOL)
            stack.callback((self.path / _SPOOL).unlink, missing_ok=True)
            stack.callback(self._spool.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, item: Item[turns.Turn], example_id: str) -> None:
        """Keep a turn; the order of the files is that of the items' paths."""
        self._spool.add(item.path, item.value, example_id)

    def add_row(self, path: tuple[int, ...], row: bytes, *, to_pair: bool) -> None:
        """Keep a turn out of the folder of another run, which says whether it can be paired."""
        self._spool.add_row(path, row, to_pair=to_pair)

    def add_failures(self, lines: Iterable[bytes]) -> None:
        """Keep what another run wrote down."""
        with (self.path / FAILURES).open("ab") as file:
            file.writelines(lines)

    def failed(self, failure: Failure) -> None:
        """Write a failure down, at once."""
        if failure.step != StepName.INPUT:
            self.first_failure = self.first_failure or failure
        append_json(self.path / FAILURES, asdict(failure))

    def write_candidates(self) -> None:
        """Write the turns, each file whole or not at all. Raises OutputError."""
        with self._translated_errors():
            self._files = [self._write(CANDIDATES, to_pair=True), self._write(SET_ASIDE, to_pair=False)]

    def write_manifest(self, record: GenerationRecord, *, status: str, configuration: Mapping[str, object]) -> None:
        """Say what the run was and what was written; last, so that it speaks of all there is. Raises OutputError."""
        with self._translated_errors():
            write_json(self.path / MANIFEST_NAME, self._manifest(record, status, configuration))

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write the candidates to {str(self.path)!r}: {error}") from error

    def _claim(self) -> None:
        foreign = [name for name in _OWN if (self.path / name).exists()]
        if foreign and not (is_ours(self.path, ManifestKind.GENERATION) or (self.path / _MARK).exists()):
            raise OutputError(
                f"{str(self.path / foreign[0])!r} exists and was not written by this package for a run: choose another "
                "run folder or move it away"
            )
        (self.path / _MARK).touch()
        for name in (MANIFEST_NAME, FAILURES, _SPOOL):
            (self.path / name).unlink(missing_ok=True)

    def _write(self, name: str, *, to_pair: bool) -> WrittenFile:
        written = write_lines(self.path / name, self._spool.rows(to_pair=to_pair))
        if not written.rows and not to_pair:
            (self.path / name).unlink()
        return written

    def _manifest(
        self, record: GenerationRecord, status: str, configuration: Mapping[str, object]
    ) -> Mapping[str, object]:
        return {
            "generator": GENERATOR,
            "kind": ManifestKind.GENERATION,
            "status": status,
            "message": record.stopped,
            "stood_in_for": record.stood_in_for,
            "started": self._started,
            "ended": _now(),
            "versions": versions(),
            "configuration": configuration,
            "counts": dict(record.counts),
            "skipped": record.skips(),
            "spending": record.spending(),
            "cost": record.total_cost(),
            "files": [asdict(file) for file in self._files if file.rows],
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

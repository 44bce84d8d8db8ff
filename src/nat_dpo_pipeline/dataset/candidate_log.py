"""Rows of candidates, appended to a file of limited size that several processes and threads write to.

A row is in the file when `append` returns. It is one `write` in append mode, which keeps it whole among those of
others; the lock is for rotation. It is flock on the file itself, which takes 4 µs a row, where `filelock`, which opens
its file each time, takes 60; and it is gone with the process that held it.
"""

import errno
import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from nat_dpo_pipeline.json_text import json_line

logger = logging.getLogger(__name__)

#: Seconds to wait for the lock. Who holds it for longer is stopped or hangs, and is not waited for a second time.
_PATIENCE = 0.05
_BETWEEN_TRIES = 0.0002
_UNKNOWN = -1


class CandidateLog:
    """`candidates.jsonl`, and `candidates-000001.jsonl`, … of those that were full: the number is the order.

    What cannot be written is counted in `lost` and told once; a later row is tried again.
    """

    _mutex: threading.Lock
    _told: int

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.lost = 0
        self._path = path
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._start_over()

    def append(self, row: Mapping[str, object]) -> None:
        """Write the row, whatever is in it. Does not raise."""
        self._append(json_line(row))

    def check(self) -> None:
        """Open the file, so that a place that cannot be written to is told now. Does not raise."""
        self._append(b"")

    def close(self) -> None:
        """Say what was lost since that was last told; another row opens the file again."""
        self._start_over_if_forked()
        with self._mutex:
            self._close()
            if self.lost > self._told:
                logger.warning("%d candidates were not recorded in %s", self.lost - self._told, self._path)
                self._told = self.lost

    def failed(self, error: Exception) -> None:
        """Count a row that could not be written."""
        self.lost += 1
        self._tell_once(error)

    def _start_over(self) -> None:
        self._process = os.getpid()
        self._told = self.lost
        self._mutex = threading.Lock()
        self._end = _UNKNOWN
        self._patience = _PATIENCE
        self._is_failing = False

    def _start_over_if_forked(self) -> None:
        if self._process != os.getpid():
            # A fork shares the open file of its parent, and with it the lock; nobody may be left to release the mutex.
            self._close()
            self._start_over()

    def _append(self, line: bytes) -> None:
        self._start_over_if_forked()
        with self._mutex:
            try:
                self._write(line)
            except OSError as error:
                self._close()
                self.lost += bool(line)
                self._tell_once(error)
            else:
                self._tell_that_it_works()

    def _write(self, line: bytes) -> None:
        file, is_locked = self._ready(len(line))
        try:
            size = os.fstat(file).st_size
            # A process that died, or a full disk, may have left half a row.
            text = line if not line or self._ends_with_a_row(file, size) else b"\n" + line
            written = os.write(file, text)
            if written < len(text):
                if is_locked:
                    os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._end = size + written
        finally:
            if is_locked:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _ready(self, needed: int) -> tuple[int, bool]:
        """The file to write to, and whether it is locked."""
        while True:
            file = self._open()
            is_locked = self._lock(file)
            if self._is_at_its_path(file):
                size = os.fstat(file).st_size
                is_full = size > 0 and size + needed > self._max_bytes
                if not (is_locked and is_full and self._rotated(size)):
                    return file, is_locked
            self._close()

    def _open(self) -> int:
        if self._file is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, flags, 0o666)
            self._end = _UNKNOWN
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, file: int) -> bool:
        give_up = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if not isinstance(error, BlockingIOError) or time.monotonic() >= give_up:
                    self._patience = 0.0
                    return False
                time.sleep(_BETWEEN_TRIES)
            else:
                self._patience = _PATIENCE
                return True

    def _rotated(self, size: int) -> bool:
        """Rename the file, which is locked; where that cannot be, it may grow to twice its size before the next try."""
        try:
            self._path.rename(_next_name(self._path))
        except OSError as error:
            logger.warning("%s cannot be rotated: %s; it grows instead", self._path, error.strerror or error)
            self._max_bytes = 2 * size
            return False
        return True

    def _is_at_its_path(self, file: int) -> bool:
        """Not if another process has rotated it, or somebody moved it away."""
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _ends_with_a_row(self, file: int, size: int) -> bool:
        return size in (0, self._end) or os.pread(file, 1, size - 1) == b"\n"

    def _tell_once(self, error: Exception) -> None:
        if not self._is_failing:
            logger.warning(
                "candidates cannot be recorded in %s: %s; the workflow goes on, and what is lost is counted",
                self._path,
                getattr(error, "strerror", None) or error,
            )
        self._is_failing = True

    def _tell_that_it_works(self) -> None:
        if self._is_failing:
            logger.warning("candidates are recorded again in %s; %d were lost", self._path, self.lost - self._told)
            self._told = self.lost
        self._is_failing = False


def _next_name(path: Path) -> Path:
    pattern = re.compile(re.escape(path.stem) + r"-(\d+)" + re.escape(path.suffix))
    found = (pattern.fullmatch(other.name) for other in path.parent.iterdir())
    number = max((int(match[1]) for match in found if match), default=0) + 1
    return path.with_name(f"{path.stem}-{number:06d}{path.suffix}")

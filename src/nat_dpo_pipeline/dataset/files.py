"""Files that appear whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.json_text import json_bytes, json_line

_PARTIAL = ".partial-"
_REPLACED = ".replaced-"
_BYTES_A_WRITE = 1 << 19
_LONGEST_NAME = 255  # bytes, of ext4 and most other file systems


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file: path relative to the dataset's folder, rows, bytes, and the SHA-256 of its content."""

    path: str
    rows: int
    size: int
    sha256: str


class LineWriter:
    """Lines to a file, streaming. The hash is taken in a thread of its own, beside the encoding of the next lines."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1)
        self._hashed: Future[None] | None = None
        self._waiting: list[bytes] = []
        self._waiting_size = self._rows = self._size = 0

    def add(self, line: bytes) -> None:
        """Add a line that ends with a newline."""
        self._waiting.append(line)
        self._waiting_size += len(line)
        if self._waiting_size >= _BYTES_A_WRITE:
            self._flush()

    def finish(self) -> WrittenFile:
        """What was written, once it is on disk; `path` is the file's name."""
        self._flush()
        if self._hashed is not None:
            self._hashed.result()
        os.fsync(self._file.fileno())
        return WrittenFile(self._name, self._rows, self._size, self._digest.hexdigest())

    def close(self) -> None:
        self._hasher.shutdown()
        self._file.close()

    def _flush(self) -> None:
        if self._hashed is not None:
            self._hashed.result()
        text = b"".join(self._waiting)
        self._hashed = self._hasher.submit(self._digest.update, text)
        _write_all(self._file, text)
        self._rows += len(self._waiting)
        self._size += len(text)
        self._waiting.clear()
        self._waiting_size = 0


def _write_all(file: FileIO, text: bytes) -> None:
    left = memoryview(text)
    while left:
        left = left[file.write(left) :]


def write_lines(path: Path, lines: Iterable[bytes]) -> WrittenFile:
    """Write lines that end with a newline each, streaming; `path` in the result is the file's name."""
    with closing(LineWriter(path)) as writer:
        for line in lines:
            writer.add(line)
        return writer.finish()


def written_file(path: Path, rows: int) -> WrittenFile:
    """A file that somebody else wrote, with its size and hash; `path` in the result is its name."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return WrittenFile(path.name, rows, path.stat().st_size, digest.hexdigest())


@contextmanager
def replaced_file(final: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `final` when the block succeeds, and is removed when it does not."""
    stage = final.with_name(f".{final.name}{_PARTIAL}{os.getpid()}")
    try:
        yield stage
        stage.replace(final)
    finally:
        stage.unlink(missing_ok=True)


def json_text(value: Mapping[str, object]) -> bytes:
    """Return `value` as indented JSON that ends with a newline, by the rules of `json_bytes`."""
    return json_bytes(value, indented=True) + b"\n"


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Replace `path` by `value` as indented JSON, atomically."""
    replace_file(path, json_text(value))


def replace_file(path: Path, text: bytes) -> None:
    """Replace `path` by `text`, atomically."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}{_PARTIAL}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_file_name(name: str) -> str:
    """Return a name that is made of a run id. Raises ConfigurationError where it leads out of the run's folder."""
    too_long = len(name.encode(errors="replace")) > _LONGEST_NAME
    if name in ("", "..") or Path(name).name != name or "\0" in name or too_long:
        raise ConfigurationError(f"a run id becomes part of a file's name, but {name!r:.80} is not the name of a file")
    return name


def append_json(path: Path, *values: Mapping[str, object]) -> None:
    """Append one line a value, by the rules of `json_bytes`; folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.writelines(map(json_line, values))


@contextmanager
def replaced_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `final` when the block succeeds, and is removed when it does not."""
    _clear_up_after_a_killed_run(final)
    stage = Path(tempfile.mkdtemp(prefix=f".{final.name}{_PARTIAL}", dir=final.parent))
    try:
        stage.chmod(0o777 & ~_umask())
        yield stage
        _swap(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _clear_up_after_a_killed_run(final: Path) -> None:
    for replaced in final.parent.glob(f".{final.name}{_REPLACED}*"):
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(final)
    for partial in final.parent.glob(f".{final.name}{_PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _swap(stage: Path, final: Path) -> None:
    previous = final.with_name(f".{final.name}{_REPLACED}{os.getpid()}")
    with suppress(FileNotFoundError):
        final.rename(previous)
    try:
        stage.rename(final)
    except OSError:
        with suppress(FileNotFoundError):
            previous.rename(final)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def lock_of(folder: Path) -> Iterator[None]:
    """Held by one process at a time; raises OutputError when another one writes to `folder`."""
    from filelock import FileLock, Timeout  # with asyncio 50 ms, which readers need not pay

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"another run is writing to {str(folder)!r}: wait for it, or choose another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Create `folder` and a file in it, now rather than after the work. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"cannot write to {str(folder)!r}: {reason}; choose another folder or mend its permissions"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

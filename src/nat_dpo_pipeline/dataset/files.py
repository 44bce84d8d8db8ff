"""Files that appear whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.json_text import json_bytes, json_line

#: In the names of files and folders that are being written.
PARTIAL = ".partial-"
_REPLACED = ".replaced-"
_BYTES_A_WRITE = 1 << 18
_LONGEST_NAME = 255  # bytes, of ext4 and most other file systems


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file: path relative to the dataset's folder, rows, bytes, and the SHA-256 of its content."""

    path: str
    rows: int
    size: int
    sha256: str


class Sink:
    """Bytes to a file, with their hash, which is taken while they are still in a cache."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self.size = 0

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Do nothing: what waits is written with what follows, or at the end."""

    def close(self) -> None:
        """Do nothing: who has opened the file closes it."""

    def write(self, content: Any) -> int:
        self.size += len(content)
        if len(content) >= _BYTES_A_WRITE:
            self.finish()
            self._write(content)
        else:
            self._waiting.append(bytes(content))
            self._waiting_size += len(content)
            if self._waiting_size >= _BYTES_A_WRITE:
                self.finish()
        return len(content)

    def finish(self) -> None:
        """Write what is waiting."""
        self._write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_size = 0

    def _write(self, content: Any) -> None:
        self._digest.update(content)
        self._stream.write(content)

    def written(self, path: str, rows: int = 0) -> WrittenFile:
        """Return what was written, once it is whole; `path` is relative to the dataset's folder."""
        return WrittenFile(path, rows, self.size, self._digest.hexdigest())


@contextmanager
def replaced(path: Path, *, is_synced: bool = True) -> Iterator[Sink]:
    """Give a file to write, which takes the place of `path` when the block succeeds, and is removed when it does not.

    Its name until then is nobody else's. Without `is_synced` a power cut may cost what was written last.
    """
    part = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}-{uuid4().hex[:8]}")
    try:
        with part.open("wb") as stream:
            sink = Sink(stream)
            yield sink
            sink.finish()
            if is_synced:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_lines(path: Path, lines: Iterable[bytes]) -> WrittenFile:
    """Replace `path` by lines that end with a newline each, as they come; `path` in the result is the file's name."""
    rows = 0
    with replaced(path) as sink:
        for line in lines:
            sink.write(line)
            rows += 1
    return sink.written(path.name, rows)


def json_text(value: Mapping[str, object]) -> bytes:
    """Return `value` as indented JSON that ends with a newline, by the rules of `json_bytes`."""
    return json_bytes(value, indented=True) + b"\n"


def write_json(path: Path, value: Mapping[str, object]) -> WrittenFile:
    """Replace `path` by `value` as indented JSON, atomically."""
    return replace_file(path, json_text(value))


def replace_file(path: Path, text: bytes) -> WrittenFile:
    """Replace `path` by `text`, atomically; `path` in the result is the file's name."""
    with replaced(path) as sink:
        sink.write(text)
    return sink.written(path.name)


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
    stage = Path(tempfile.mkdtemp(prefix=f".{final.name}{PARTIAL}", dir=final.parent))
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
    for partial in final.parent.glob(f".{final.name}{PARTIAL}*"):
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

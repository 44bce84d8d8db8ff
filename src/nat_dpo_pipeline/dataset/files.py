"""Files that appear whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from nat_dpo_pipeline.errors import OutputError

_PARTIAL = ".partial-"
_REPLACED = ".replaced-"
_ROWS_A_WRITE = 512


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file: path relative to the dataset's folder, rows, bytes, and the SHA-256 of its content."""

    path: str
    rows: int
    size: int
    sha256: str


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> WrittenFile:
    """Write one JSON object a line, streaming; `path` in the result is the file's name."""
    digest = hashlib.sha256()
    count = size = 0
    with path.open("wb") as file:
        for lines, number in _encoded(rows):
            file.write(lines)
            digest.update(lines)
            count += number
            size += len(lines)
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(path.name, count, size, digest.hexdigest())


def _encoded(rows: Iterable[Mapping[str, object]]) -> Iterator[tuple[bytes, int]]:
    lines: list[bytes] = []
    for row in rows:
        lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        if len(lines) == _ROWS_A_WRITE:
            yield b"".join(lines), len(lines)
            lines.clear()
    yield b"".join(lines), len(lines)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Replace `path` by `value` as indented JSON, atomically."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
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


def append_json(path: Path, value: Mapping[str, object]) -> None:
    """Append `value` as one line; folders are created, and what JSON does not know is written as its text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        file.write(orjson.dumps(value, default=str, option=options))


@contextmanager
def replaced_folder(final: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `final` when the block succeeds, and is removed when it does not."""
    for leftover in final.parent.glob(f".{final.name}{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{final.name}{_PARTIAL}", dir=final.parent))
    try:
        stage.chmod(0o777 & ~_umask())
        yield stage
        _swap(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _swap(stage: Path, final: Path) -> None:
    previous = final.with_name(f".{final.name}{_REPLACED}{os.getpid()}")
    with suppress(FileNotFoundError):
        final.rename(previous)
    stage.rename(final)
    shutil.rmtree(previous, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Create `folder` and a file in it, now rather than after the work. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {str(folder)!r}: {error.strerror}; choose another folder or mend its permissions"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

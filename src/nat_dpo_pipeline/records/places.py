"""Files and objects by path or URI, over pyarrow's file systems and, for what those do not know, fsspec's."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any
from uuid import uuid4

import pyarrow
from pyarrow import fs

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.errors import ConfigurationError, InputError

#: In the names of files that are being written.
PARTIAL = ".partial-"
_BYTES_A_WRITE = 1 << 18


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder, somewhere. `uri` is as it was given, or an absolute path."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.uri.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(self.uri).name

    @property
    def is_local(self) -> bool:
        return isinstance(self._resolved[0], fs.LocalFileSystem)

    @property
    def path(self) -> str:
        """The path within its file system."""
        return self._resolved[1]

    @property
    def filesystem(self) -> Any:
        return self._resolved[0]

    @property
    def _resolved(self) -> tuple[Any, str]:
        return _resolved(self.uri)

    def exists(self) -> bool:
        return bool(self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound)

    def info(self) -> Any:
        """Size and time of a file or folder."""
        return self.filesystem.get_file_info(self.path)

    def files(self) -> list[str]:
        """The names of the files in a folder, sorted; none where there is no folder."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(one.base_name for one in found if one.type == fs.FileType.File)

    def open(self) -> Any:
        """A file for reading, at any offset."""
        return self.filesystem.open_input_file(self.path)

    def read(self) -> bytes:
        with self.open() as file:
            return bytes(file.read())

    def write(self, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with self.replaced() as sink:
            sink.write(content)

    def create_folder(self) -> None:
        self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        kind = self.info().type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    @contextmanager
    def replaced(self) -> Iterator["Sink"]:
        """A file to write, which is there when the block succeeds. The name it has until then is nobody else's.

        An object store shows an object once it is whole, so that there it is written under its own name.
        """
        folder, _, name = self.path.rpartition("/")
        path = f"{folder}/.{name}{PARTIAL}{os.getpid()}-{uuid4().hex[:8]}" if self.is_local else self.path
        sink = Sink(self.filesystem.open_output_stream(path))
        try:
            yield sink
            sink.finish()
            if self.is_local:
                self.filesystem.move(path, self.path)
        except BaseException:
            sink.abort()
            if self.is_local:
                self.filesystem.delete_file(path)
            raise


class Sink:
    """Bytes to a file, with their hash, which is taken while they are still in a cache."""

    def __init__(self, stream: Any) -> None:
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
        """Nothing: what waits is written with what follows, or at the end."""

    def write(self, content: Any) -> int:
        self.size += len(content)
        if len(content) >= _BYTES_A_WRITE:
            self._write_waiting()
            self._write(content)
        else:
            self._waiting.append(bytes(content))
            self._waiting_size += len(content)
            if self._waiting_size >= _BYTES_A_WRITE:
                self._write_waiting()
        return len(content)

    def _write_waiting(self) -> None:
        self._write(b"".join(self._waiting))
        self._waiting.clear()
        self._waiting_size = 0

    def _write(self, content: Any) -> None:
        self._digest.update(content)
        self._stream.write(content)

    def finish(self) -> None:
        """Write what is left and close. Once only."""
        self._write_waiting()
        self._stream.close()

    def abort(self) -> None:
        self._stream.close()

    def close(self) -> None:
        """Nothing: who has opened the file closes it."""

    def written(self, path: str, rows: int) -> WrittenFile:
        """What was written, once it is whole; `path` is relative to the dataset's folder."""
        return WrittenFile(path, rows, self.size, self._digest.hexdigest())


def place(path: str) -> Place:
    """The place of a path or URI. Raises ConfigurationError for a scheme that nothing here knows."""
    found = Place(path if "://" in path else os.path.abspath(path))  # noqa: PTH100 - a URI is no Path
    try:
        _ = found.filesystem
    except (pyarrow.ArrowException, OSError, ImportError, ValueError) as error:
        raise ConfigurationError(f"cannot reach {path!r}: {error}") from error
    return found


@lru_cache(maxsize=4096)
def _resolved(uri: str) -> tuple[Any, str]:
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        import fsspec

        known, path = fsspec.core.url_to_fs(uri)
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(known))
    return filesystem, path


def checked_input(path: str) -> Place:
    """A file or folder that is there. Raises InputError."""
    found = place(path)
    try:
        is_there = found.exists()
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error}") from error
    if not is_there:
        raise InputError(f"there is no {path!r}")
    return found

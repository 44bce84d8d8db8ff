"""Files and objects by path or URI: local ones by the standard library, others over pyarrow's or fsspec's."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from nat_dpo_pipeline.dataset.files import Sink, replaced
from nat_dpo_pipeline.errors import ConfigurationError, InputError


class FileInfo(NamedTuple):
    """A file or folder that is there; `modified` is in nanoseconds."""

    is_file: bool
    size: int
    modified: int


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
    def folder(self) -> "Place":
        return Place(self.uri.rpartition("/")[0])

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def path(self) -> str:
        """The path within its file system."""
        if self.uri.startswith("file://"):
            return unquote(self.uri.removeprefix("file://"))
        return self.uri if self.is_local else str(_resolved(self.uri)[1])

    @property
    def filesystem(self) -> Any:
        """The file system of pyarrow that has it."""
        return _local() if self.is_local else _resolved(self.uri)[0]

    def exists(self) -> bool:
        return self.info() is not None

    def info(self) -> FileInfo | None:
        """Return size and time of a file or folder; None where there is none."""
        if self.is_local:
            try:
                found = Path(self.path).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return FileInfo(not Path(self.path).is_dir(), found.st_size, found.st_mtime_ns)
        one = self.filesystem.get_file_info(self.path)
        return FileInfo(one.is_file, one.size or 0, one.mtime_ns or 0) if one.type.name != "NotFound" else None

    def files(self) -> list[str]:
        """Return the names of the files in a folder, sorted; none where there is no folder."""
        if self.is_local:
            folder = Path(self.path)
            return sorted(one.name for one in folder.iterdir() if one.is_file()) if folder.is_dir() else []
        from pyarrow import fs

        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(one.base_name for one in found if one.type == fs.FileType.File)

    def open(self) -> Any:
        """Open the file for reading, at any offset."""
        return Path(self.path).open("rb") if self.is_local else self.filesystem.open_input_file(self.path)

    def read(self) -> bytes:
        with self.open() as file:
            return bytes(file.read())

    def write(self, content: bytes) -> None:
        """Write a file, whole or not at all."""
        with self.replaced() as sink:
            sink.write(content)

    def create_folder(self) -> None:
        if self.is_local:
            Path(self.path).mkdir(parents=True, exist_ok=True)
        else:
            self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        found = self.info()
        if found is None:
            return
        if self.is_local:
            Path(self.path).unlink() if found.is_file else shutil.rmtree(self.path)
        elif found.is_file:
            self.filesystem.delete_file(self.path)
        else:
            self.filesystem.delete_dir(self.path)

    @contextmanager
    def replaced(self) -> Iterator[Sink]:
        """Give a file to write, which is there when the block succeeds. Its name until then is nobody else's.

        An object store shows an object once it is whole, so that there it is written under its own name.
        """
        if self.is_local:
            with replaced(Path(self.path), is_synced=False) as sink:
                yield sink
        else:
            with self.filesystem.open_output_stream(self.path) as stream:
                sink = Sink(stream)
                yield sink
                sink.finish()


def place(path: str) -> Place:
    """Return the place of a path or URI. Raises ConfigurationError for a scheme that nothing here knows."""
    found = Place(path if "://" in path else os.path.abspath(path))  # noqa: PTH100 - a URI is no Path
    if not found.is_local:
        try:
            _ = found.filesystem
        except (OSError, ImportError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ConfigurationError(f"cannot reach {path!r}: {error}") from error
    return found


def _local() -> Any:
    from pyarrow import fs

    return fs.LocalFileSystem()


@lru_cache(maxsize=4096)
def _resolved(uri: str) -> tuple[Any, str]:
    import pyarrow
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        import fsspec

        known, path = fsspec.core.url_to_fs(uri)
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(known))
    return filesystem, path


def checked_input(path: str) -> Place:
    """Return the place of a file or folder that is there. Raises InputError."""
    found = place(path)
    try:
        is_there = found.exists()
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error}") from error
    if not is_there:
        raise InputError(f"there is no {path!r}")
    return found

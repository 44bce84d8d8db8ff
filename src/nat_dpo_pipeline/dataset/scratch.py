"""SQLite files that live as long as a command: what a crash loses comes from elsewhere again."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nat_dpo_pipeline.errors import OutputError


def scratch_database(path: Path, *tables: str) -> sqlite3.Connection:
    """Return a new database with these tables, given as CREATE statements. Raises OutputError."""
    with full_disk_told(path):
        database = sqlite3.connect(path, isolation_level=None)
        try:
            for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *tables):
                database.execute(statement)
        except BaseException:
            database.close()
            path.unlink(missing_ok=True)
            raise
        return database


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the database at `path` into OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(
            f"cannot keep the candidates in {str(path.parent)!r}: {error}; is there room on the disk?"
        ) from error

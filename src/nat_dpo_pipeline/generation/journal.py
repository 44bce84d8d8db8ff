"""A record on disk of every finished call, so that a run that was killed goes on without paying for one twice.

A call is known by everything that determines its reply (endpoint, model, messages, parameters) and by how often this
process has made the same call before: the n-th identical call of a process gets the n-th reply on record. So samples of
one question stay distinct, a second collection run asks anew, and a process that is started again replays what an
earlier one finished, in order. Neither keys nor messages are written, only their hash and the reply.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.chat import ChatModel, ChatReply, read_reply

_SCHEMA = "CREATE TABLE IF NOT EXISTS calls (key BLOB, occurrence INTEGER, body TEXT, PRIMARY KEY (key, occurrence))"
# By file: a process opens a journal once per collection run, and those must not replay one another.
_occurrences: dict[Path, Counter[bytes]] = {}


class Journal:
    """The SQLite file of one run, opened at its first use."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._seen = _occurrences.setdefault(self._path, Counter())
        self._database: sqlite3.Connection | None = None

    def next_occurrence(self, key: bytes) -> int:
        """How often this process asked for `key` before."""
        self._seen[key] += 1
        return self._seen[key] - 1

    def find(self, key: bytes, occurrence: int) -> Mapping[str, object] | None:
        """The body of a finished call. Raises ConfigurationError when the file is in use elsewhere or no journal."""
        query = "SELECT body FROM calls WHERE key = ? AND occurrence = ?"
        with self._translated_errors():
            row = self._opened().execute(query, (key, occurrence)).fetchone()
        return None if row is None else json.loads(row[0])

    def add(self, key: bytes, occurrence: int, body: Mapping[str, object]) -> None:
        """Put a finished call on disk, before its reply is used. Raises ConfigurationError as `find` does."""
        values = (key, occurrence, json.dumps(body))
        with self._translated_errors(), self._opened() as database:
            database.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?)", values)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _connected(self._path)
        return self._database

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(_refusal(self._path, error)) from error


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=0)
    try:
        # One process at a time: two would each pay for the calls that the other is waiting for.
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # Survives the death of the process; a power cut may cost the last calls.
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _refusal(path: Path, error: Exception) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
        return f"the journal {str(path)!r} is in use by another process: wait for it, or name another journal"
    return f"the journal {str(path)!r} cannot be used ({error}): name another journal, or remove the file"


class JournalledModel:
    """A chat model whose finished calls are on record; what is on record is not asked again.

    `identity` gives everything that determines the reply to a call.
    """

    def __init__(
        self,
        model: ChatModel,
        journal: Journal,
        identity: Callable[[Sequence[Message], int | None], Mapping[str, object]],
    ) -> None:
        self._model = model
        self._journal = journal
        self._identity = identity

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply:
        key = _key(self._identity(messages, seed))
        occurrence = self._journal.next_occurrence(key)
        body = self._journal.find(key, occurrence)
        if body is not None:
            return read_reply(body, self.name, replayed=True)
        reply = await self._model.complete(messages, seed=seed)
        self._journal.add(key, occurrence, {**reply.body, "model": reply.model})
        return reply


def _key(identity: Mapping[str, object]) -> bytes:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()

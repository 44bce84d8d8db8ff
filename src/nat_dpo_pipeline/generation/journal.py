"""A record on disk of every finished call, so that a run that was killed goes on without paying for one twice.

A call is known by everything that determines its reply: model, route, messages, parameters, sample, and which run of
its process over the same input asks; by the address of its server only if the user wants so. Neither keys nor messages
are written, only their hash and the reply.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, OnReply, late_counter
from nat_dpo_pipeline.generation.replies import ChatReply, read_reply

_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID"
# By file: a process opens a journal once per collection run, and those must not replay one another.
_runs: dict[Path, Counter[str]] = {}
# Who answered: a call may be replayed through another member of a pool that has the same model.
_LLM = "nat_dpo_llm"
_Identity = Callable[[Call], Mapping[str, object]]


class Journal:
    """The SQLite file of one run, opened at its first use."""

    def __init__(self, path: Path) -> None:
        # Path.resolve raises RuntimeError for a link to itself until Python 3.12.
        self._path = Path(os.path.realpath(path))
        self._database: sqlite3.Connection | None = None
        self._asking: dict[bytes, asyncio.Event] = {}
        self._unfinished: set[asyncio.Task[ChatReply]] = set()

    def next_run(self, text: str) -> int:
        """How often this process ran over the input `text` before."""
        runs = _runs.setdefault(self._path, Counter())
        runs[text] += 1
        return runs[text] - 1

    def check(self) -> None:
        """Open the file now. Raises ConfigurationError when it is in use elsewhere or no journal."""
        with self._translated_errors():
            self._opened()

    def find(self, key: bytes) -> Mapping[str, object] | None:
        """The body of a finished call. Raises ConfigurationError when the file is in use elsewhere or no journal."""
        with self._translated_errors():
            row = self._opened().execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
            return None if row is None else json.loads(row[0])

    def replayed(self, llm: str, key: bytes) -> ChatReply | None:
        """Return the reply on record, of `llm` unless the record says who answered; None when there is none to use."""
        body = self.find(key)
        try:
            return None if body is None else read_reply(body, str(body.get(_LLM, llm)), replayed=True)
        except ModelError:
            return None  # given up under way, and put on record by an earlier version

    def add(self, *finished: tuple[bytes, Mapping[str, object]]) -> None:
        """Put finished calls on disk, keys and bodies, before their replies are used: all of them or none.

        Raises ConfigurationError as `find` does.
        """
        rows = [(key, json.dumps(body)) for key, body in finished]
        with self._translated_errors(), self._opened() as database:
            database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)

    async def recalled_or(
        self, recalled: Callable[[], ChatReply | None], model: ChatModel, call: Call, key: bytes
    ) -> ChatReply:
        """The reply on record, or else that of `model`; equal calls at the same time are made once."""
        while key in self._asking:
            await self._asking[key].wait()
        if (reply := recalled()) is not None:
            return reply
        done = self._asking[key] = asyncio.Event()
        try:
            return await model.complete(call)
        finally:
            del self._asking[key]
            done.set()

    async def keeping(self, model: ChatModel, call: Call, identity: _Identity) -> ChatReply:
        """The reply of `model`, on record before it is given, and also when the caller is cancelled meanwhile."""
        task = asyncio.create_task(self._kept(model, call, identity))
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_count, late_counter(), model.name))
            raise

    def _finished(self, task: "asyncio.Task[ChatReply]") -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio logs a traceback for each whose caller was cancelled

    async def _kept(self, model: ChatModel, call: Call, identity: _Identity) -> ChatReply:
        reply = await model.complete(call)
        samples = zip((call.sample, *call.also), (reply, *reply.others), strict=False)
        # Each of several samples is on record as if it had been asked for alone.
        self.add(
            *(
                (_key(identity(replace(call, sample=sample))), {**one.body, "model": one.model, _LLM: one.llm})
                for sample, one in samples
            )
        )
        return reply

    async def finish(self, seconds: float) -> None:
        """Wait for the calls that were cancelled while under way: they are paid for. What takes longer is given up."""
        if self._unfinished:
            _, late = await asyncio.wait(self._unfinished, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

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
        except (OSError, ValueError, sqlite3.Error) as error:
            raise ConfigurationError(_refusal(self._path, error)) from error


def _count(on_reply: OnReply, llm: str, task: "asyncio.Task[ChatReply]") -> None:
    """Count a call that ended after its caller was cancelled, or was given up."""
    error = ModelError("given up") if task.cancelled() else task.exception()
    if error is None:
        for one in (task.result(), *task.result().others):
            on_reply(one)
    elif isinstance(error, ModelError):
        error.llm, error.requests = llm, int(not error.unsent)
        on_reply(error)


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
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return f"the disk of the journal {str(path)!r} is full: free some space, and keep it: it holds what is paid"
    return f"the journal {str(path)!r} cannot be used ({error}): name another journal, or remove the file"


class _JournalledModel:
    """`identity` gives what determines the reply to a call."""

    def __init__(self, model: ChatModel, journal: Journal, identity: _Identity) -> None:
        self._model = model
        self._journal = journal
        self._identity = identity

    @property
    def name(self) -> str:
        return self._model.name


class RecordedModel(_JournalledModel):
    """A chat model whose finished calls are put on record."""

    async def complete(self, call: Call) -> ChatReply:
        return await self._journal.keeping(self._model, call, self._identity)


class ReplayedModel(_JournalledModel):
    """A chat model that is not asked what is on record. It stands before the limits of a model, a RecordedModel behind
    them: a replay costs none of what is limited, and a reply is on record at the moment it arrives.

    `older` gives what journals of earlier versions know a call by.
    """

    def __init__(self, model: ChatModel, journal: Journal, identity: _Identity, older: _Identity | None = None) -> None:
        super().__init__(model, journal, identity)
        self._older = older

    def recall(self, call: Call) -> ChatReply | None:
        """Return the reply on record; None when there is none."""
        return self._recalled(call, _key(self._identity(call)))

    async def complete(self, call: Call) -> ChatReply:
        key = _key(self._identity(call))
        return await self._journal.recalled_or(partial(self._recalled, call, key), self._model, call, key)

    def _recalled(self, call: Call, key: bytes) -> ChatReply | None:
        reply = self._journal.replayed(self.name, key)
        if reply is None and self._older is not None:
            return self._journal.replayed(self.name, _key(self._older(call)))
        return reply


def _key(identity: Mapping[str, object]) -> bytes:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()

"""Candidates in a file of their own on disk: put in as they come, taken out by turn, as often as one likes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from nat_dpo_pipeline.core.candidates import Candidate, Message, Prompt, RefusalReason, Turn, as_messages
from nat_dpo_pipeline.dataset.scratch import full_disk_told, scratch_database
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.values import Found

_ROWS_A_WRITE = 500


class CandidateSpool:
    """Turns in the order in which they first appeared, their candidates in the order in which they came.

    Some 300 bytes of each turn are kept in memory, all else in the file; a context manager that removes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = scratch_database(
            path,
            "CREATE TABLE turns (number INTEGER PRIMARY KEY, scope BLOB, name BLOB, prompt BLOB)",
            "CREATE TABLE candidates (turn INTEGER, place INTEGER, row BLOB, PRIMARY KEY (turn, place)) WITHOUT ROWID",
        )
        with suppress(OSError):  # Windows keeps what is open
            # Whoever is killed leaves nothing behind.
            path.unlink()
        # By scope and prompt: the number of the turn and how many candidates it has.
        self._turns: dict[bytes, tuple[int, int]] = {}
        self._new_turns: list[tuple[int, bytes, bytes, bytes]] = []
        self._new_rows: list[tuple[int, int, bytes]] = []

    def __enter__(self) -> "CandidateSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, found: Found) -> None:
        """Keep a candidate. Raises CandidateRefused for metadata nested too deep, and OutputError for a full disk."""
        candidate = found.candidate
        prompt = _bytes(candidate.prompt if isinstance(candidate.prompt, str) else as_messages(candidate.prompt))
        scope = _digest(_bytes(list(found.scope)))
        key = _digest(scope + prompt)
        turn, place = self._turns.get(key) or (len(self._turns), 0)
        row = _bytes([candidate.candidate_index, candidate.response, candidate.score, dict(candidate.metadata)])
        if not place:
            self._new_turns.append((turn, scope, _bytes([candidate.example_id, candidate.turn_id]), prompt))
        self._new_rows.append((turn, place, row))
        self._turns[key] = (turn, place + 1)
        if len(self._new_rows) >= _ROWS_A_WRITE:
            self._write()

    def turns(self) -> Iterator[Turn]:
        """Every turn with its candidates."""
        self._write()
        rows = self._database.execute(
            "SELECT turn, name, prompt, row FROM candidates JOIN turns ON number = turn ORDER BY turn, place"
        )
        with full_disk_told(self._path):
            for _, group in groupby(rows, key=lambda row: row[0]):
                yield _turn([row[1:] for row in group])

    def turns_split(self) -> int:
        """How many turns became several, as the prompts of their candidates differed."""
        self._write()
        query = "SELECT count(*) FROM (SELECT scope FROM turns GROUP BY scope HAVING count(*) > 1)"
        with full_disk_told(self._path):
            return int(self._database.execute(query).fetchone()[0])

    def _write(self) -> None:
        if not self._new_rows:
            return
        with full_disk_told(self._path):
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO turns VALUES (?, ?, ?, ?)", self._new_turns)
            self._database.executemany("INSERT INTO candidates VALUES (?, ?, ?)", self._new_rows)
            self._database.execute("COMMIT")
        self._new_turns.clear()
        self._new_rows.clear()


def _turn(rows: list[tuple[bytes, bytes, bytes]]) -> Turn:
    name, raw_prompt, _ = rows[0]
    example_id, turn_id = json.loads(name)
    prompt = _prompt(json.loads(raw_prompt))
    candidates = [_candidate(example_id, turn_id, prompt, row) for *_, row in rows]
    return Turn(example_id, turn_id, prompt, candidates)


def _candidate(example_id: str, turn_id: str, prompt: Prompt, row: bytes) -> Candidate:
    index, response, score, metadata = _value(row)
    return Candidate(example_id, turn_id, index, prompt, response, score, metadata=metadata)


def _prompt(raw: str | list[Mapping[str, str]]) -> Prompt:
    return raw if isinstance(raw, str) else tuple(Message(one["role"], one["content"]) for one in raw)


def _bytes(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        # Metadata may hold half of a surrogate pair, or a number of more than 64 bits.
        return json.dumps(value).encode()
    except RecursionError as error:
        raise CandidateRefused(RefusalReason.MALFORMED) from error


def _value(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()

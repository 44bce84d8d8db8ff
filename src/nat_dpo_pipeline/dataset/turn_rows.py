"""The turns of a generation run on disk: written as they come, read in the order of the inputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nat_dpo_pipeline.core import candidates as scored
from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import prompt_json, reply_json
from nat_dpo_pipeline.dataset.scratch import full_disk_told, scratch_database
from nat_dpo_pipeline.json_text import json_line

if TYPE_CHECKING:
    from nat_dpo_pipeline.generation.turns import Scored, Turn


class TurnSpool:
    """Rows by path in a SQLite file, so that neither order nor memory depends on which turn was ready first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # What is lost with a crash comes back from the journal.
        self._database = scratch_database(
            path, "CREATE TABLE turns (path BLOB PRIMARY KEY, to_pair, row BLOB NOT NULL) WITHOUT ROWID"
        )

    def add(self, path: tuple[int, ...], turn: "Turn", example_id: str) -> None:
        to_pair = bool(turn.candidates) and turn.set_aside is None
        self.add_row(path, turn_row(turn, example_id), to_pair=to_pair)

    def add_row(self, path: tuple[int, ...], row: bytes, *, to_pair: bool) -> None:
        """Add a turn that has been made a row already."""
        key = b"".join(number.to_bytes(4, "big") for number in path)
        with full_disk_told(self._path):
            self._database.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?)", (key, to_pair, row))

    def rows(self, *, to_pair: bool) -> Iterator[bytes]:
        """The rows of the turns that can be paired, or of the others, in the order of their paths."""
        with full_disk_told(self._path):
            for (row,) in self._database.execute("SELECT row FROM turns WHERE to_pair = ? ORDER BY path", (to_pair,)):
                yield row

    def close(self) -> None:
        self._database.close()


def turn_row(turn: "Turn", example_id: str) -> bytes:
    """The turn as one line of JSON: a row that the `scored_candidates` workflow reads, with all that is known besides.

    `unscored` holds the responses without a score, each with the reason and, of a failed call, its message.
    """
    question = turn.question
    row = {
        "id": f"{example_id}/{turn.turn_id}",
        "example_id": example_id,
        "turn_id": turn.turn_id,
        "topic": question.topic,
        "subtopic": question.subtopic,
        "prompt": prompt_json(question.messages),
        "candidates": [_candidate(candidate) for candidate in turn.candidates],
        "unscored": [_unscored(one) for one in turn.unscored],
    }
    if turn.set_aside:
        row["set_aside"] = turn.set_aside
    return json_line(row)


def scored_turn_row(turn: scored.Turn) -> bytes:
    """A turn from elsewhere as such a line."""
    first = turn.candidates[0].metadata
    facts = {name: first[name] for name in ("topic", "subtopic") if name in first}
    row = {
        "id": f"{turn.example_id}/{turn.turn_id}",
        "example_id": turn.example_id,
        "turn_id": turn.turn_id,
        **facts,
        "prompt": prompt_json(turn.prompt),
        "candidates": [
            {
                **{name: value for name, value in one.metadata.items() if name not in _OF_THE_TURN},
                "candidate_index": one.candidate_index,
                "response": one.response if type(one.response) is str else reply_json(one.response),
                "score": one.score,
            }
            for one in turn.candidates
        ],
        "unscored": [],
    }
    return json_line(row)


_OF_THE_TURN = ("id", "example_id", "turn_id", "topic", "subtopic")


def _candidate(candidate: Candidate) -> dict[str, object]:
    metadata = {name: value for name, value in candidate.metadata.items() if name not in ("topic", "subtopic")}
    return {
        "candidate_index": candidate.candidate_index,
        "response": reply_json(candidate.response),
        "score": candidate.score,
        "attributes": dict(candidate.attributes),
        "model": candidate.model,
        **metadata,
    }


def _unscored(one: "Scored") -> dict[str, object]:
    response = one.response
    return {
        "candidate_index": response.index,
        "response": response.text,
        "score": None,
        "model": response.model,
        "llm": response.llm,
        "flaw": response.flaw,
        "reason": one.reason,
        **({"reasoning": response.thoughts} if response.thoughts else {}),
        **({} if one.detail is None else {"detail": one.detail}),
    }

"""Files of recorded candidates, read."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.records.files import ReadFiles, RefusedRecord, files_of, read_files
from nat_dpo_pipeline.records.spool import CandidateSpool
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME


@dataclass(frozen=True)
class Read:
    """What came of the files."""

    files: ReadFiles
    turns: list[Turn]
    refused: list[RefusedRecord]

    @property
    def answers(self) -> list[list[tuple[str, float]]]:
        """Responses with their scores, by turn."""
        return [[(one.response, one.score) for one in turn.candidates] for turn in self.turns]

    @property
    def formats(self) -> list[str | None]:
        return [None if file.format is None else file.format.name for file in self.files.files]


def read(folder: Path, *patterns: object, step_name: str = DEFAULT_STEP_NAME) -> Read:
    """The files, by way of a spool in `folder`."""
    refused: list[RefusedRecord] = []
    with CandidateSpool(folder / "spool") as spool:
        files = read_files(files_of(map(str, patterns)), step_name, spool, refused.append)
        return Read(files, list(spool.turns()), refused)


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

"""Files of recorded candidates, read."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.branches import branched
from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.records.ranges import BadInput
from nat_dpo_pipeline.records.turns import ReadTurns, read_turns
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME


@dataclass(frozen=True)
class Read:
    """What came of the files."""

    files: ReadTurns

    @cached_property
    def turns(self) -> list[Turn]:
        return list(branched(self.files, PairingRules(), Counter()))

    @property
    def bad(self) -> list[BadInput]:
        return list(self.files.bad)

    @property
    def refused(self) -> Counter[str]:
        return sum((file.refused for file in self.files.files), Counter())

    @property
    def answers(self) -> list[list[tuple[str, float]]]:
        """Responses with their scores, by turn."""
        return [[(one.response, one.score) for one in turn.candidates] for turn in self.turns]

    @property
    def formats(self) -> list[str]:
        return [file.format for file in self.files.files]


def read(*patterns: object, step_name: str = DEFAULT_STEP_NAME) -> Read:
    """The files in memory."""
    return Read(read_turns(list(map(str, patterns)), step_name))


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

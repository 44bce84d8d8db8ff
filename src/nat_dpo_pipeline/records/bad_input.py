"""Input that could not be read. Light, so that a command can import it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BadInput:
    """Something that could not be read: a line from 1, or a row group from 0; None for the rest of the file."""

    path: str
    line: int | None
    row_group: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.line is None else f", line {self.line}"
        where += "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.path!r}{where}: {self.reason}"

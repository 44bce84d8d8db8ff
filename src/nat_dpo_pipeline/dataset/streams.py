"""One pass over the rows of a split, into the files of several formats at once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import orjson

from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.dataset.files import Sink, WrittenFile, replaced
from nat_dpo_pipeline.dataset.formats.format import EncodedOnce, Format, Once, RowRefusal, TurnRows, plain
from nat_dpo_pipeline.dataset.formats.rows import DatasetRow, PreferenceRow, SplitName, is_utf8

_NEWLINE = orjson.OPT_APPEND_NEWLINE


@dataclass
class Tally:
    """What was read and what was left out."""

    pairs: dict[SplitName, int] = field(default_factory=lambda: dict.fromkeys(SplitName, 0))
    invalid: int = 0
    refused: dict[str, Counter[str]] = field(default_factory=dict)

    def skipped(self) -> dict[str, dict[str, int]]:
        """By stage and reason, as a manifest has it; a format's stage is `rows_<its name>`."""
        stages = {
            f"rows_{name}": {str(reason): count for reason, count in reasons.items()}
            for name, reasons in self.refused.items()
            if reasons
        }
        return {"rows": {str(RowRefusal.INVALID_UNICODE): self.invalid}, **stages} if self.invalid else stages


class FormatFiles:
    """The files of one format below `folder`; each side is whole once `write_rows` has written it."""

    def __init__(self, one: Format, folder: Path) -> None:
        self.format = one
        self.lines: dict[SplitName, WrittenFile] = {}
        self.has_calls = False
        self._folder = folder
        self._rows = 0
        self._sink: Sink

    @contextmanager
    def opened(self, side: SplitName) -> Iterator[None]:
        """Take rows of this side; its files are whole when the block succeeds."""
        path = self._folder / self.format.files[side]
        path.parent.mkdir(exist_ok=True)
        self._rows = 0
        with replaced(path) as self._sink:
            yield
        self.lines[side] = self._sink.written(path.name, self._rows)

    def add(self, turn: TurnRows, once: Once, refused: Counter[str]) -> None:
        """Write the rows of a turn; what the format cannot carry is counted."""
        self.has_calls |= turn.has_calls
        for row in self.format.rows_of(turn, once):
            if isinstance(row, RowRefusal):
                refused[row] += 1
            else:
                self._sink.write(orjson.dumps(row, option=_NEWLINE))
                self._rows += 1


def write_rows(rows: Iterable[DatasetRow], targets: Sequence[FormatFiles], tally: Tally, side: SplitName) -> None:
    """Write the rows of one side to every target, a turn at a time."""
    encoded = EncodedOnce()
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(target.opened(side))
        for turn in _turns(rows, tally):
            tally.pairs[side] += len(turn.pairs)
            once = encoded if len(turn.pairs) * len(targets) > 1 else plain
            for target in targets:
                target.add(turn, once, tally.refused.setdefault(target.format.name, Counter()))
            encoded.clear()


def _turns(rows: Iterable[DatasetRow], tally: Tally) -> Iterator[TurnRows]:
    for (_, _, prompt), group in groupby(rows, key=_turn_of):
        found = list(group)
        if bad := _bad_texts(prompt, found):
            has_bad_prompt = not bad.isdisjoint(_texts_in(prompt))
            good = [] if has_bad_prompt else [row for row in found if bad.isdisjoint(_texts_of(row))]
            tally.invalid += len(found) - len(good)
            found = good
        if found:
            yield TurnRows.of(found)


def _bad_texts(prompt: Prompt, rows: Iterable[DatasetRow]) -> set[str]:
    """The texts that cannot be written, each looked at once."""
    texts = {text for row in rows for text in _texts_of(row) if text is not None and not text.isascii()}
    texts.update(_texts_in(prompt))
    return {text for text in texts if not is_utf8(text)}


def _texts_in(prompt: Prompt) -> Iterable[str]:
    if isinstance(prompt, str):
        return (prompt,)
    return [text for message in prompt for text in (message.role, message.text)]


def _turn_of(row: DatasetRow) -> tuple[str | None, str | None, Prompt]:
    return row.example_id, row.turn_id, row.prompt


def _texts_of(row: DatasetRow) -> tuple[str | None, ...]:
    if isinstance(row, PreferenceRow):
        return row.chosen, row.rejected, row.chosen_model, row.rejected_model, row.example_id, row.turn_id
    return row.completion, row.model, row.example_id, row.turn_id

"""The parts that the summaries of commands share, as lines of plain text."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from nat_dpo_pipeline.core.printable import listed

if TYPE_CHECKING:
    from nat_dpo_pipeline.dataset.writer import WrittenDataset
    from nat_dpo_pipeline.pairing.options import PairedFiles

_ROWS = (".jsonl", ".parquet")


def number(value: float) -> str:
    return f"{value:,.0f}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 reply`, `2 replies`."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number(count)} {noun if count == 1 else plural}"


def money(cost: float | None) -> str:
    """Return a cost, or a dash for one without a price."""
    if cost is None:
        return "-"
    return f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.4f}"


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def in_words(reasons: Mapping[str, int]) -> str:
    """Return counts by reason in plain words, most frequent first."""
    return listed({reason.replace("_", " "): count for reason, count in reasons.items()})


def tokens_of(prompt_tokens: int, completion_tokens: int, uncounted: int) -> tuple[str, str]:
    """Return the tokens of prompts and replies, unknown where the server counted none."""
    if uncounted and not prompt_tokens + completion_tokens:
        return ("unknown",) * 2
    return number(prompt_tokens), number(completion_tokens)


def columns(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Return rows of cells as lines; the first `left` columns are aligned to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return ("  " + "  ".join(cells)).rstrip()

    return [line(row) for row in rows]


def pairs_of(result: "PairedFiles") -> list[str]:
    """Return the number of pairs, and why others were left out of all formats or of one."""
    sides = ", ".join(f"{number(count)} {side}" for side, count in result.pairs.items())
    lines = [f"  {'pairs':<12}{number(sum(result.pairs.values())):>9}  ({sides})"]
    if result.skipped:
        lines.append(f"  pairs left out: {in_words(result.skipped)}")
    return [*lines, *(f"  left out of {name}: {in_words(reasons)}" for name, reasons in result.left_out.items())]


def dataset_files(dataset: "WrittenDataset") -> list[tuple[str, str]]:
    """Return the path of every file of a dataset, with the number of its rows where it holds rows."""
    files = (*dataset.files, *dataset.others)
    found = [(file.path, f"{number(file.rows)} rows" if file.path.endswith(_ROWS) else "") for file in files]
    return [*((str(dataset.folder / path), rows) for path, rows in found), (str(dataset.manifest), "")]


def training_of(dataset: "WrittenDataset") -> list[str]:
    """Return the commands that train on a dataset."""
    rows = [(file.format, file.in_short) for file in dataset.training]
    return [f"To train on it, in {dataset.folder}", *columns(rows, left=2)] if rows else []


def dataset_lines(result: "PairedFiles") -> list[str]:
    """Return the summary of a dataset: its pairs, its files, and the commands that train on it."""
    files = (
        []
        if result.dataset is None
        else [*columns(dataset_files(result.dataset), left=2), *training_of(result.dataset)]
    )
    return [*pairs_of(result), *files]

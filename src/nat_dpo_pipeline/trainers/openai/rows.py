"""The files of a fine-tuning job behind OpenAI's API: checked before they are sent, as a job is paid for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nat_dpo_pipeline.core.messages import messages_of, prompt_key
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName, formats_named
from nat_dpo_pipeline.dataset.inspecting import Problem
from nat_dpo_pipeline.dataset.streams import FormatFiles, Tally, write_rows
from nat_dpo_pipeline.errors import TrainingError

#: Of one file (platform.openai.com/docs/api-reference/files/create).
MAX_FILE_BYTES = 512_000_000


@dataclass(frozen=True, slots=True)
class RowFiles:
    """What was written, by side of the split; a side without rows has no file. `refused` counts rows by reason."""

    paths: Mapping[SplitName, Path]
    rows: Mapping[SplitName, int]
    refused: Mapping[str, int]


def write_row_files(
    splits: Mapping[SplitName, Sequence[PreferenceRow]],
    folder: Path,
    *,
    min_rows: int,
    max_bytes: int = MAX_FILE_BYTES,
) -> RowFiles:
    """Write the rows that the API takes. Raises TrainingError for too few rows to train on and too large a file."""
    files = FormatFiles(formats_named(["openai"])[0], folder)
    tally, refused = Tally(), Counter[str]()
    trained_on: set[str] = set()
    for side in SplitName:
        rows = splits.get(side, ())
        fit = _fit(rows, refused) if side is SplitName.TRAIN else _not_in(trained_on, _fit(rows, refused), refused)
        write_rows(fit, [files], tally, side)
        if side is SplitName.TRAIN:
            trained_on.update(prompt_key(row.prompt) for row in rows)
    for reasons in tally.skipped().values():
        refused.update(reasons)
    found = {side: file for side, file in files.lines.items() if file.rows}
    for side, file in found.items():
        if file.size > max_bytes:
            raise TrainingError(
                f"the {side} file has {file.size / 1e6:.1f} MB, and {max_bytes / 1e6:g} MB is what the API takes: "
                "lower max_pairs of the trainer"
            )
    count = files.lines[SplitName.TRAIN].rows
    if count < min_rows:
        left_out = f"; left out: {listed(refused)}" if refused else ""
        raise TrainingError(f"there are {count} rows to train on, and min_rows is {min_rows}{left_out}")
    paths = {side: folder / files.format.files[side] for side in found}
    return RowFiles(paths, {side: file.rows for side, file in found.items()}, refused)


def _fit(rows: Iterable[PreferenceRow], refused: Counter[str]) -> Iterator[PreferenceRow]:
    for row in rows:
        if (problem := _problem(row)) is None:
            yield row
        else:
            refused[problem] += 1


def _problem(row: PreferenceRow) -> Problem | None:
    if not any(message.content.strip() for message in messages_of(row.prompt)):
        return Problem.EMPTY_PROMPT
    chosen, rejected = row.chosen.strip(), row.rejected.strip()
    if not (chosen and rejected):
        return Problem.EMPTY_ANSWER
    return Problem.EQUAL_SIDES if chosen == rejected else None


def _not_in(prompts: set[str], rows: Iterable[PreferenceRow], refused: Counter[str]) -> Iterator[PreferenceRow]:
    for row in rows:
        if prompt_key(row.prompt) in prompts:
            refused[Problem.PROMPT_ON_BOTH_SIDES] += 1
        else:
            yield row

"""Preference pairs as the files that NeMo Customizer reads."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from nat_dpo_pipeline.core.messages import as_messages, last_text, messages_of
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import FORMATS, Format, PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.formats.format import Once, Row, Rows, TurnRows, as_text, each_pair
from nat_dpo_pipeline.dataset.streams import FormatFiles, Tally, write_rows

_DPO = next(one for one in FORMATS if one.name == "nemo_customizer")
#: Where Customizer looks for the files of a dataset.
REPO_PATHS: Mapping[SplitName, str] = _DPO.files


class Unusable(StrEnum):
    """Why a pair teaches nothing, or the wrong thing."""

    EMPTY_PROMPT = "empty_prompt"
    BLANK_RESPONSE = "blank_response"
    IDENTICAL_RESPONSES = "identical_responses"
    CONTRADICTED = "contradicted"


def usable(rows: Iterable[PreferenceRow]) -> tuple[list[PreferenceRow], Counter[str]]:
    """The rows worth training on, and how many are not, by reason; of a pair in both directions neither is."""
    found = list(rows)
    directions = {(row.prompt, row.chosen, row.rejected) for row in found}
    kept, left_out = [], Counter[str]()
    for row in found:
        if reason := _problem(row):
            left_out[reason] += 1
        elif (row.prompt, row.rejected, row.chosen) in directions:
            left_out[Unusable.CONTRADICTED] += 1
        else:
            kept.append(row)
    return kept, left_out


def _problem(row: PreferenceRow) -> Unusable | None:
    chosen, rejected = row.chosen.strip(), row.rejected.strip()
    if not any(message.content.strip() for message in messages_of(row.prompt)):
        return Unusable.EMPTY_PROMPT
    if not chosen or not rejected:
        return Unusable.BLANK_RESPONSE
    return Unusable.IDENTICAL_RESPONSES if chosen == rejected else None


def write_files(
    folder: Path, splits: Mapping[SplitName, Sequence[PreferenceRow]], *, training_type: object, full_history: bool
) -> tuple[dict[SplitName, WrittenFile], Mapping[str, int]]:
    """Write the sides that have rows, in `folder`, under the names of REPO_PATHS; and what could not be written."""
    files = FormatFiles(_format(training_type, full_history=full_history), folder)
    tally = Tally()
    for side in SplitName:
        if splits.get(side):
            write_rows(splits[side], [files], tally, side)
    reasons = tally.skipped().get("rows", {})
    return {side: file for side, file in files.lines.items() if file.rows}, reasons


def _format(training_type: object, *, full_history: bool) -> Format:
    rows: dict[tuple[bool, bool], Rows] = {
        (True, True): sft_rows,
        (True, False): sft_rows_of_last_messages,
        (False, True): _DPO.rows,
        (False, False): each_pair(dpo_row_of_last_message),
    }
    return Format(
        name=_DPO.name,
        rows=rows[training_type == "sft", full_history],
        read_by=_DPO.read_by,
        source="docs.nvidia.com/nemo/microservices, fine-tune/tutorials/format-training-dataset",
        columns=None,
        files={side: Path(path).name for side, path in REPO_PATHS.items()},
    )


def dpo_row_of_last_message(row: PreferenceRow, once: Once) -> Row:
    """NVIDIA's adapter with `use_full_message_history: false`: the prompt is the content of its last message."""
    return {
        "prompt": once(last_text, row.prompt),
        "chosen_response": once(as_text, row.chosen),
        "rejected_response": once(as_text, row.rejected),
    }


def sft_rows(turn: TurnRows, _: Once) -> Iterator[Row]:
    """The answers that no other one beat, each as a conversation."""
    for text in _unbeaten(turn):
        messages = as_messages(turn.pairs[0].prompt)
        yield {"messages": [*messages, {"role": "assistant", "content": text}]}


def sft_rows_of_last_messages(turn: TurnRows, once: Once) -> Iterator[Row]:
    """The same as prompt and completion."""
    for text in _unbeaten(turn):
        yield {"prompt": once(last_text, turn.pairs[0].prompt), "completion": once(as_text, text)}


def _unbeaten(turn: TurnRows) -> list[str]:
    return [answer.text for answer in turn.answers if answer.was_chosen and not answer.was_rejected]

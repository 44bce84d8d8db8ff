"""Preference rows in the shapes that trainers read."""

from dataclasses import dataclass
from enum import StrEnum

from nat_dpo_pipeline.core.candidates import Prompt, as_messages


class SplitName(StrEnum):
    """The side of the split a pair is on; a prompt is on one side only."""

    TRAIN = "train"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One pair of a dataset. Scores are None where the pair came without them."""

    prompt: Prompt
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None
    example_id: str | None = None
    turn_id: str | None = None


def trl_row(row: PreferenceRow) -> dict[str, object]:
    """TRL's conversational preference format (huggingface/trl, docs/source/dataset_formats.md).

    The scores and ids are extra columns, which TRL's trainers ignore.
    """
    return {
        "prompt": as_messages(row.prompt),
        "chosen": [{"role": "assistant", "content": row.chosen}],
        "rejected": [{"role": "assistant", "content": row.rejected}],
        "chosen_score": row.chosen_score,
        "rejected_score": row.rejected_score,
        "example_id": row.example_id,
        "turn_id": row.turn_id,
    }

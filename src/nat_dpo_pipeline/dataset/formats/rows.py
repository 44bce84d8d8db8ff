"""What a dataset is made of: pairs, and single answers with a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nat_dpo_pipeline.core.candidates import Candidate, finite_number
from nat_dpo_pipeline.core.messages import Prompt, alike, calls_tools, has_calls, message_of, messages_of
from nat_dpo_pipeline.core.pairs import PreferencePair


class SplitName(StrEnum):
    """The side of the split a pair is on; a prompt is on one side only."""

    TRAIN = "train"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One pair of a dataset. None stands for what the pair came without.

    Models are the names of llms in the configuration where candidates tell them, else what the server calls them.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    chosen_score: float | None = None
    rejected_score: float | None = None
    example_id: str | None = None
    turn_id: str | None = None
    chosen_attributes: Mapping[str, float] | None = None
    rejected_attributes: Mapping[str, float] | None = None
    chosen_model: str | None = None
    rejected_model: str | None = None
    subtopic: str | None = None


@dataclass(frozen=True, slots=True)
class UnpairedRow:
    """One answer that competed with no other, for formats that want no pairs."""

    prompt: Prompt
    completion: str
    label: bool
    score: float | None = None
    example_id: str | None = None
    turn_id: str | None = None
    model: str | None = None
    subtopic: str | None = None


DatasetRow = PreferenceRow | UnpairedRow


def answers_of(row: DatasetRow) -> tuple[str, ...]:
    """Return the answers of a row."""
    return (row.chosen, row.rejected) if isinstance(row, PreferenceRow) else (row.completion,)


def row_has_calls(row: DatasetRow) -> bool:
    """Return True for a row with tool calls, or tools on offer, in its prompt or in an answer."""
    return any(map(calls_tools, answers_of(row))) or has_calls(row.prompt)


def has_objects_as_arguments(row: DatasetRow) -> bool:
    """Return True unless a call has arguments that are no JSON object, as a model may write and no template takes."""
    messages = (*messages_of(row.prompt), *map(message_of, answers_of(row)))
    return all(call.values() is not None for message in messages for call in message.tool_calls)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a candidate's metadata says of where its text and score came from."""

    attributes: Mapping[str, float] | None = None
    model: str | None = None
    subtopic: str | None = None


_NO_FACTS = Facts()


def facts_of(metadata: object) -> Facts:
    """The facts in a candidate's metadata, as far as they are what they should be."""
    if not isinstance(metadata, Mapping) or not metadata:
        return _NO_FACTS
    llm, subtopic = metadata.get("llm") or metadata.get("model"), metadata.get("subtopic")
    return Facts(
        attributes=_numbers(metadata.get("attributes")),
        model=_text(llm),
        subtopic=_text(subtopic),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and is_utf8(value) else None


def row_of(pair: PreferencePair) -> PreferenceRow:
    """The row of a pair."""
    chosen, rejected = pair.chosen, pair.rejected
    better, worse = _facts(chosen), _facts(rejected)
    texts = alike(chosen.response, rejected.response)
    return PreferenceRow(
        prompt=chosen.prompt,
        chosen=texts[0],
        rejected=texts[1],
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        example_id=chosen.example_id,
        turn_id=chosen.turn_id,
        chosen_attributes=better.attributes,
        rejected_attributes=worse.attributes,
        chosen_model=better.model,
        rejected_model=worse.model,
        subtopic=better.subtopic,
    )


def single_row(candidate: Candidate, *, label: bool) -> UnpairedRow:
    """The row of a candidate that is alone in its turn."""
    facts = _facts(candidate)
    return UnpairedRow(
        prompt=candidate.prompt,
        completion=candidate.response,
        label=label,
        score=candidate.score,
        example_id=candidate.example_id,
        turn_id=candidate.turn_id,
        model=facts.model,
        subtopic=facts.subtopic,
    )


def _facts(candidate: Candidate) -> Facts:
    known = facts_of(candidate.metadata)
    return Facts(_numbers(candidate.attributes) or known.attributes, known.model or candidate.model, known.subtopic)


def _numbers(values: object) -> Mapping[str, float] | None:
    if not isinstance(values, Mapping):
        return None
    numbers = {name: finite_number(value) for name, value in values.items() if isinstance(name, str) and is_utf8(name)}
    return {name: number for name, number in numbers.items() if number is not None} or None


def is_utf8(text: str) -> bool:
    """Whether the text can be written: half of a surrogate pair, which a model may send as a JSON escape, cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

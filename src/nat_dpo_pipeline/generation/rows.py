"""Rows of scored candidates that somebody else made."""

from collections.abc import Mapping
from dataclasses import dataclass

from nat_dpo_pipeline.core.candidates import Candidate, finite_number
from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.core.rendering import render_prompt, render_response
from nat_dpo_pipeline.errors import CandidateRefused, InputError
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.json_text import parse_json


@dataclass(frozen=True, slots=True)
class RowKeys:
    """Where a row keeps its prompt and candidates, and a candidate its text and score."""

    prompt: str = "prompt"
    candidates: str = "candidates"
    response: str = "response"
    score: str = "score"


def read_row(text: str, keys: RowKeys, record: GenerationRecord) -> list[Candidate]:
    """The candidates of one JSON row; a malformed candidate is recorded as a failure, the others stay.

    Everything else in the row and the candidate becomes metadata. Raises InputError for a row that is no row.
    """
    row = read_object(text)
    name = str(row.get("id", "without id"))
    prompt = _prompt(row, keys, name)
    raw_candidates = row.get(keys.candidates)
    if not isinstance(raw_candidates, list) or not raw_candidates:
        raise InputError(f"row {name!r} has no list of candidates under {keys.candidates!r}")
    shared = {key: value for key, value in row.items() if key not in (keys.prompt, keys.candidates)}
    candidates: list[Candidate] = []
    for index, raw in enumerate(raw_candidates):
        try:
            candidates.append(_candidate(raw, index, prompt, keys, shared))
        except InputError as error:
            detail = f"candidate {index} of row {name!r}: {error}"
            record.add(Failure(StepName.INPUT, name, FailureReason.MALFORMED_INPUT, detail))
    return candidates


def read_object(text: str) -> Mapping[str, object]:
    """A JSON object, which may hold escaped halves of surrogate pairs. Raises InputError for anything else."""
    try:
        row = parse_json(text)
    except InputError as error:
        raise InputError(f"not a JSON object: {text[:80]!r} ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"a row must be a JSON object, got {text[:80]!r}")
    return row


def _prompt(row: Mapping[str, object], keys: RowKeys, name: str) -> Prompt:
    if keys.prompt not in row:
        raise InputError(f"row {name!r} has no {keys.prompt!r}; its keys are {', '.join(map(str, row))}")
    try:
        return render_prompt(row[keys.prompt], row.get("tools"))
    except CandidateRefused as refused:
        raise InputError(f"row {name!r}: {keys.prompt!r} is not a prompt ({refused.reason})") from refused


def _candidate(raw: object, index: int, prompt: Prompt, keys: RowKeys, shared: Mapping[str, object]) -> Candidate:
    if not isinstance(raw, dict):
        raise InputError(f"a candidate must be an object, got {raw!r:.80}")
    score = finite_number(raw.get(keys.score))
    if score is None:
        raise InputError(f"{keys.score!r} must be a finite number, got {raw.get(keys.score)!r:.80}")
    response = render_response(raw.get(keys.response))
    if not response.strip():
        raise InputError(f"{keys.response!r} is empty")
    own = {key: value for key, value in raw.items() if key not in (keys.response, keys.score)}
    return Candidate(
        example_id="",
        turn_id="turn-0",
        candidate_index=index,
        prompt=prompt,
        response=response,
        score=score,
        metadata={**shared, **own},
    )

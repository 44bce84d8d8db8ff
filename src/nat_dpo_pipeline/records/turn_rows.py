"""One row a turn: `candidates.jsonl` of `nat dpo generate`, and what `scored_candidates` reads."""

from collections.abc import Iterator

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.values import (
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    mapping,
    named,
)

_OF_THE_TURN = ("prompt", "candidates", "unscored", "example_id", "turn_id")
_OF_THE_CANDIDATE = ("response", "score", "candidate_index")


def _recognises(value: object) -> bool:
    return "prompt" in mapping(value) and isinstance(mapping(value).get("candidates"), list)


def _reader(_shared: Shared) -> Read:
    return _read


def _read(record: Record) -> Iterator[Found | Refused]:
    row = mapping(record.value)
    candidates = row.get("candidates")
    if not isinstance(candidates, list):
        yield Refused(RefusalReason.MALFORMED)
        return
    if "set_aside" in row:
        # `nat dpo generate` keeps such turns in a file of their own: they shall not be paired.
        yield from (Refused(RefusalReason.SET_ASIDE) for _ in candidates)
        return
    name = named(row.get("example_id")) or named(row.get("id")) or f"row-{record.line}"
    turn_id = named(row.get("turn_id")) or "turn-0"
    shared = {key: value for key, value in row.items() if key not in _OF_THE_TURN}
    decoder = CandidateDecoder(name)
    for raw in candidates:
        one = mapping(raw)
        metadata = shared | {key: value for key, value in one.items() if key not in _OF_THE_CANDIDATE}
        fields = {"input": row.get("prompt"), "output": one.get("response")}
        own = {"turn_id": turn_id, "score": one.get("score"), "candidate_index": one.get("candidate_index")}
        try:
            yield Found((str(record.file), str(record.line)), decoder.decode(fields, own, metadata))
        except CandidateRefused as refused:
            yield Refused(refused.reason)


TURN_ROWS = RecordedFormat(
    name="turn rows",
    looks_like='{"prompt", "candidates": [{"response", "score"}, …]}',
    recognises=_recognises,
    reader=_reader,
)

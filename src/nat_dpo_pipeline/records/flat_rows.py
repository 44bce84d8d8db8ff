"""One row a candidate: what the `dpo_candidates` exporter writes, and rollouts with a reward each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.dataset.formats.rows import is_utf8
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.rollouts import prompt_name
from nat_dpo_pipeline.records.values import (
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    mapping,
)

_NOT_METADATA = ("run_id", "example_id", "turn_id", "candidate_index", "prompt", "response", "metadata")


def _is_row(value: object, score: str) -> bool:
    return {"prompt", "response", score} <= mapping(value).keys()


class _Reader:
    """Candidates compete when run, example, turn and prompt are the same; what a row does not name is the same."""

    def __init__(self, score: str) -> None:
        self._score = score
        self._sizes: Counter[int] = Counter()

    def __call__(self, record: Record) -> Iterator[Found | Refused]:
        row = mapping(record.value)
        try:
            yield self._found(row)
        except CandidateRefused as refused:
            yield Refused(refused.reason)

    def _found(self, row: Mapping[str, object]) -> Found:
        run, example = _id(row.get("run_id")), _id(row.get("example_id"))
        # Without the key all rows are of one turn; null is what a recorder writes of a step that has none.
        turn_id = row.get("turn_id", "")
        own = {
            "turn_id": None if turn_id is None else _id(turn_id),
            "score": row.get(self._score),
            "candidate_index": row.get("candidate_index"),
        }
        fields = {"input": row.get("prompt"), "output": row.get("response")}
        found = CandidateDecoder(example).decode(fields, own, _metadata(row, self._score))
        candidate = self._placed(found, run, row)
        return Found((run, candidate.example_id, candidate.turn_id), candidate)

    def _placed(self, found: Candidate, run: str, row: Mapping[str, object]) -> Candidate:
        """With its place in the turn, and with a name for the example, where the row has none."""
        name = found.example_id or prompt_name(found.prompt)
        index = found.candidate_index
        if row.get("candidate_index") is None:
            turn = hash((run, name, found.turn_id, found.prompt))
            index = self._sizes[turn]
            self._sizes[turn] += 1
        return replace(found, example_id=name, candidate_index=index)


def _id(value: object) -> str:
    """The text of an id of any type, as for shards; none is an id too."""
    name = "" if value is None else str(value)
    if not is_utf8(name):
        raise CandidateRefused(RefusalReason.INVALID_UNICODE)
    return name


def _metadata(row: Mapping[str, object], score: str) -> Mapping[str, object]:
    others = {key: value for key, value in row.items() if key not in _NOT_METADATA and key != score}
    own = row.get("metadata")
    return {**others, **(own if isinstance(own, dict) else {} if own is None else {"metadata": own})}


def _flat(_shared: Shared) -> Read:
    return _Reader("score")


def _rollouts(_shared: Shared) -> Read:
    return _Reader("reward")


FLAT_ROWS = RecordedFormat(
    name="flat candidate rows",
    looks_like='{"example_id", "turn_id", "prompt", "response", "score"}',
    recognises=lambda value: _is_row(value, "score"),
    reader=_flat,
)
ROLLOUT_ROWS = RecordedFormat(
    name="rollout rows",
    looks_like='{"prompt", "response", "reward"}',
    recognises=lambda value: _is_row(value, "reward"),
    reader=_rollouts,
)

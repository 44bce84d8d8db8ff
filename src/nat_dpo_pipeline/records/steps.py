"""NAT's steps as JSON: the TTC_END steps of the configured name hold candidates. The fields are those of NAT 1.9.

`nat.data_models.intermediate_step`: a step is `{"parent_id", "function_ancestry", "payload"}`, its payload
`{"event_type", "name", "UUID", "metadata", "data": {"input", "output", "turn_id", "candidate_index", "score"}}`.
"""

from collections.abc import Mapping

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.values import Found, Refused, Shared

TTC_END = "TTC_END"
_MOST_RUNS_AT_ONCE = 1000


def is_step(value: object) -> bool:
    """Whether it is a step of NAT."""
    step = mapping(value)
    return "function_ancestry" in step and "event_type" in mapping(step.get("payload"))


def is_asked_for(payload: Mapping[str, object], shared: Shared) -> bool:
    """Whether it is a TTC_END step of the configured name; another name is noted."""
    if payload.get("event_type") != TTC_END:
        return False
    if payload.get("name") != shared.step_name:
        shared.other_names.add(str(payload.get("name")))
        return False
    return True


def decoded(data: object, metadata: object, scope: tuple[str, ...], decoder: CandidateDecoder) -> Found | Refused:
    """The candidate in the fields of TTCEventData."""
    if not isinstance(data, dict) or not data:
        return Refused(RefusalReason.MISSING_DATA)
    try:
        candidate = decoder.decode(data, data, mapping(metadata))
    except CandidateRefused as refused:
        return Refused(refused.reason)
    return Found((*scope, candidate.turn_id), candidate)


class Runs:
    """Tells the runs of a workflow apart whose steps are mixed: a run is the outermost step that is known.

    A step that started and has not ended takes some hundred bytes. Where starts were lost, the nearest step that is
    known stands for the run.
    """

    def __init__(self) -> None:
        self._run_of: dict[str, str] = {}
        self._decoders: dict[str, CandidateDecoder] = {}

    def started(self, uuid: str, parent: str) -> None:
        """A step began."""
        self._run_of[uuid] = uuid if parent == "root" else self.of(parent)

    def ended(self, uuid: str) -> None:
        """A step is over, and nothing more will be below it."""
        self._run_of.pop(uuid, None)
        self._decoders.pop(uuid, None)

    def of(self, uuid: str) -> str:
        """The run that the step belongs to."""
        return self._run_of.get(uuid, uuid)

    def knows(self, uuid: str) -> bool:
        """Whether the step started and has not ended."""
        return uuid in self._run_of

    def decoder(self, run: str) -> CandidateDecoder:
        """What reads the candidates of the run, which is their example."""
        found = self._decoders.pop(run, None) or CandidateDecoder(run)
        self._decoders[run] = found
        # Each holds a prompt; of a run whose end was lost nothing else would say that it is over.
        if len(self._decoders) > _MOST_RUNS_AT_ONCE:
            del self._decoders[next(iter(self._decoders))]
        return found

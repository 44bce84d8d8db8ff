"""What rollouts have in common: a conversation whose last message is the response to all before it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason, prompt_name
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.errors import CandidateRefused


def rollout(
    conversation: Sequence[object], score: object, *, index: object, metadata: Mapping[str, object]
) -> Candidate:
    """The last message as the response to those before it; the example is named after the prompt.

    Raises CandidateRefused, also for a conversation that does not end with the assistant.
    """
    *before, last = conversation or [None]
    if not isinstance(last, dict) or last.get("role") != "assistant":
        raise CandidateRefused(RefusalReason.MISSING_RESPONSE)
    own = {"turn_id": "rollout", "score": score, "candidate_index": index}
    found = CandidateDecoder("").decode({"input": before, "output": last}, own, metadata)
    return replace(found, example_id=prompt_name(found.prompt))

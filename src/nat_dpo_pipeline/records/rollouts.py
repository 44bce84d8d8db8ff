"""Conversations with one outcome → candidates: a first prompt, and all that came after it."""

from collections.abc import Mapping, Sequence

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.decoding import index_of, score_of
from nat_dpo_pipeline.core.messages import Message, prompt_name
from nat_dpo_pipeline.core.rendering import conversation, render_prompt, rollout_of
from nat_dpo_pipeline.errors import CandidateRefused


def rollout(
    asked: Sequence[object],
    answered: Sequence[object],
    score: object,
    *,
    index: object,
    metadata: Mapping[str, object],
    tools: object = None,
) -> Candidate:
    """Return a conversation as a candidate whose example is named after the first prompt.

    The first prompt is `asked`; where one of the two is empty, all before the first message of the assistant.
    Raises CandidateRefused, also for a conversation in which the assistant says nothing.
    """
    messages = conversation([*asked, *answered])
    cut = len(conversation(asked)) if asked and answered else _first_reply(messages)
    if not any(one.role == "assistant" for one in messages[cut:]):
        raise CandidateRefused(RefusalReason.MISSING_RESPONSE)
    prompt = render_prompt(messages[:cut], tools)
    reply = rollout_of(messages[cut:])
    return Candidate(
        prompt_name(prompt), "rollout", index_of(index, 0), prompt, reply, score_of(score), metadata=metadata
    )


def _first_reply(messages: Sequence[Message]) -> int:
    return next((place for place, one in enumerate(messages) if one.role == "assistant"), len(messages))

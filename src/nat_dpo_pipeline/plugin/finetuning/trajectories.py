"""Preference pairs to NAT trajectories, and trajectories to dataset rows."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import BaseModel

from nat_dpo_pipeline.core.candidates import Candidate, finite_number
from nat_dpo_pipeline.core.messages import Message, Prompt, Reply, has_calls, messages_of, prompt_json, reply_json
from nat_dpo_pipeline.core.pairs import PreferencePair
from nat_dpo_pipeline.core.rendering import render_prompt, render_response
from nat_dpo_pipeline.dataset.formats import PreferenceRow
from nat_dpo_pipeline.dataset.formats.rows import facts_of
from nat_dpo_pipeline.plugin.nat_api import DPOItem, OpenAIMessage, Trajectory

# What only our own workflows say of a candidate; NVIDIA's builder keeps nothing of it in a pair of best and worst.
_OWN_FACT = "llm"
_ITEM_FIELDS = set(DPOItem.model_fields)
_TRAJECTORY_FIELDS = set(Trajectory.model_fields)
_new = object.__new__
_set_dict = object.__setattr__
_set_fields = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


@contextmanager
def collector_paused() -> Iterator[None]:
    """Building many live containers makes the garbage collector walk them over and over; none of them is garbage.

    Freezing and unfreezing at the end moves them to the oldest generation without the walk that enabling the collector
    would start with; it is left out where the process froze objects of its own.
    """
    was_enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        if not frozen:
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def build_trajectories(
    pairs: Sequence[PreferencePair], *, exhaustive: bool, reward_from_score_diff: bool
) -> list[Trajectory]:
    """The pairs of one turn, one trajectory each; they share the prompt and the candidates' texts and metadata."""
    prompt = nat_prompt(pairs[0].chosen.prompt) if pairs else ""
    trajectories = []
    for chosen, rejected, num_candidates in pairs:
        chosen_score, rejected_score = chosen.score, rejected.score
        margin = chosen_score - rejected_score
        metadata = {
            "dpo_type": "preference_pair",
            "score_diff": margin,
            "example_id": chosen.example_id,
            "turn_id": chosen.turn_id,
            "chosen_score": chosen_score,
            "rejected_score": rejected_score,
            "chosen_index": chosen.candidate_index,
            "rejected_index": rejected.candidate_index,
        }
        if not isinstance(prompt, str) or type(chosen.response) is not str or type(rejected.response) is not str:
            metadata.update(_whole(chosen, rejected))
        if exhaustive:
            metadata["chosen_raw_metadata"] = chosen.metadata
            metadata["rejected_raw_metadata"] = rejected.metadata
        else:
            metadata["num_candidates"] = num_candidates
            if isinstance(chosen.metadata.get(_OWN_FACT), str):
                metadata["chosen_raw_metadata"] = chosen.metadata
                metadata["rejected_raw_metadata"] = rejected.metadata
        # What validation would build, without validating again what is typed already: validation, and model_construct
        # too, took more time than all the rest of building a pair. The sets can be shared, as each holds every field.
        item = _new(DPOItem)
        texts = {"prompt": prompt, "chosen_response": chosen.response, "rejected_response": rejected.response}
        _set_dict(item, "__dict__", texts)
        _set_fields(item, _ITEM_FIELDS)
        _set_extra(item, None)
        _set_private(item, None)
        trajectory = _new(Trajectory)
        reward = margin if reward_from_score_diff else chosen_score
        values = {"episode": [item], "reward": reward, "shaped_rewards": None, "metadata": metadata}
        _set_dict(trajectory, "__dict__", values)
        _set_fields(trajectory, _TRAJECTORY_FIELDS)
        _set_extra(trajectory, None)
        _set_private(trajectory, None)
        trajectories.append(trajectory)
    return trajectories


def _whole(chosen: Candidate, rejected: Candidate) -> dict[str, object]:
    """Return what texts cannot hold: calls, tools on offer and thoughts."""
    facts: dict[str, object] = {}
    if has_calls(chosen.prompt):
        facts["prompt_messages"] = prompt_json(chosen.prompt)
    for name, one in (("chosen_message", chosen), ("rejected_message", rejected)):
        if isinstance(one.response, Reply):
            facts[name] = reply_json(one.response)
    return facts


def nat_prompt(prompt: Prompt) -> list[OpenAIMessage] | str:
    """The prompt as a DPOItem holds it."""
    if isinstance(prompt, str):
        return prompt
    return [OpenAIMessage(role=message.role, content=message.text) for message in messages_of(prompt)]


def row_of_item(item: DPOItem, trajectory: Trajectory) -> PreferenceRow:
    """Return a DPO item of a trajectory as a row; metadata of another builder count as far as they fit."""
    metadata = trajectory.metadata or {}
    better, worse = facts_of(metadata.get("chosen_raw_metadata")), facts_of(metadata.get("rejected_raw_metadata"))
    return PreferenceRow(
        prompt=render_prompt(metadata["prompt_messages"]) if "prompt_messages" in metadata else _prompt(item.prompt),
        chosen=_reply(metadata.get("chosen_message"), item.chosen_response),
        rejected=_reply(metadata.get("rejected_message"), item.rejected_response),
        chosen_score=finite_number(metadata.get("chosen_score")),
        rejected_score=finite_number(metadata.get("rejected_score")),
        example_id=_text(metadata, "example_id"),
        turn_id=_text(metadata, "turn_id"),
        chosen_attributes=better.attributes,
        rejected_attributes=worse.attributes,
        chosen_model=better.model,
        rejected_model=worse.model,
        subtopic=better.subtopic,
    )


def _reply(message: object, text: str) -> str:
    return text if message is None else render_response(message)


def _prompt(prompt: list[OpenAIMessage] | str) -> Prompt:
    return prompt if isinstance(prompt, str) else tuple(Message(item.role, item.content) for item in prompt)


def _text(metadata: Mapping[str, object], name: str) -> str | None:
    value = metadata.get(name)
    return None if value is None else str(value)

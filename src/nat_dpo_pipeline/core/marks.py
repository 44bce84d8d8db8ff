"""Marks that other tools leave beside a reward: the reward is void, or the reply did not end well."""

from collections.abc import Callable, Mapping

from nat_dpo_pipeline.core.endings import Ending, ending_of

_FINE = frozenset({"ok", "success", "successful", "succeeded", "completed", "complete", "done", "finished", "valid"})


_NOTHING = frozenset({"", "null", "none", "false", "no", "0"})


def _is_set(value: object) -> bool:
    return value.strip().lower() not in _NOTHING if isinstance(value, str) else bool(value)


def _is_not_fine(value: object) -> bool:
    return isinstance(value, str) and value.lower() not in _FINE


_MASK = "mask_sample"
# Why a reward is of no reply: the environment failed, or the reward is masked. With the tools that write the key.
_VOID: Mapping[str, Callable[[object], bool]] = {
    _MASK: _is_set,  # NeMo Gym: left out of the loss
    "invalid_judge_response": _is_set,  # NeMo Gym
    "error": _is_set,  # verifiers, promptfoo, inspect_ai, and most others
    "exception_type": _is_set,  # NeMo Gym
    "error_kind": _is_set,  # NeMo Gym
    "exception_info": _is_set,  # Harbor
    "_ng_failure_class": _is_set,  # NeMo Gym, in its file of failures
    "rollout_status": _is_not_fine,  # NeMo Agent Toolkit's trainers, Agent Lightning
    "reward_valid": lambda value: value is False,  # Harbor
}
_CUT: Mapping[str, Callable[[object], bool]] = {
    "is_truncated": _is_set,  # verifiers
    "truncated": _is_set,  # Gymnasium, TRL's and verl's agent loops
}
_ENDINGS = ("finish_reason", "stop_reason")
_FLAWS = {Ending.CUT: "truncated", Ending.FILTERED: "filtered", Ending.GIVEN_UP: "truncated"}
#: Every key that `is_void` and `flaw_of` look at.
MARKS = frozenset((*_VOID, *_CUT, *_ENDINGS))


def is_void(row: Mapping[str, object]) -> bool:
    """Return True when a row says that its reward is no judgement of its reply."""
    return any(name in row and says(row[name]) for name, says in _VOID.items()) or _is_masked_below(row)


def _is_masked_below(row: Mapping[str, object]) -> bool:
    """Return True when an object in the row masks it: NeMo Gym's agents write the mask into their `instance_config`."""
    return any(isinstance(value, Mapping) and _is_set(value.get(_MASK)) for value in row.values())


def flaw_of(row: Mapping[str, object]) -> str | None:
    """Return the flaw of a reply that did not end well, as its row says."""
    if any(name in row and says(row[name]) for name, says in _CUT.items()):
        return "truncated"
    for name in _ENDINGS:
        if isinstance(word := row.get(name), str) and (flaw := _FLAWS.get(ending_of(word))):
            return flaw
    return None

"""Marks that other tools leave beside a reward are read as they mean them."""

import pytest

from nat_dpo_pipeline.core.marks import MARKS, flaw_of, is_void


@pytest.mark.parametrize(
    "row",
    [
        {"mask_sample": True},
        {"instance_config": {"mask_sample": True}},
        {"error": {"error": "SandboxError"}},
        {"error": "timed out"},
        {"exception_info": {"exception_type": "AgentTimeoutError"}},
        {"exception_type": "ValueError"},
        {"error_kind": "agent"},
        {"invalid_judge_response": True},
        {"rollout_status": "error"},
        {"reward_valid": False},
        {"_ng_failure_class": "timeout"},
    ],
)
def test_a_reward_is_void(row: dict[str, object]) -> None:
    assert is_void(row)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"mask_sample": False, "error": None, "rollout_status": "ok", "reward_valid": True},
        {"error": "", "exception_info": {}, "error_kind": "None", "exception_type": "null"},
        {"rollout_status": None, "instance_config": {"mask_sample": False}, "other": {"error": "of the task"}},
        {"reward": 0.0, "finish_reason": "stop"},
    ],
)
def test_a_reward_of_zero_may_be_earned(row: dict[str, object]) -> None:
    assert not is_void(row)


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        ({"is_truncated": True}, "truncated"),
        ({"truncated": True}, "truncated"),
        ({"finish_reason": "length"}, "truncated"),
        ({"stop_reason": "max_tokens"}, "truncated"),
        ({"finish_reason": "content_filter"}, "filtered"),
        ({"finish_reason": "abort"}, "truncated"),
        ({"finish_reason": "stop", "is_truncated": False}, None),
        ({"finish_reason": "tool_calls"}, None),
        ({"finish_reason": None, "stop_reason": 7}, None),
        ({}, None),
    ],
)
def test_how_a_reply_ended(row: dict[str, object], flaw: str | None) -> None:
    assert flaw_of(row) == flaw
    assert row.keys() <= MARKS

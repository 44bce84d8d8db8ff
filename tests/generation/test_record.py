import json

import pytest

from nat_dpo_pipeline.generation.chat import ChatReply, Usage
from nat_dpo_pipeline.generation.record import (
    SUMMARY_KIND,
    Failure,
    FailureReason,
    GenerationRecord,
    StepName,
    read_summary,
)


def _reply(usage: Usage, *, replayed: bool = False) -> ChatReply:
    return ChatReply("text", "stop", "m", usage, {}, replayed)


def test_the_summary_of_nothing_says_that_nothing_went_wrong() -> None:
    assert GenerationRecord().summary() == {
        "kind": SUMMARY_KIND,
        "skipped": {},
        "tokens": [],
        "failures": [],
        "stopped": None,
    }


def test_tokens_add_up_by_step_and_model() -> None:
    record = GenerationRecord()
    record.spent(StepName.RESPONSES, _reply(Usage(10, 5)))
    record.spent(StepName.RESPONSES, _reply(Usage(1, 2)))
    record.spent(StepName.REWARDS, _reply(Usage(3, 0)))
    assert record.summary()["tokens"] == [
        {"step": "responses", "model": "m", "requests": 2, "replayed": 0, "prompt_tokens": 11, "completion_tokens": 7},
        {"step": "rewards", "model": "m", "requests": 1, "replayed": 0, "prompt_tokens": 3, "completion_tokens": 0},
    ]


def test_a_replayed_reply_is_counted_apart_and_costs_nothing() -> None:
    record = GenerationRecord()
    record.spent(StepName.RESPONSES, _reply(Usage(10, 5), replayed=True))
    record.spent(StepName.RESPONSES, _reply(Usage(1, 2)))
    assert record.summary()["tokens"] == [
        {"step": "responses", "model": "m", "requests": 1, "replayed": 1, "prompt_tokens": 1, "completion_tokens": 2}
    ]


def test_failures_are_counted_by_step_and_reason_and_kept_with_their_reply() -> None:
    record = GenerationRecord()
    record.failed(Failure(StepName.RESPONSES, "q", FailureReason.UNPARSABLE_REPLY, "no markers", "Sorry."))
    record.failed(Failure(StepName.RESPONSES, "r", FailureReason.UNPARSABLE_REPLY, "no markers", "No."))
    record.failed(Failure(StepName.REWARDS, "q", FailureReason.MODEL_ERROR, "slow"))
    assert record.skips() == {"responses": {"unparsable_reply": 2}, "rewards": {"model_error": 1}}
    summary = json.loads(json.dumps(record.summary()))
    assert summary["skipped"] == record.skips()
    assert [failure["reply"] for failure in summary["failures"]] == ["Sorry.", "No.", None]
    assert summary["failures"][0] == {
        "step": "responses",
        "subject": "q",
        "reason": "unparsable_reply",
        "detail": "no markers",
        "reply": "Sorry.",
    }


def test_counts_and_the_reason_of_an_early_end_are_in_the_summary() -> None:
    record = GenerationRecord(stopped="wrong key")
    record.counts["questions"] += 3
    summary = record.summary()
    assert (summary["questions"], summary["stopped"]) == (3, "wrong key")


def test_a_summary_is_read_back() -> None:
    record = GenerationRecord()
    record.failed(Failure(StepName.INPUT, "row", FailureReason.MALFORMED_INPUT, "no prompt"))
    assert read_summary(json.dumps(record.summary())) == json.loads(json.dumps(record.summary()))


KIND = f'{{"kind": "{SUMMARY_KIND}"'


@pytest.mark.parametrize("output", [None, 3, "", "the weather", f"see {SUMMARY_KIND} for more", KIND, KIND + "}"])
def test_another_output_is_no_summary(output: object) -> None:
    assert read_summary(output) is None

import json

import pytest

from nat_dpo_pipeline.errors import CandidateRefused, Concern, InputError, ItemDropped, ModelError, ParseError
from nat_dpo_pipeline.generation.record import (
    SUMMARY_KIND,
    Failure,
    FailureReason,
    GenerationRecord,
    ModelUsage,
    StepProgress,
    read_summary,
)
from nat_dpo_pipeline.generation.replies import ChatReply, Usage
from nat_dpo_pipeline.generation.settings import Price
from nat_dpo_pipeline.generation.steps import Item, Map

NOTHING = {
    "requests": 0,
    "retries": 0,
    "replayed": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "uncounted": 0,
    "came_along": 0,
    "told_cost": 0.0,
    "replayed_told_cost": 0.0,
    "replayed_prompt_tokens": 0,
    "replayed_completion_tokens": 0,
    "cost": None,
    "cost_before": None,
}


def _reply(
    usage: Usage = Usage(),  # noqa: B008 - it is frozen
    *,
    llm: str = "llm",
    retries: int = 0,
    passed_over: tuple[ModelError, ...] = (),
    replayed: bool = False,
    came_along: bool = False,
) -> ChatReply:
    return ChatReply(
        text="text",
        finish_reason="stop",
        llm=llm,
        model=f"{llm}-8b",
        usage=usage,
        body={},
        retries=retries,
        passed_over=passed_over,
        replayed=replayed,
        came_along=came_along,
    )


def _model_error(
    message: str = "slow", *, llm: str | None = None, requests: int = 0, fatal: bool = False
) -> ModelError:
    error = ModelError(message, fatal=fatal)
    error.llm, error.requests = llm, requests
    return error


def _spending(record: GenerationRecord) -> dict[tuple[object, object], dict[str, object]]:
    """What was spent by step and model, without what is nothing."""
    return {
        (spent["step"], spent["llm"]): {key: spent[key] for key in NOTHING if spent[key] != NOTHING[key]}
        for spent in record.spending()
    }


def test_the_summary_of_nothing_says_that_nothing_went_wrong() -> None:
    record = GenerationRecord()
    assert not record.stopping
    assert record.summary() == {
        "kind": SUMMARY_KIND,
        "skipped": {},
        "tokens": [],
        "cost": None,
        "failures": [],
        "stopped": None,
        "stood_in_for": {},
    }


# What was spent.


def test_requests_and_tokens_add_up_by_step_and_model() -> None:
    record = GenerationRecord()
    record.spent("responses", _reply(Usage(10, 5)))
    record.spent("responses", _reply(Usage(1, 2), retries=2))
    record.spent("responses", _reply(Usage(7, 7), llm="other"))
    record.spent("rewards", _reply(Usage(3, 0)))
    assert _spending(record) == {
        ("responses", "llm"): {"requests": 4, "retries": 2, "prompt_tokens": 11, "completion_tokens": 7},
        ("responses", "other"): {"requests": 1, "prompt_tokens": 7, "completion_tokens": 7},
        ("rewards", "llm"): {"requests": 1, "prompt_tokens": 3},
    }
    assert record.summary()["tokens"] == record.spending()
    assert record.spending()[0] == {
        **NOTHING,
        "step": "responses",
        "llm": "llm",
        "model": "llm-8b",
        "requests": 4,
        "retries": 2,
        "prompt_tokens": 11,
        "completion_tokens": 7,
    }


def test_a_replayed_reply_is_counted_apart_and_costs_nothing_now() -> None:
    record = GenerationRecord(prices={"llm": Price(prompt=1e6, completion=2e6)})
    record.spent("responses", _reply(Usage(10, 5), retries=3, replayed=True))
    record.spent("responses", _reply(Usage(1, 2)))
    assert _spending(record) == {
        ("responses", "llm"): {
            "requests": 1,
            "replayed": 1,
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "replayed_prompt_tokens": 10,
            "replayed_completion_tokens": 5,
            "cost": 5.0,
            "cost_before": 20.0,
        }
    }
    assert record.total_cost() == 5.0


def test_a_price_is_for_a_million_tokens() -> None:
    usage = ModelUsage(prompt_tokens=2_000_000, completion_tokens=500_000, replayed_completion_tokens=100_000)
    assert usage.cost(Price(prompt=0.25, completion=1.0)) == 1.0
    assert usage.cost_before(Price(prompt=0.25, completion=1.0)) == 0.1
    assert (usage.cost(None), usage.cost_before(None)) == (None, None)


def test_the_whole_cost_is_known_when_every_price_is() -> None:
    prices = {"llm": Price(prompt=1e6, completion=1e6), "other": Price(prompt=0.0, completion=0.0)}
    record = GenerationRecord(prices=prices)
    assert record.total_cost() is None
    record.spent("responses", _reply(Usage(1, 1)))
    record.spent("rewards", _reply(Usage(1, 2)))
    record.spent("rewards", _reply(Usage(50, 50), llm="other"))
    assert record.total_cost() == record.summary()["cost"] == 5.0
    record.spent("rewards", _reply(Usage(1, 1), llm="unpriced"))
    assert record.total_cost() is None


def test_requests_in_vain_are_counted_for_the_models_that_failed() -> None:
    record = GenerationRecord()
    first, second = _model_error(llm="first", requests=3), _model_error(llm="second", requests=1)
    record.spent("responses", _reply(llm="third", passed_over=(first, second)))
    last = _model_error(llm="first", requests=2)
    last.passed_over = (second,)
    record.spent("responses", last)
    record.note("responses", "q", last)
    assert _spending(record) == {
        ("responses", "third"): {"requests": 1, "uncounted": 1},
        ("responses", "first"): {"requests": 5, "retries": 3},
        ("responses", "second"): {"requests": 2},
    }


def test_an_error_of_an_unknown_model_or_without_a_request_counts_no_request() -> None:
    record = GenerationRecord()
    record.spent("responses", _model_error(requests=2))
    record.spent("responses", _model_error(llm="llm"))
    assert _spending(record) == {("responses", "llm"): {}}


# What went wrong.


@pytest.mark.parametrize(
    ("error", "reason", "detail", "reply"),
    [
        (ParseError("no markers", "Sorry."), FailureReason.UNPARSABLE_REPLY, "no markers", "Sorry."),
        (ModelError("slow", transient=True), FailureReason.MODEL_ERROR, "slow", None),
        (ModelError("no credit", fatal=True), FailureReason.MODEL_ERROR, "no credit", None),
        (ModelError("too long"), FailureReason.REQUEST_REFUSED, "too long", None),
        (ModelError("bad", concern=Concern.UNKNOWN), FailureReason.REQUEST_REFUSED, "bad", None),
        (ModelError("forbidden", concern=Concern.ACCOUNT), FailureReason.MODEL_ERROR, "forbidden", None),
        (InputError("the input is empty"), FailureReason.MALFORMED_INPUT, "the input is empty", None),
        (CandidateRefused("missing_prompt"), FailureReason.MALFORMED_INPUT, "not a candidate: missing_prompt", None),
    ],
)
def test_an_error_is_a_failure_with_its_reason_and_reply(
    error: Exception, reason: FailureReason, detail: str, reply: str | None
) -> None:
    record = GenerationRecord()
    record.note("responses", "q", error)
    assert record.failures == [Failure("responses", "q", reason, detail, reply)]
    assert record.skips() == {"responses": {reason: 1}}


def test_failures_are_counted_by_step_and_reason_and_are_in_the_summary() -> None:
    record = GenerationRecord()
    record.note("responses", "q", ParseError("no markers", "Sorry."))
    record.note("responses", "r", ParseError("no markers", "No."))
    record.note("rewards", "q", ModelError("slow"))
    assert record.skips() == {"responses": {"unparsable_reply": 2}, "rewards": {"request_refused": 1}}
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


def test_whoever_asks_for_failures_gets_them_as_they_happen_and_keeps_them() -> None:
    told: list[Failure] = []
    record = GenerationRecord(on_failure=told.append)
    record.note("responses", "q", ParseError("no markers", "Sorry."))
    assert [failure.subject for failure in told] == ["q"]
    assert record.failures == record.summary()["failures"] == []
    assert record.skips() == {"responses": {"unparsable_reply": 1}}


def test_a_model_that_is_at_an_end_stops_the_run_and_is_told_once() -> None:
    record = GenerationRecord()
    for subject in "abc":
        record.note("responses", subject, _model_error("the key is wrong", fatal=True))
    record.note("rewards", "d", _model_error("the credit is spent", fatal=True))
    assert record.stopping
    assert record.summary()["stopped"] == "the key is wrong"
    assert [failure.subject for failure in record.failures] == ["a", "d"]
    assert record.skips() == {"responses": {"model_error": 3}, "rewards": {"model_error": 1}}


def test_a_model_that_may_still_answer_is_told_every_time_and_stops_nothing() -> None:
    record = GenerationRecord()
    for subject in "ab":
        record.note("responses", subject, _model_error("slow"))
    assert not record.stopping
    assert [failure.subject for failure in record.failures] == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ModelError("slow", transient=True), 1),
        (ModelError("no credit for this one", concern=Concern.CREDIT), 1),
        (ModelError("a key, or this one", concern=Concern.ACCOUNT), 1),
        (ModelError("only this one", concern=Concern.UNKNOWN), 0),
        (ModelError("too long"), 0),
        (ModelError("no credit", fatal=True, concern=Concern.ACCOUNT), 0),
    ],
    ids=str,
)
def test_a_call_that_may_succeed_later_is_lost_for_now(error: ModelError, lost: int) -> None:
    record = GenerationRecord()
    record.note("responses", "q", error)
    assert record.lost == lost


# As the observer of a pipeline.


def test_progress_is_counted_by_step() -> None:
    record = GenerationRecord()
    item = Item("q", (0,))
    for _ in range(4):
        record.started("responses")
    record.started("rewards")
    record.finished("responses")
    record.failed("responses", item, ParseError("no markers", "Sorry."))
    record.failed("responses", item, ItemDropped("short"))
    assert record.progress == {
        "responses": StepProgress(running=1, done=1, failed=2),
        "rewards": StepProgress(running=1),
    }


def test_an_item_that_a_step_dropped_is_counted_under_its_reason_and_is_no_failure() -> None:
    record = GenerationRecord()
    record.started("responses")
    record.failed("responses", Item("q", (0,)), ItemDropped("short"))
    assert record.summary()["dropped_short"] == 1
    assert (record.failures, record.skips()) == ([], {})


def _answering(error: Exception) -> Map:
    async def responses(item: Item[str]) -> str:
        if item.value == "bad":
            raise error
        return item.value

    return Map(responses, workers=1)


async def test_a_pipeline_tells_the_record_how_it_went() -> None:
    record = GenerationRecord()
    pipeline = _answering(ParseError("no markers", "Sorry.")) >> Map(_scored)
    assert [item.value async for item in pipeline.run(["good", "bad", "fine"], observer=record)] == ["good", "fine"]
    assert record.failures == [Failure("responses", "bad", FailureReason.UNPARSABLE_REPLY, "no markers", "Sorry.")]
    assert record.progress == {"responses": StepProgress(done=2, failed=1), "scored": StepProgress(done=2)}


async def _scored(item: Item[str]) -> str:
    return item.value


async def test_a_model_that_is_at_an_end_ends_the_input_of_a_pipeline() -> None:
    record = GenerationRecord()
    pipeline = _answering(_model_error("the key is wrong", fatal=True)) >> Map(_scored)
    found = [item.value async for item in pipeline.run(["good", "bad", *["fine"] * 100], observer=record)]
    # One was waiting for its place already.
    assert found == ["good", "fine"]
    assert record.stopped == "the key is wrong"


# The summary as a workflow's output.


def test_counts_and_the_reason_of_an_early_end_are_in_the_summary() -> None:
    record = GenerationRecord(stopped="wrong key")
    record.counts["questions"] += 3
    summary = record.summary()
    assert (summary["questions"], summary["stopped"]) == (3, "wrong key")


def test_a_summary_is_read_back() -> None:
    record = GenerationRecord()
    record.note("input", "row", InputError("no prompt"))
    record.spent("responses", _reply(Usage(1, 2)))
    assert read_summary(json.dumps(record.summary())) == json.loads(json.dumps(record.summary()))


KIND = f'{{"kind": "{SUMMARY_KIND}"'


@pytest.mark.parametrize(
    "output",
    [None, 3, "", "the weather", f"see {SUMMARY_KIND} for more", KIND, KIND + "}", KIND + ', "skipped": {}}'],
)
def test_another_output_is_no_summary(output: object) -> None:
    assert read_summary(output) is None


def test_a_model_for_which_others_stand_in_is_told_and_ends_nothing() -> None:
    record = GenerationRecord()
    error = ModelError("no credit", fatal=True)
    error.llm, error.requests = "small", 1
    reply = ChatReply("hi", "stop", "large", "large-1", Usage(3, 4), {}, passed_over=(error,))
    record.spent("responses", reply)
    assert record.stood_in_for == {"small": "no credit"}
    assert record.stopped is None
    assert record.usage["responses", "small"].requests == 1


# What servers say that it costs.


def test_without_a_price_a_cost_is_what_servers_said() -> None:
    record = GenerationRecord()
    record.spent("responses", _reply(Usage(1, 1, cost=0.25)))
    record.spent("responses", _reply(Usage(1, 1, cost=0.5)))
    record.spent("responses", _reply(Usage(1, 1, cost=4.0), replayed=True))
    record.spent("rewards", _reply(Usage(1, 1, cost=2.0), replayed=True))
    costs = [(spent["cost"], spent["cost_before"]) for spent in record.spending()]
    assert costs == [(0.75, 4.0), (0.0, 2.0)]
    assert record.total_cost() == 0.75


def test_the_users_price_goes_before_what_a_server_said() -> None:
    record = GenerationRecord(prices={"llm": Price(prompt=1e6, completion=0.0)})
    record.spent("responses", _reply(Usage(3, 1, cost=0.25)))
    record.spent("responses", _reply(Usage(2, 1, cost=0.25), replayed=True))
    (spent,) = record.spending()
    assert (spent["cost"], spent["cost_before"]) == (3.0, 2.0)


def test_a_model_without_price_or_told_cost_makes_the_whole_unknown() -> None:
    record = GenerationRecord()
    record.spent("responses", _reply(Usage(1, 1, cost=0.25)))
    record.spent("rewards", _reply(Usage(1, 1), llm="other"))
    assert [spent["cost"] for spent in record.spending()] == [0.25, None]
    assert record.total_cost() is None


def test_replies_that_came_along_are_answers_and_no_requests() -> None:
    record = GenerationRecord()
    record.spent("responses", _reply(Usage(3, 4), retries=2))
    record.spent("responses", _reply(Usage(3, 4), came_along=True))
    assert _spending(record) == {
        ("responses", "llm"): {
            "requests": 3,
            "retries": 2,
            "came_along": 1,
            "prompt_tokens": 6,
            "completion_tokens": 8,
        }
    }
    assert record.usage["responses", "llm"].answered == 2

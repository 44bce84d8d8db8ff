"""Limits and retries, with a model that is told how to fail, in a time of the tests' own."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import Concern, ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, counting_late
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.pace import Slots
from nat_dpo_pipeline.generation.replies import ChatReply, Usage

pytestmark = pytest.mark.own_time
ASKED = Call((Message("user", "Hello?"),))


class Model:
    """Answers after `seconds`, unless `failure(number of the call)` gives an error; keeps what a test wants to know."""

    name = "model"

    def __init__(self, failure: Callable[[int], ModelError | None], *, seconds: float = 0.0, tokens: int = 0) -> None:
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self._failure = failure
        self._seconds = seconds
        self._tokens = tokens

    async def complete(self, _: Call) -> ChatReply:
        self.calls += 1
        number = self.calls
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self._seconds)
            if error := self._failure(number):
                raise error
        finally:
            self.under_way -= 1
        return ChatReply("hi", "stop", self.name, "m-1", Usage(0, self._tokens), {})


def limited(model: Model, **limits: float) -> LimitedModel:
    return LimitedModel(model, Limits(**{"first_pause_seconds": 0.001, **limits}))  # type: ignore[arg-type]


def never(_: int) -> None:
    return None


async def test_a_transient_failure_is_tried_again() -> None:
    model = Model(lambda number: ModelError("busy", transient=True) if number in (2, 3, 4) else None)
    asked = limited(model, max_retries=3)

    await asked.complete(ASKED)
    reply = await asked.complete(ASKED)

    assert reply.text == "hi"
    assert model.calls == 5


async def test_retries_end() -> None:
    model = Model(lambda number: ModelError("busy", transient=True) if number > 1 else None)
    asked = limited(model, max_retries=3)
    await asked.complete(ASKED)

    with pytest.raises(ModelError, match="busy"):
        await asked.complete(ASKED)

    assert model.calls == 1 + 4


async def test_a_model_that_never_answered_is_given_up_early() -> None:
    model = Model(lambda _: ModelError("cannot be reached", transient=True))

    with pytest.raises(ModelError):
        await limited(model, max_retries=100).complete(ASKED)

    assert model.calls == 3


async def test_a_refused_request_is_not_repeated() -> None:
    model = Model(lambda _: ModelError("bad request"))

    with pytest.raises(ModelError):
        await limited(model).complete(ASKED)

    assert model.calls == 1


async def test_a_fatal_error_ends_the_model_for_every_caller() -> None:
    model = Model(lambda _: ModelError("wrong key", fatal=True), seconds=0.001)
    asked = limited(model, max_concurrency=2)

    results = await asyncio.gather(*(asked.complete(ASKED) for _ in range(50)), return_exceptions=True)

    assert all(isinstance(result, ModelError) and result.fatal for result in results)
    assert model.calls <= 2


async def test_a_429_holds_back_every_caller_and_costs_no_retry() -> None:
    over = time.monotonic() + 0.3
    model = Model(
        lambda _: ModelError("slow down", throttled=True, retry_after=0.1) if time.monotonic() < over else None,
        seconds=0.002,
    )
    asked = limited(model, max_concurrency=20, max_retries=0)

    replies = await asyncio.gather(*(asked.complete(ASKED) for _ in range(100)))

    assert len(replies) == 100
    # Twenty calls were under way at the first 429; without the common pause each would have come back at once.
    assert model.calls <= 100 + 20 + 20


async def test_a_429_for_ever_ends_with_the_time() -> None:
    model = Model(lambda _: ModelError("slow down", throttled=True, retry_after=0.05))
    started = time.monotonic()

    with pytest.raises(ModelError, match="slow down"):
        await limited(model, max_wait_seconds=0.3).complete(ASKED)

    assert model.calls < 10
    assert time.monotonic() - started < 5


async def test_no_more_calls_are_under_way_than_allowed() -> None:
    model = Model(never, seconds=0.002)
    asked = limited(model, max_concurrency=3)

    await asyncio.gather(*(asked.complete(ASKED) for _ in range(40)))

    assert model.most_under_way == 3


@pytest.mark.parametrize(
    ("error", "fewest"),
    [
        (ModelError("too many", throttled=True, retry_after=0.01), 4),
        (ModelError("server error", overloaded=True), 6),
        (ModelError("connection reset", transient=True), 8),
    ],
    ids=["throttled", "overloaded", "reset"],
)
async def test_concurrency_shrinks_with_what_the_model_says_and_grows_back(error: ModelError, fewest: int) -> None:
    at_once: list[int] = []

    def failure(number: int) -> ModelError | None:
        at_once.append(model.under_way)
        return error if number == 9 else None

    model = Model(failure, seconds=0.005)
    asked = limited(model, max_concurrency=8, max_retries=1)
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(8)))
    await asked.complete(ASKED)
    at_once.clear()
    model.most_under_way = 0
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(300)))

    # The first that ended had as many beside them as were allowed at the time.
    assert at_once[0] == fewest
    assert model.most_under_way == 8


def test_calls_that_were_under_way_shrink_it_no_further() -> None:
    slots = Slots(64)
    sent_at = time.monotonic()
    for _ in range(20):
        slots.shrink(0.5, sent_at)
    assert slots.limit == 32
    slots.shrink(0.5, time.monotonic())
    assert slots.limit == 16


def test_one_call_may_always_be_under_way_and_never_more_than_the_most() -> None:
    slots = Slots(4)
    for _ in range(20):
        slots.shrink(0.5, time.monotonic())
    assert slots.limit == 1
    for _ in range(200):
        slots.grow()
    assert slots.limit == 4


async def test_requests_keep_their_pace() -> None:
    model = Model(never)
    asked = limited(model, requests_per_minute=1200)
    started = time.monotonic()

    await asyncio.gather(*(asked.complete(ASKED) for _ in range(6)))

    assert time.monotonic() - started == pytest.approx(5 * 60 / 1200)


async def test_tokens_keep_their_pace() -> None:
    model = Model(never, tokens=2000)
    asked = limited(model, tokens_per_minute=60_000, max_concurrency=1)
    started = time.monotonic()

    for _ in range(7):
        await asked.complete(ASKED)

    # Ten seconds' worth may go at once; the six calls before the last one took 12,000 tokens.
    assert time.monotonic() - started >= (6 * 2000 - 10_000) / 1000


async def test_tokens_are_booked_before_calls_are_sent_so_that_a_burst_keeps_to_them_too() -> None:
    sent: list[float] = []

    def failure(_: int) -> None:
        sent.append(time.monotonic() - started)

    asked = limited(Model(failure, tokens=256), tokens_per_minute=60_000, max_concurrency=200)
    started = time.monotonic()
    calls = [asyncio.create_task(asked.complete(ASKED)) for _ in range(200)]
    await asyncio.sleep(1.0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    # Ten seconds' worth at once, and a second's: not the 51,200 tokens of all 200.
    assert 30 <= len(sent) <= (10_000 + 2_000) / 256 + 1


async def test_where_the_server_counts_no_tokens_the_estimate_keeps_the_pace() -> None:
    asked = limited(Model(never, tokens=0), tokens_per_minute=60_000, max_concurrency=1)
    started = time.monotonic()

    for _ in range(60):
        await asked.complete(ASKED)

    # Ten seconds' worth may go at once; a reply is taken to have 256 tokens until one was counted.
    assert time.monotonic() - started >= (59 * 256 - 10_000) / 1000


async def test_what_was_booked_for_a_call_that_failed_is_given_back() -> None:
    model = Model(lambda number: ModelError("reset", transient=True) if 1 < number <= 9 else None, tokens=256)
    asked = limited(model, tokens_per_minute=6_000, max_retries=20)
    await asked.complete(ASKED)
    started = time.monotonic()

    reply = await asked.complete(ASKED)

    assert reply.retries == 8
    # Nine calls' tokens would take a quarter of a minute.
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("limits", [{"max_concurrency": 0}, {"requests_per_minute": -1}, {"max_retries": -1}])
def test_limits_that_allow_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)


async def test_a_cool_down_that_is_longer_than_the_time_ends_every_caller() -> None:
    model = Model(lambda _: ModelError("come back tomorrow", throttled=True, retry_after=86_400), seconds=0.01)
    asked = limited(model, max_concurrency=2, max_wait_seconds=1)

    results = await asyncio.wait_for(
        asyncio.gather(*(asked.complete(ASKED) for _ in range(6)), return_exceptions=True), timeout=10
    )

    assert all(isinstance(result, ModelError) for result in results)
    assert model.calls <= 2


async def test_nothing_is_sent_into_a_cool_down_and_no_burst_comes_after_it() -> None:
    sent: list[float] = []

    def failure(number: int) -> ModelError | None:
        sent.append(time.monotonic())
        return ModelError("slow down", throttled=True, retry_after=0.5) if number == 1 else None

    asked = limited(Model(failure), requests_per_minute=1200, max_concurrency=8)
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(5)))

    assert sent[1] - sent[0] == pytest.approx(0.5)
    # One in 50 ms, also those that had had their turn before the cool-down began.
    assert sent[-1] - sent[1] == pytest.approx(4 * 0.05)


async def test_a_reply_says_how_many_requests_failed_before_it() -> None:
    busy = ModelError("busy", transient=True)
    later = ModelError("slow down", throttled=True, retry_after=0.001)
    asked = limited(Model(lambda number: {1: busy, 2: later, 3: busy}.get(number)))

    assert (await asked.complete(ASKED)).retries == 3
    assert (await asked.complete(ASKED)).retries == 0


@pytest.mark.parametrize("error", [ModelError("busy", transient=True), ModelError("bad"), ModelError("no", fatal=True)])
async def test_an_error_says_which_model_it_is_of_and_how_many_requests_it_took(error: ModelError) -> None:
    model = Model(lambda _: error)

    with pytest.raises(ModelError) as raised:
        await limited(model, max_retries=1).complete(ASKED)

    assert (raised.value.llm, raised.value.requests) == ("model", model.calls)


async def test_a_model_that_a_fatal_error_ended_is_not_asked_and_says_why() -> None:
    model = Model(lambda _: ModelError("no credit", fatal=True))
    asked = limited(model)
    with pytest.raises(ModelError):
        await asked.complete(ASKED)

    with pytest.raises(ModelError, match="no credit") as raised:
        await asked.complete(ASKED)

    assert (raised.value.fatal, raised.value.llm, raised.value.requests) == (True, "model", 0)
    assert model.calls == 1


async def test_a_caller_that_is_cancelled_gives_its_place_back() -> None:
    model = Model(never, seconds=0.01)
    asked = limited(model, max_concurrency=1)
    callers = [asyncio.create_task(asked.complete(ASKED)) for _ in range(4)]
    await asyncio.sleep(0.001)

    for caller in callers[:3]:
        caller.cancel()
    results = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 5)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, True, True, False]
    assert model.under_way == 0


def test_a_limited_model_has_the_name_of_its_model() -> None:
    assert limited(Model(never)).name == "model"


async def test_while_a_model_is_down_its_calls_wait_and_use_up_no_retries() -> None:
    model = Model(lambda number: ModelError("no route", transient=True) if 5 <= number < 60 else None, seconds=0.001)
    asked = limited(model, max_concurrency=4, max_retries=4)
    await asked.complete(ASKED)

    replies = await asyncio.gather(*(asked.complete(ASKED) for _ in range(40)))

    assert len(replies) == 40


async def test_a_model_that_stays_down_ends_after_its_time_and_says_so_once_for_all() -> None:
    model = Model(lambda number: ModelError("no route", transient=True) if number > 1 else None, seconds=0.001)
    asked = limited(model, max_concurrency=4, max_retries=4, max_wait_seconds=0.3)
    await asked.complete(ASKED)

    results = await asyncio.gather(*(asked.complete(ASKED) for _ in range(200)), return_exceptions=True)

    assert all(isinstance(result, ModelError) and result.fatal for result in results)
    assert len({str(result) for result in results}) == 1
    assert "no route, and would have to be left alone" in str(results[0])
    assert model.calls < 200


async def test_a_model_that_never_answers_anybody_ends_soon() -> None:
    model = Model(lambda _: ModelError("no route", transient=True), seconds=0.001)
    asked = limited(model, max_concurrency=4)

    results = await asyncio.gather(*(asked.complete(ASKED) for _ in range(200)), return_exceptions=True)

    assert any(isinstance(result, ModelError) and result.fatal for result in results)
    assert model.calls <= 10 + 4


async def test_a_model_that_wants_to_be_left_alone_for_too_long_ends_and_loses_no_other_row_silently() -> None:
    model = Model(lambda number: ModelError("busy", throttled=True, retry_after=3600) if number == 3 else None)
    asked = limited(model, max_concurrency=1, max_wait_seconds=60)

    results = await asyncio.wait_for(
        asyncio.gather(*(asked.complete(ASKED) for _ in range(9)), return_exceptions=True), timeout=10
    )

    assert [isinstance(result, ModelError) and result.fatal for result in results] == [False] * 2 + [True] * 7
    assert "left alone for 3600 s more; max_wait_seconds is 60" in str(results[-1])
    assert model.calls == 3


async def test_waiting_for_the_pace_that_was_set_is_not_counted_against_a_call() -> None:
    def failure(number: int) -> ModelError | None:
        return ModelError("busy", throttled=True, retry_after=0.01) if number % 4 == 0 else None

    asked = limited(Model(failure), requests_per_minute=2400, max_concurrency=30, max_wait_seconds=0.2)

    replies = await asyncio.gather(*(asked.complete(ASKED) for _ in range(30)))

    assert len(replies) == 30


async def test_a_call_that_is_not_patient_is_given_up_when_the_model_seems_down() -> None:
    model = Model(lambda number: ModelError("no route", transient=True) if number > 1 else None)
    asked = limited(model, max_retries=100)
    await asked.complete(ASKED)

    with pytest.raises(ModelError, match="no route") as raised:
        await asked.complete(replace(ASKED, patient=False))

    assert raised.value.transient
    assert not raised.value.fatal
    assert model.calls == 1 + 10


def _question(number: int) -> Call:
    return Call((Message("user", f"Question {number}?"),))


async def test_what_is_refused_for_itself_fails_at_once_and_slows_nobody() -> None:
    model = Model(lambda number: ModelError("Request too large") if number == 5 else None, seconds=0.001)
    asked = limited(model, max_concurrency=8)

    results = await asyncio.gather(*(asked.complete(_question(number)) for number in range(60)), return_exceptions=True)

    assert sum(isinstance(result, ModelError) for result in results) == 1
    assert model.calls == 60
    assert model.most_under_way == 8
    assert asked.waiting() is None


class Refusing:
    """Refuses the questions in which `is_refused` finds something, and says so in the words of the question."""

    name = "model"

    def __init__(self, is_refused: Callable[[str], bool], concern: Concern, probe: ModelError | None = None) -> None:
        self.asked: list[str] = []
        self._is_refused = is_refused
        self._concern = concern
        self._probe = probe

    async def complete(self, call: Call) -> ChatReply:
        text = call.messages[-1].content
        self.asked.append(text)
        await asyncio.sleep(0)
        if text == "Hello" and self._probe is not None:
            raise self._probe
        if self._is_refused(text):
            raise ModelError("refused", concern=self._concern)
        return ChatReply("hi", "stop", self.name, "m-1", Usage(0, 0), {})


def _asked(model: Refusing, at_once: int) -> LimitedModel:
    return LimitedModel(model, Limits(max_concurrency=at_once, first_pause_seconds=0.001))


async def _outcomes(asked: LimitedModel, count: int) -> list[ChatReply | BaseException]:
    calls = (asked.complete(_question(number)) for number in range(count))
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    ("concern", "refused"), [(Concern.ACCOUNT, 1), (Concern.CREDIT, 1), (Concern.NAME, 1), (Concern.UNKNOWN, 10)]
)
@pytest.mark.parametrize("at_once", [1, 8])
async def test_a_model_that_refuses_a_harmless_question_too_ends_for_every_caller(
    concern: Concern, refused: int, at_once: int
) -> None:
    model = Refusing(lambda _: True, concern)
    results = await _outcomes(_asked(model, at_once), 60)

    assert model.asked.count("Hello") == 1
    assert len(model.asked) <= refused + at_once
    errors = [result for result in results if isinstance(result, ModelError)]
    assert len(errors) == 60
    assert sum(error.requests for error in errors) == len(model.asked)
    ends = {str(error) for error in errors if error.fatal}
    often = "it was refused" if refused == 1 else "10 requests in a row were refused"
    assert ends == {f"refused; {often}, and so was a harmless question"}
    assert [error.fatal for error in errors].count(False) == refused - 1


@pytest.mark.parametrize("concern", [Concern.ACCOUNT, Concern.CREDIT, Concern.NAME, Concern.UNKNOWN])
@pytest.mark.parametrize("at_once", [1, 8])
async def test_a_model_that_answers_a_harmless_question_refuses_only_what_it_refuses(
    concern: Concern, at_once: int
) -> None:
    forbidden = {f"Question {number}?" for number in range(40)}
    model = Refusing(lambda text: text in forbidden, concern)
    results = await _outcomes(_asked(model, at_once), 60)

    assert [isinstance(result, ModelError) for result in results] == [True] * 40 + [False] * 20
    errors = [result for result in results if isinstance(result, ModelError)]
    assert not any(error.fatal or error.transient for error in errors)
    assert 1 <= model.asked.count("Hello") <= 6
    assert sum(error.requests for error in errors) + 20 == len(model.asked) == 60 + model.asked.count("Hello")
    # Credit that is too little for one question may be enough for the next.
    kept = Concern.CREDIT if concern is Concern.CREDIT else Concern.UNKNOWN
    assert {error.concern for error in errors} == {kept}


async def test_a_model_that_ends_later_ends_although_probes_were_answered_before() -> None:
    ended: list[str] = []
    model = Refusing(lambda text: bool(ended) or text == "Question 0?", Concern.ACCOUNT)
    asked = _asked(model, 1)
    with pytest.raises(ModelError, match="it answers other questions, so it refuses this one"):
        await asked.complete(_question(0))
    await asked.complete(_question(1))
    ended.append("the credit")
    results = await _outcomes(asked, 20)
    assert [isinstance(result, ModelError) and result.fatal for result in results] == [False] + [True] * 19
    assert str(results[-1]) == "refused; 2 requests in a row were refused, and so was a harmless question"


@pytest.mark.parametrize(
    "probe", [ModelError("slow down", throttled=True), ModelError("lost", transient=True), ModelError("flagged")]
)
async def test_a_probe_that_shows_nothing_is_made_again_at_the_next_refusal(probe: ModelError) -> None:
    model = Refusing(lambda _: True, Concern.ACCOUNT, probe)
    results = await _outcomes(_asked(model, 1), 4)

    assert model.asked.count("Hello") == 4
    assert [str(result) for result in results] == ["refused"] * 4
    assert {error.concern for error in results if isinstance(error, ModelError)} == {Concern.ACCOUNT}


async def test_a_probe_that_meets_a_wrong_key_says_so() -> None:
    model = Refusing(lambda _: True, Concern.ACCOUNT, ModelError("wrong key", fatal=True))
    results = await _outcomes(_asked(model, 1), 4)
    assert [str(result) for result in results] == ["wrong key"] * 4
    assert len(model.asked) == 2


async def test_a_call_that_is_cancelled_while_its_model_is_probed_is_counted() -> None:
    class Silent(Refusing):
        async def complete(self, call: Call) -> ChatReply:
            if call.messages[-1].content == "Hello":
                await asyncio.Event().wait()
            return await super().complete(call)

    late: list[ChatReply | ModelError] = []
    asked = _asked(Silent(lambda _: True, Concern.ACCOUNT), 8)
    with counting_late(late.append):
        calls = [asyncio.create_task(asked.complete(_question(number))) for number in range(3)]
        await asyncio.sleep(1)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert [one.requests for one in late if isinstance(one, ModelError)] == [1, 1, 1]


async def test_what_one_request_alone_is_refused_for_is_not_probed() -> None:
    model = Refusing(lambda _: True, Concern.REQUEST)
    assert len(await _outcomes(_asked(model, 8), 60)) == len(model.asked) == 60


async def test_a_probe_is_not_put_on_record() -> None:
    recorded, bare = Refusing(lambda _: True, Concern.NAME), Refusing(lambda _: False, Concern.NAME)
    asked = LimitedModel(recorded, Limits(max_concurrency=1), unrecorded=bare)
    await _outcomes(asked, 3)
    assert "Hello" not in recorded.asked
    assert bare.asked == ["Hello"] * 2


async def test_prompts_that_are_too_long_do_not_end_a_healthy_model() -> None:
    model = Model(lambda number: ModelError("too long", concern=Concern.REQUEST) if number <= 50 else None)
    asked = limited(model, max_concurrency=1)

    results = await asyncio.gather(*(asked.complete(_question(number)) for number in range(60)), return_exceptions=True)

    assert [isinstance(result, ModelError) for result in results] == [True] * 50 + [False] * 10


async def test_a_prompt_that_can_never_fit_is_refused_without_being_sent_and_holds_up_nobody() -> None:
    model = Model(never)
    asked = limited(model, tokens_per_minute=1000)
    long = Call((Message("user", "a word " * 1000),))

    with pytest.raises(
        ModelError, match=r"has about 1750 tokens, which is more than tokens_per_minute \(1000\)"
    ) as error:
        await asked.complete(long)
    assert not error.value.transient
    assert error.value.requests == 0
    await asyncio.wait_for(asked.complete(ASKED), 10)
    assert model.calls == 1


async def test_what_is_waited_for_is_told_while_it_is() -> None:
    told: list[object] = []

    def failure(number: int) -> ModelError | None:
        return ModelError("answered 429: slow down", throttled=True, retry_after=0.2) if number == 1 else None

    asked = limited(Model(failure))
    call = asyncio.create_task(asked.complete(ASKED))
    while not call.done():
        told.append(asked.waiting())
        await asyncio.sleep(0.01)

    assert asked.waiting() is None
    (first, *_) = [one for one in told if one is not None]
    assert (first.llm, first.reason) == ("model", "answered 429: slow down")
    assert 0 < first.seconds <= 0.2


_USUAL, _THERE = "answered 500: Internal Server Error", "the server has 'a', 'b'"


def _misnamed(number: int) -> ModelError:
    if number % 4 == 0:
        return ModelError("cannot be reached: reset", transient=True)
    return ModelError(f"{_USUAL} {number}", overloaded=True)


@pytest.mark.parametrize(
    ("failure", "at_once", "said", "listings"),
    [
        (_misnamed, 10, f"{_USUAL} 10, 8 of the last 10 requests, and none was answered; {_THERE}", 1),
        (_misnamed, 1, f"{_USUAL} 3; {_THERE}", 1),
        (lambda _: ModelError("not found", fatal=True, concern=Concern.NAME), 4, f"not found; {_THERE}", 1),
        (lambda _: ModelError("wrong key", fatal=True, concern=Concern.ACCOUNT), 4, "wrong key", 0),
        (lambda _: ModelError("cannot be reached", transient=True), 1, "cannot be reached", 0),
    ],
    ids=["down", "one call", "name", "key", "unreachable"],
)
async def test_a_model_that_never_answered_is_told_with_the_usual_error_and_what_the_server_has(
    failure: Callable[[int], ModelError], at_once: int, said: str, listings: int
) -> None:
    listed: list[int] = []

    async def served() -> list[str]:
        listed.append(1)
        return ["a", "b"]

    model = Model(failure)
    asked = LimitedModel(model, Limits(max_concurrency=10, first_pause_seconds=0.01), served)
    calls = (asked.complete(_question(number)) for number in range(at_once))
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert str(results[-1]) == said
    assert len(listed) == listings
    # What the server was asked is counted, the list of its models included.
    assert sum(result.requests for result in results if isinstance(result, ModelError)) == model.calls + listings


async def test_a_model_that_has_answered_is_not_asked_what_its_server_has() -> None:
    async def served() -> list[str]:
        raise AssertionError

    model = Model(lambda number: ModelError("gone", fatal=True, concern=Concern.NAME) if number > 1 else None)
    asked = LimitedModel(model, Limits(), served)
    await asked.complete(ASKED)
    with pytest.raises(ModelError, match=r"gone$"):
        await asked.complete(ASKED)

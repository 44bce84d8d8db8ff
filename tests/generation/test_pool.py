import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import Concern, ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, counting_late
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.testing import ScriptedModel

pytestmark = pytest.mark.own_time

Answer = Callable[[Call], str | dict[str, object] | Exception]


def _member(name: str, *errors: ModelError) -> ScriptedModel:
    """Fails with `errors`, one after the other, and then answers with its name."""
    answers: Iterator[str | ModelError] = iter(errors)
    return ScriptedModel(lambda _: next(answers, name), name)


def _fails(name: str, error: ModelError) -> ScriptedModel:
    error.llm, error.requests = name, 3
    return ScriptedModel(lambda _: error, name)


def _call(place: int | None = None, *texts: str) -> Call:
    return Call(tuple(Message("user", text) for text in texts or ("Why?",)), place=place)


def _fatal() -> ModelError:
    return ModelError("the key is wrong", fatal=True)


def _transient() -> ModelError:
    return ModelError("the server is down", transient=True)


def _refusal() -> ModelError:
    return ModelError("the request is too long")


async def _answering(pool: ModelPool, calls: Sequence[Call]) -> list[str]:
    return [(await pool.complete(call)).llm for call in calls]


# Who is asked.


def test_a_pool_is_called_after_its_members() -> None:
    assert ModelPool([_member("a"), _member("b")]).name == "a, b"


@given(st.integers(1, 7), st.integers(0, 1000), st.integers(0, 50))
async def test_without_weights_each_member_has_its_turn(size: int, first: int, rounds: int) -> None:
    pool = ModelPool([_member(str(number)) for number in range(size)])
    found = await _answering(pool, [_call(place) for place in range(first, first + size * rounds)])
    assert all(count == rounds for count in Counter(found).values())
    assert len(set(found)) == (size if rounds else 0)


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=5), st.integers(0, 10_000))
async def test_with_weights_each_member_has_its_share(weights: list[float], first: int) -> None:
    pool = ModelPool([_member(str(number)) for number in range(len(weights))], weights)
    found = Counter(await _answering(pool, [_call(place) for place in range(first, first + 300)]))
    for number, weight in enumerate(weights):
        # The golden ratio's multiples are never further from even than a few, however many there are.
        assert abs(found[str(number)] - 300 * weight / sum(weights)) < 5


async def test_equal_weights_share_any_stretch_of_calls() -> None:
    pool = ModelPool([_member("a"), _member("b")], [1, 1])
    found = await _answering(pool, [_call(place) for place in range(20)])
    assert Counter(found) == {"a": 10, "b": 10}


@given(st.integers(0, 10**9), st.sampled_from([None, (1.0, 2.0, 0.5)]))
async def test_the_same_call_goes_to_the_same_member_whatever_was_asked_before(
    place: int, weights: tuple[float, ...] | None
) -> None:
    members = [_member(name) for name in "abc"]
    fresh, used = ModelPool(members, weights), ModelPool(members, weights)
    await _answering(used, [_call(other) for other in range(place % 5)])
    assert await _answering(fresh, [_call(place)]) == await _answering(used, [_call(place)])


async def test_a_call_without_a_place_goes_by_the_conversation_before_its_last_message() -> None:
    pool = ModelPool([_member(name) for name in "abcd"])
    for number in range(10):
        question = f"question {number}"
        answers = await _answering(pool, [_call(None, question, "one answer"), _call(None, question, "another")])
        assert len(set(answers)) == 1
    found = await _answering(pool, [_call(None, f"question {number}", "answer") for number in range(40)])
    assert set(found) == set("abcd")


async def test_a_conversation_may_hold_half_a_surrogate_pair() -> None:
    assert await _answering(ModelPool([_member("a")]), [_call(None, "\ud800", "answer")]) == ["a"]


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        (0, None),
        (0, []),
        (2, [1.0]),
        (1, [1.0, 1.0]),
        (2, [1.0, 0.0]),
        (2, [1.0, -1.0]),
        (2, [1.0, float("nan")]),
        (2, [1.0, float("inf")]),
    ],
)
def test_a_pool_that_cannot_be_is_refused(size: int, weights: list[float] | None) -> None:
    with pytest.raises(ConfigurationError, match=f"each with a weight above 0, got {size} and "):
        ModelPool([_member("a")] * size, weights)


# Who is asked instead.


@pytest.mark.parametrize("error", [_fatal(), _transient(), ModelError("too many", throttled=True)], ids=str)
async def test_another_member_takes_over(error: ModelError) -> None:
    failing = _fails("a", error)
    reply = await ModelPool([failing, _member("b"), _member("c")]).complete(_call(0))
    assert (reply.llm, reply.text, reply.passed_over) == ("b", "b", (error,))


async def test_a_reply_of_the_first_choice_passed_over_nobody() -> None:
    reply = await ModelPool([_member("a"), _member("b")]).complete(_call(1))
    assert (reply.llm, reply.passed_over) == ("b", ())


async def test_a_request_that_was_refused_is_not_passed_on() -> None:
    error = _refusal()
    other = _member("b")
    with pytest.raises(ModelError, match="the request is too long") as raised:
        await ModelPool([_fails("a", error), other]).complete(_call(0))
    summed = raised.value
    assert (summed.fatal, summed.transient, summed.llm, summed.requests) == (False, False, "a", 3)
    assert summed.passed_over == ()
    assert summed.__cause__ is error
    assert other.calls == []


@pytest.mark.parametrize("concern", [Concern.UNKNOWN, Concern.ACCOUNT, Concern.NAME])
async def test_another_member_is_asked_what_one_refused_perhaps_for_itself(concern: Concern) -> None:
    error = ModelError("answered 400: bad request", concern=concern)
    failing = _fails("a", error)
    pool = ModelPool([failing, _member("b")])
    for _ in range(3):
        reply = await pool.complete(_call(0))
        assert (reply.llm, reply.passed_over) == ("b", (error,))
    # Only so it is found out whose fault it is.
    assert len(failing.calls) == 3


async def test_what_all_members_refuse_is_the_requests_own_fault() -> None:
    errors = [ModelError("bad request", concern=Concern.UNKNOWN) for _ in range(2)]
    pool = ModelPool([_fails(str(number), error) for number, error in enumerate(errors)])
    with pytest.raises(ModelError, match="bad request") as raised:
        await pool.complete(_call(0))
    assert (raised.value.fatal, raised.value.transient, raised.value.concern) == (False, False, Concern.UNKNOWN)


async def test_a_refusal_by_the_one_that_took_over_names_whom_it_was_passed_over() -> None:
    fatal = _fatal()
    with pytest.raises(ModelError, match="the request is too long") as raised:
        await ModelPool([_fails("a", fatal), _fails("b", _refusal()), _member("c")]).complete(_call(0))
    assert (raised.value.fatal, raised.value.transient, raised.value.llm) == (False, False, "b")
    assert raised.value.passed_over == (fatal,)


async def test_all_members_are_asked_before_a_call_fails() -> None:
    errors = [_transient(), _transient(), _transient()]
    members = [_fails(name, error) for name, error in zip("abc", errors, strict=True)]
    with pytest.raises(ModelError, match="the server is down") as raised:
        await ModelPool(members).complete(_call(1))
    assert [len(member.calls) for member in members] == [1, 1, 1]
    assert raised.value.llm == "a"
    assert raised.value.passed_over == (errors[1], errors[2])


@pytest.mark.parametrize(
    ("errors", "fatal", "transient"),
    [
        ([_fatal()], True, False),
        ([_fatal(), _fatal()], True, False),
        ([_fatal(), _transient()], False, True),
        ([_transient(), _fatal()], False, True),
        ([_transient()], False, True),
        ([_transient(), _refusal()], False, False),
    ],
)
async def test_a_pool_is_at_an_end_only_when_all_its_members_are(
    errors: list[ModelError], fatal: bool, transient: bool
) -> None:
    pool = ModelPool([_fails(str(number), error) for number, error in enumerate(errors)])
    with pytest.raises(ModelError) as raised:
        await pool.complete(_call(0))
    assert (raised.value.fatal, raised.value.transient) == (fatal, transient)


async def test_a_member_that_is_at_an_end_is_left_alone_for_good() -> None:
    failing = _fails("a", _fatal())
    pool = ModelPool([failing, _member("b")])
    for _ in range(5):
        assert await _answering(pool, [_call(0)]) == ["b"]
        await asyncio.sleep(1e6)
    assert len(failing.calls) == 1


async def test_a_member_that_is_down_is_left_alone_for_a_minute() -> None:
    failing = _member("a", _transient())
    pool = ModelPool([failing, _member("b")])
    assert await _answering(pool, [_call(0), _call(0)]) == ["b", "b"]
    await asyncio.sleep(59)
    assert await _answering(pool, [_call(0)]) == ["b"]
    await asyncio.sleep(2)
    assert await _answering(pool, [_call(0)]) == ["a"]
    assert len(failing.calls) == 2


async def test_the_next_in_line_takes_over_for_one_that_is_down() -> None:
    pool = ModelPool([_fails("a", _fatal()), _member("b"), _member("c")], [1, 1, 1])
    found = await _answering(pool, [_call(place) for place in range(60)])
    assert 35 <= Counter(found)["b"] <= 45


@pytest.mark.parametrize("error", [_transient(), _fatal()], ids=str)
async def test_a_member_that_answers_after_all_is_one_of_them_again(error: ModelError) -> None:
    pool = ModelPool([_member("a", error), _member("b", _transient(), _transient())])
    with pytest.raises(ModelError):
        await pool.complete(_call(0))
    assert await _answering(pool, [_call(0), _call(1), _call(1)]) == ["a", "a", "a"]
    await asyncio.sleep(61)
    assert await _answering(pool, [_call(0)]) == ["a"]


async def test_a_member_that_is_down_is_asked_when_nobody_else_can_answer() -> None:
    back = _member("a", _transient())
    pool = ModelPool([back, _member("b", _transient())])
    with pytest.raises(ModelError):
        await pool.complete(_call(0))
    assert await _answering(pool, [_call(0)]) == ["a"]


class _Endless:
    """Never answers."""

    name = "endless"

    async def complete(self, _: Call) -> ChatReply:
        await asyncio.Event().wait()
        raise AssertionError


async def test_what_members_were_asked_before_a_call_was_cancelled_is_counted() -> None:
    late: list[ChatReply | ModelError] = []
    pool = ModelPool([_fails("frail", _fatal()), _Endless()])
    with counting_late(late.append):
        call = asyncio.create_task(pool.complete(_call(0)))
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.wait([call])
    assert [(one.llm, one.requests) for one in late if isinstance(one, ModelError)] == [("frail", 3)]

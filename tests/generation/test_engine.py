import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import (
    CandidateRefused,
    InputError,
    ItemDropped,
    ModelError,
    ParseError,
)
from nat_dpo_pipeline.generation.steps import (
    Aggregate,
    Broadcast,
    Callback,
    Item,
    Map,
    Path,
    Pipeline,
    Scatter,
    Step,
    derived,
)
from tests import own_time

pytestmark = pytest.mark.own_time

PARSE_ERROR = ParseError("no list", "Sorry.")
ITEM_ERRORS = [PARSE_ERROR, ModelError("down"), InputError("empty"), CandidateRefused("why"), ItemDropped("short")]


class Log:
    """An observer that writes down what it is told, and stops the source when it is told so."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.errors: list[tuple[str, object, Exception]] = []
        self.stopping = False

    def started(self, step: str) -> None:
        self.events.append(("started", step))

    def finished(self, step: str) -> None:
        self.events.append(("finished", step))

    def failed(self, step: str, item: Item[Any], error: Exception) -> None:
        self.events.append(("failed", step))
        self.errors.append((step, item.value, error))


class Pulled:
    """An endless source that counts how far it was pulled."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> "Pulled":
        return self

    def __next__(self) -> int:
        self.count += 1
        return self.count


async def same(item: Item[int]) -> int:
    return item.value


async def split(item: Item[int]) -> list[int]:
    return list(range(item.value))


async def split_slowly(item: Item[int]) -> AsyncIterator[int]:
    for number in range(item.value):
        await asyncio.sleep(0)
        yield number


def tenfold(item: Item[int], index: int) -> int:
    return item.value * 10 + index


def values(item: Item[int], members: Sequence[Item[int]]) -> list[int]:
    return [item.value, *(member.value for member in members)]


async def passed(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
    async for item in items:
        yield item


def failing(error: Exception, *, at: int = 2) -> Callable[[Item[int]], Any]:
    """Raises `error` for the item `at`, hands all others on."""

    async def fail(item: Item[int]) -> int:
        await asyncio.sleep(0)
        if item.value == at:
            raise error
        return item.value

    return fail


async def _items(pipeline: Pipeline, source: Any, **options: Any) -> list[Item[Any]]:
    """All that comes out, in the order of arrival; a run that hangs is an error."""

    async def collected() -> list[Item[Any]]:
        return [item async for item in pipeline.run(source, **options)]

    return await asyncio.wait_for(collected(), 5)


async def _run(pipeline: Pipeline, source: Any, **options: Any) -> list[Any]:
    """The values of all that comes out, by path."""
    items = await _items(pipeline, source, **options)
    return [item.value for item in sorted(items, key=lambda item: item.path)]


def _other_tasks() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


# Every kind of step.


async def test_items_go_through_every_kind_of_step_and_know_their_place() -> None:
    pipeline = (
        Scatter(split)
        >> Map(same)
        >> Scatter(split_slowly, name="halves")
        >> Broadcast(2, tenfold)
        >> Aggregate(values, over="split")
        >> Callback(_first_of_each)
    )
    items = await _items(pipeline, [3, 0, 2])
    assert sorted((item.path, item.value, item.root.value) for item in items) == [
        ((0, 0), 0, 3),
        ((0, 1), 1, 3),
        ((0, 2), 2, 3),
        ((2, 0), 0, 2),
        ((2, 1), 1, 2),
    ]


async def _first_of_each(items: AsyncIterator[Item[list[int]]]) -> AsyncGenerator[Item[int], None]:
    async for item in items:
        yield derived(item, item.value[0])


async def test_paths_are_places_among_siblings() -> None:
    pipeline = Scatter(split) >> Map(same) >> Broadcast(2, tenfold)
    items = await _items(pipeline, [1, 2])
    assert sorted((item.path, item.value) for item in items) == [
        ((0, 0, 0), 0),
        ((0, 0, 1), 1),
        ((1, 0, 0), 0),
        ((1, 0, 1), 1),
        ((1, 1, 0), 10),
        ((1, 1, 1), 11),
    ]


@pytest.mark.parametrize(("workers", "together"), [(16, 4), (8, 2), (4, 1)])
async def test_siblings_of_a_broadcast_start_at_the_same_moment_also_when_places_come_free_one_by_one(
    workers: int, together: int
) -> None:
    started: dict[float, Counter[int]] = {}
    seconds = Random(0)

    async def work(item: Item[int]) -> int:
        started.setdefault(asyncio.get_running_loop().time(), Counter())[item.path[0]] += 1
        await asyncio.sleep(seconds.uniform(0.01, 0.02))
        return item.value

    pipeline = Broadcast(4, tenfold) >> Map(work)
    assert len(await _run(pipeline, range(30), workers=workers)) == 120
    assert min(min(counts.values()) for counts in started.values()) == together


async def test_a_source_may_be_asynchronous_or_not() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    assert await _run(Pipeline((Map(same),)), source()) == [0, 1, 2]
    assert await _run(Pipeline((Map(same),)), iter(range(3))) == [0, 1, 2]
    assert await _run(Pipeline((Map(same),)), {4: "four"}) == [4]
    assert await _run(Pipeline((Map(same),)), []) == []


async def test_an_item_is_one_object_for_all_who_see_it() -> None:
    seen: dict[str, Item[Any]] = {}

    async def first(item: Item[int]) -> list[int]:
        seen["first"] = item
        return [item.value]

    async def second(item: Item[int]) -> int:
        assert item.parent is seen["first"]
        seen["second"] = item
        return item.value

    def whole(item: Item[int], members: Sequence[Item[int]]) -> int:
        assert item is seen["second"]
        assert [member.parent for member in members] == [item]
        seen["whole"] = item
        return item.value

    async def last(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            assert item.parent is seen["whole"]
            yield derived(item, 5)

    (item,) = await _items(Scatter(first) >> Map(second) >> Aggregate(whole, over="first") >> Callback(last), [1])
    assert item.parent is not None
    assert item.parent.step == "whole"
    assert item.ancestor("first") == 1


async def test_the_observer_is_told_what_starts_and_ends() -> None:
    log = Log()
    pipeline = Scatter(split) >> Aggregate(values, over="split") >> Callback(_first_of_each)
    await _run(pipeline, [2], observer=log)
    assert Counter(log.events) == Counter(
        {
            ("started", "split"): 1,
            ("finished", "split"): 1,
            ("started", "values"): 2,
            ("finished", "values"): 2,
            ("started", "first_of_each"): 2,
            ("finished", "first_of_each"): 2,
        }
    )


# No barrier, and no more than there is room for.


async def test_an_item_comes_out_while_its_sibling_is_still_in_the_first_step() -> None:
    gate = asyncio.Event()

    async def held(item: Item[int]) -> int:
        if item.value == 0:
            await gate.wait()
        return item.value

    pipeline = Map(held) >> Scatter(split) >> Broadcast(1, tenfold) >> Aggregate(values, over="split") >> Map(_total)
    async with aclosing(pipeline.run([0, 1])) as items:
        first = await asyncio.wait_for(anext(items), 5)
        assert first.root.value == 1
        gate.set()
        assert [item async for item in items] == []


async def _total(item: Item[list[int]]) -> int:
    return sum(item.value)


async def test_one_output_of_a_generator_comes_out_before_the_next_is_made() -> None:
    gate = asyncio.Event()

    async def two(item: Item[int]) -> AsyncIterator[int]:
        yield item.value
        await gate.wait()
        yield item.value + 1

    async with aclosing((Scatter(two) >> Map(same)).run([1])) as items:
        assert (await asyncio.wait_for(anext(items), 5)).value == 1
        gate.set()
        assert (await asyncio.wait_for(anext(items), 5)).value == 2


async def test_a_slow_step_holds_the_source_back() -> None:
    source = Pulled()

    async def stuck(item: Item[int]) -> int:
        await asyncio.Event().wait()
        return item.value

    pipeline = Map(same, workers=2) >> Map(stuck, workers=3)
    consuming = asyncio.ensure_future(_items(pipeline, source))
    await own_time.until_nothing_moves()
    # Three in the slow step, two before it that wait for a place there, and one that waits for a place of theirs.
    assert source.count == 3 + 2 + 1
    consuming.cancel()
    await asyncio.wait([consuming])


@pytest.mark.parametrize(
    ("pipeline", "held"),
    [
        (Pipeline(), 0),
        (Map(same) >> Map(same, name="again"), 8),
        (Pipeline((Callback(passed),)), 4 + 1),
        (Broadcast(2, tenfold) >> Aggregate(values, over="tenfold"), 4),
    ],
)
async def test_a_slow_consumer_holds_the_source_back(pipeline: Pipeline, held: int) -> None:
    source = Pulled()
    async with aclosing(pipeline.run(source, workers=4)) as items:
        for taken in range(1, 4):
            await asyncio.wait_for(anext(items), 5)
            await own_time.until_nothing_moves()
            # What was taken, what waits to be taken, what the steps hold, and the one that the source holds out.
            assert taken <= source.count <= taken + 4 + held + 1


async def test_siblings_that_wait_for_their_turn_do_not_let_the_source_run_away() -> None:
    source = Pulled()

    async def three(item: Item[int]) -> list[int]:
        return [item.value] * 3

    async def in_turn(item: Item[int]) -> AsyncIterator[int]:
        await item.turn()
        yield item.value

    pipeline = Scatter(three) >> Scatter(in_turn, in_order_of="three")
    async with aclosing(pipeline.run(source, workers=2)) as items:
        for _ in range(300):
            await asyncio.wait_for(anext(items), 5)
            await own_time.until_nothing_moves() if source.count % 50 == 0 else None
        assert source.count < 100 + 30


async def test_no_step_holds_more_items_than_it_has_workers() -> None:
    active: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def counted(name: str, workers: int | None) -> Map:
        async def step(item: Item[int]) -> int:
            active[name] += 1
            most[name] = max(most[name], active[name])
            await asyncio.sleep(0)
            active[name] -= 1
            return item.value

        return Map(step, name=name, workers=workers)

    pipeline = counted("one", 1) >> counted("three", 3) >> counted("default", None) >> counted("many", 50)
    assert await _run(pipeline, range(30), workers=2) == list(range(30))
    # No more can arrive at a step than the one before it holds.
    assert most == {"one": 1, "three": 1, "default": 1, "many": 1}
    assert await _run(Scatter(split) >> pipeline.without("one"), [30], workers=2) == list(range(30))
    assert most["three"] <= 3
    assert most["default"] == 2


# Errors.


@pytest.mark.parametrize("error", ITEM_ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_of_an_item_costs_that_item_and_the_observer_is_told(error: Exception) -> None:
    log = Log()
    pipeline = Map(failing(error)) >> Broadcast(2, tenfold)
    assert await _run(pipeline, [1, 2, 3], observer=log) == [10, 11, 30, 31]
    assert log.errors == [("fail", 2, error)]
    assert Counter(log.events)["started", "fail"] == 3
    assert Counter(log.events)["finished", "fail"] == 2


async def test_nobody_needs_to_observe() -> None:
    pipeline = Map(failing(PARSE_ERROR)) >> Aggregate(values, over="fail") >> Callback(_first_of_each)
    assert await _run(pipeline, [1, 2]) == [1]


async def test_what_a_generator_gave_before_its_error_stays() -> None:
    async def two_and_an_error(item: Item[int]) -> AsyncIterator[int]:
        yield item.value
        yield item.value + 1
        raise PARSE_ERROR

    log = Log()
    pipeline = Scatter(two_and_an_error) >> Map(same)
    assert await _run(pipeline, [1], observer=log) == [1, 2]
    assert log.errors == [("two_and_an_error", 1, PARSE_ERROR)]


async def test_what_a_broadcast_gave_before_its_error_stays() -> None:
    def once(item: Item[int], index: int) -> int:
        if index == 1:
            raise ItemDropped("enough")
        return item.value

    assert await _run(Broadcast(3, once) >> Map(same), [4]) == [4]


async def test_an_error_in_an_aggregate_costs_its_output() -> None:
    def picky(item: Item[int], members: Sequence[Item[int]]) -> int:
        if item.value == 1:
            raise PARSE_ERROR
        return len(members)

    log = Log()
    pipeline = Scatter(split) >> Map(same) >> Aggregate(picky, over="split") >> Map(same, name="last")
    assert await _run(pipeline, [3], observer=log) == [1, 1]
    assert log.errors == [("picky", 1, PARSE_ERROR)]


def _broken(error: Exception) -> dict[str, tuple[Pipeline, Any]]:
    def broken_one(_: Item[int], __: int) -> int:
        raise error

    def broken_whole(_: Item[int], __: Sequence[Item[int]]) -> int:
        raise error

    async def broken_stream(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            yield item
            raise error

    async def broken_generator(item: Item[int]) -> AsyncIterator[int]:
        yield item.value
        raise error

    def broken_source() -> Iterable[int]:
        yield 1
        raise error

    async def broken_stream_of_inputs() -> AsyncIterator[int]:
        yield 1
        raise error

    idle = Pipeline((Map(same),))
    return {
        "map": (Map(failing(error)) >> Map(same), count(1)),
        "generator": (Scatter(broken_generator) >> Map(same), count(1)),
        "broadcast": (Broadcast(2, broken_one) >> Map(same), count(1)),
        "aggregate": (Scatter(split) >> Aggregate(broken_whole, over="split"), count(1)),
        "callback": (Map(same) >> Callback(broken_stream), count(1)),
        "source": (idle, broken_source()),
        "asynchronous source": (idle, broken_stream_of_inputs()),
    }


@pytest.mark.parametrize("place", _broken(ValueError()))
async def test_any_other_error_ends_the_run_and_is_raised_as_itself(place: str) -> None:
    error = ValueError("a bug")
    error.__cause__ = cause = KeyError("why")
    pipeline, source = _broken(error)[place]
    with pytest.raises(ValueError, match="a bug") as raised:
        await _items(pipeline, source)
    assert raised.value is error
    assert error.__cause__ is cause
    assert not _other_tasks()


async def test_the_context_of_an_error_is_kept() -> None:
    async def careless(item: Item[dict[str, int]]) -> int:
        try:
            return item.value["a"]
        except KeyError:
            raise ValueError("a bug")  # noqa: B904 - the context is what this is about

    with pytest.raises(ValueError, match="a bug") as raised:
        await _items(Pipeline((Map(careless),)), [{}])
    assert isinstance(raised.value.__context__, KeyError)
    assert not raised.value.__suppress_context__


@pytest.mark.parametrize("error", ITEM_ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_of_a_callback_is_of_no_item_and_ends_the_run(error: Exception) -> None:
    pipeline, source = _broken(error)["callback"]
    with pytest.raises(type(error)) as raised:
        await _items(pipeline, source)
    assert raised.value is error


async def test_what_came_out_before_the_error_is_given_first() -> None:
    items = Pipeline((Map(failing(ValueError("a bug")), workers=1),)).run([1, 2, 3])
    first = await anext(items)
    await own_time.until_nothing_moves()
    assert first.value == 1
    with pytest.raises(ValueError, match="a bug"):
        await anext(items)


async def test_of_several_errors_the_first_is_raised() -> None:
    cleaned = []

    async def broken(item: Item[int]) -> int:
        try:
            for _ in range(item.value):
                await asyncio.sleep(0)
        finally:
            cleaned.append(item.value)
            if item.value > 2:
                raise KeyError("while being cancelled")
        raise ValueError(f"bug {item.value}")

    with pytest.raises(ValueError, match="bug 2"):
        await _items(Pipeline((Map(broken),)), [9, 2, 7])
    assert sorted(cleaned) == [2, 7, 9]


@pytest.mark.parametrize("place", ["step", "callback", "source"])
async def test_something_that_is_cancelled_from_elsewhere_ends_the_run(place: str) -> None:
    async def cancelled_elsewhere(at: str) -> None:
        if at == place:
            waiting = asyncio.ensure_future(asyncio.Event().wait())
            waiting.cancel()
            await waiting

    async def step(item: Item[int]) -> int:
        await cancelled_elsewhere("step")
        return item.value

    async def callback(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            await cancelled_elsewhere("callback")
            yield item

    async def source() -> AsyncIterator[int]:
        yield 1
        await cancelled_elsewhere("source")

    with pytest.raises(RuntimeError, match=f"{place}' was cancelled, but not by the run"):
        await _items(Map(step) >> Callback(callback), source())
    assert not _other_tasks()


# The end that somebody else wants.


async def test_closing_the_iterator_ends_everything() -> None:
    cleaned: Counter[str] = Counter()

    async def endless(_: Item[int]) -> AsyncIterator[int]:
        try:
            for number in count():
                yield number
        finally:
            await asyncio.sleep(0)
            cleaned["generator"] += 1

    async def stuck(item: Item[int]) -> int:
        if item.value < 3:
            return item.value
        try:
            await asyncio.Event().wait()
        finally:
            cleaned["stuck"] += 1
        return item.value

    async def stream(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        try:
            async for item in items:
                yield item
        finally:
            cleaned["callback"] += 1

    pipeline = Scatter(endless) >> Map(stuck) >> Callback(stream) >> Map(same)
    async with aclosing(pipeline.run(Pulled(), workers=2)) as items:
        await asyncio.wait_for(anext(items), 5)
        await own_time.until_nothing_moves()
    assert not _other_tasks()
    assert cleaned == {"generator": 2, "stuck": 2, "callback": 1}


async def test_closing_does_not_wait_for_room_when_something_breaks_while_it_is_cancelled() -> None:
    async def breaking(item: Item[int]) -> int:
        if item.value == 1:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while being cancelled")
        return item.value

    async def closed() -> None:
        async with aclosing(Pipeline((Map(breaking, workers=2),)).run(Pulled(), workers=1)) as items:
            await anext(items)
            await own_time.until_nothing_moves()

    await asyncio.wait_for(closed(), 5)
    assert not _other_tasks()


async def test_a_consumer_that_is_cancelled_ends_everything() -> None:
    async def stuck(item: Item[int]) -> int:
        await asyncio.Event().wait()
        return item.value

    consuming = asyncio.ensure_future(_items(Map(stuck) >> Map(same), [1, 2]))
    await own_time.until_nothing_moves()
    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    assert not _other_tasks()


async def test_a_run_that_nobody_starts_does_nothing() -> None:
    source = Pulled()
    items = Pipeline((Map(same),)).run(source)
    await items.aclose()
    assert source.count == 0


async def test_an_observer_that_stops_ends_the_source_and_not_what_is_under_way() -> None:
    log = Log()
    source = Pulled()
    gate = asyncio.Event()

    async def held(item: Item[int]) -> list[int]:
        await gate.wait()
        return [item.value, item.value]

    pipeline = Scatter(held) >> Map(same) >> Aggregate(values, over="held") >> Callback(_first_of_each)
    collecting = asyncio.ensure_future(_run(pipeline, source, observer=log, workers=3))
    await own_time.until_nothing_moves()
    log.stopping = True
    gate.set()
    assert await collecting == [1, 1, 2, 2, 3, 3, 4, 4]
    # The fourth was waiting for a place.
    assert source.count == 4


async def test_an_input_that_comes_after_the_stop_is_not_taken() -> None:
    log = Log()

    async def source() -> AsyncIterator[int]:
        yield 1
        log.stopping = True
        yield 2

    assert await _run(Pipeline((Map(same),)), source(), observer=log) == [1]


# Callbacks.


async def _later_first(item: Item[int]) -> int:
    for _ in range(3 * (5 - item.value)):
        await asyncio.sleep(0)
    return item.value


async def test_a_callback_sees_everything_in_the_order_of_arrival() -> None:
    seen: list[int] = []

    async def watching(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            seen.append(item.value)
            yield item

    assert await _run(Scatter(split) >> Map(_later_first) >> Callback(watching), [4]) == [0, 1, 2, 3]
    assert seen == [3, 2, 1, 0]


async def test_a_callback_may_filter_and_hand_on_what_came_as_it_came() -> None:
    async def even(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            if item.value % 2 == 0:
                yield item

    items = await _items(Scatter(split) >> Callback(even) >> Map(same), [5])
    assert sorted(item.value for item in items) == [0, 2, 4]
    for item in items:
        assert (item.ancestor("split"), item.ancestor("even"), item.root.value) == (item.value, item.value, 5)


async def test_a_callback_may_come_first() -> None:
    (item,) = await _items(Callback(passed) >> Map(same), [7])
    assert (item.path, item.ancestor("passed"), item.root.value) == ((0,), 7, 7)


async def test_a_callback_may_gather_and_emit_at_the_end() -> None:
    async def sorted_by_value(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[list[int]], None]:
        held = [item async for item in items]
        yield derived(held[0], sorted(item.value for item in held), path=())

    pipeline = Scatter(split) >> Map(_later_first) >> Callback(sorted_by_value) >> Map(_total)
    (item,) = await _items(pipeline, [4, 3], workers=1)
    assert (item.value, item.path) == (9, ())


async def test_a_callback_may_give_a_batch_that_waited_long_enough() -> None:
    never = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        await never.wait()
        yield 3

    async def batched(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[list[int]], None]:
        held: list[Item[int]] = []
        while True:
            try:
                held.append(await asyncio.wait_for(anext(items), 0.01))
            except TimeoutError:
                yield derived(held[0], [item.value for item in held])
                held = []
                never.set()
            except StopAsyncIteration:
                yield derived(held[0], [item.value for item in held])
                return

    assert await _run(Pipeline((Callback(batched),)), source()) == [[1, 2], [3]]


async def test_a_callback_that_returns_early_does_not_hold_back_the_steps_before_it() -> None:
    log = Log()

    async def first_two(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        for _ in range(2):
            yield await anext(items)

    pipeline = Map(same) >> Callback(first_two) >> Map(same, name="last")
    assert await _run(pipeline, range(20), observer=log, workers=2) == [0, 1]
    assert Counter(log.events)["finished", "same"] == 20


async def test_a_callback_may_ask_again_after_the_end_and_give_more_than_came() -> None:
    async def doubled(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        held = [item async for item in items]
        assert await anext(items, None) is None
        for item in held:
            twin = derived(item, item.value)
            yield twin
            yield twin

    assert await _run(Callback(doubled) >> Map(same, workers=1), [1, 2]) == [1, 1, 2, 2]


async def test_a_callback_may_ignore_everything() -> None:
    async def nothing(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        for item in ():
            yield derived(await anext(items), item)

    pipeline = Scatter(split) >> Map(same) >> Callback(nothing) >> Callback(passed)
    assert await _run(pipeline, [9, 9], workers=1) == []


async def test_callbacks_follow_one_another_with_steps_and_aggregates_in_between() -> None:
    async def again(items: AsyncIterator[Item[int]]) -> AsyncGenerator[Item[int], None]:
        async for item in items:
            yield derived(item, item.value + 1)

    pipeline = (
        Callback(again)
        >> Scatter(split)
        >> Broadcast(2, tenfold)
        >> Map(failing(PARSE_ERROR, at=1))
        >> Aggregate(values, over="split")
        >> Map(_total)
        >> Callback(passed)
        >> Callback(again, name="once_more")
        >> Map(same)
    )
    for workers in (1, 2, 64):
        assert await _run(pipeline, [1, 0, 2], workers=workers) == [1, 23, 1, 1, 23, 44]


# A run gives what doing one thing after the other gives.


@dataclass(frozen=True)
class Part:
    """A step that makes of an item what chance says for its path."""

    kind: str
    name: str
    seed: int
    workers: int
    reference: str = ""

    @property
    def is_many(self) -> bool:
        return self.kind in ("list", "generator", "ordered", "broadcast")

    def made(self, value: object, path: Path) -> list[object]:
        chance = self._chance("made", path)
        if chance.random() < 0.2:
            return []
        return [(self.name, value, index) for index in range(chance.randrange(4) if self.is_many else 1)]

    def error(self, path: Path) -> Exception:
        return self._chance("error", path).choice(ITEM_ERRORS)

    async def pause(self, path: Path) -> None:
        for _ in range(self._chance("pause", path).choice([0, 0, 1, 2, 3, 20])):
            await asyncio.sleep(0)

    def _chance(self, what: str, path: Path) -> Random:
        return Random(f"{what} {self.seed} {self.name} {path}")


@dataclass(frozen=True)
class Node:
    """An item when one thing is done after the other."""

    value: object
    path: Path
    ancestors: tuple["Node", ...] = ()

    def child(self, value: object, *place: int) -> "Node":
        return Node(value, (*self.path, *place), (*self.ancestors, self))

    def came_of(self, whole: "Node") -> bool:
        return self is whole or any(ancestor is whole for ancestor in self.ancestors)


def _one_after_the_other(parts: Sequence[Part], inputs: Sequence[object]) -> list[tuple[Path, object]]:
    nodes = [Node(value, (place,)) for place, value in enumerate(inputs)]
    made: dict[str, list[Node]] = {}
    for part in parts:
        if part.kind == "aggregate":
            nodes = [child for whole in made[part.reference] for child in _whole(part, whole, nodes)]
        else:
            nodes = [child for node in nodes for child in _children(part, node)]
        made[part.name] = nodes
    return [(node.path, node.value) for node in nodes]


def _children(part: Part, node: Node) -> list[Node]:
    outputs = part.made(node.value, node.path)
    return [node.child(value, *((place,) if part.is_many else ())) for place, value in enumerate(outputs)]


def _whole(part: Part, whole: Node, nodes: Sequence[Node]) -> list[Node]:
    members = tuple((node.path, node.value) for node in nodes if node.came_of(whole))
    return [whole.child(output) for output in part.made((whole.value, members), whole.path)]


@dataclass
class Seen:
    """What the steps of a run see of one another."""

    active: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    turns: dict[tuple[str, Item[Any] | None], list[Path]] = field(default_factory=dict)

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        self.active[name] += 1
        self.most[name] = max(self.most[name], self.active[name])
        yield
        self.active[name] -= 1

    @contextmanager
    def turn(self, part: Part, item: Item[Any]) -> Iterator[None]:
        while item.parent is not None and item.step != part.reference:
            item = item.parent
        paths = self.turns.setdefault((part.name, item.parent), []) if part.reference else []
        paths.append(item.path)
        yield
        paths.append(item.path)


@dataclass(frozen=True)
class Functions:
    """What a step may do with an item."""

    part: Part
    seen: Seen

    async def one(self, item: Item[Any]) -> Any:
        outputs = await self.listed(item)
        if not outputs:
            raise self.part.error(item.path)
        return outputs[0]

    async def listed(self, item: Item[Any]) -> list[Any]:
        with self.seen.working(self.part.name):
            await self.part.pause(item.path)
        return self.part.made(item.value, item.path)

    async def generated(self, item: Item[Any]) -> AsyncIterator[Any]:
        for value in self.part.made(item.value, item.path):
            with self.seen.working(self.part.name):
                await self.part.pause(item.path)
            yield value
        raise self.part.error(item.path)

    async def ordered(self, item: Item[Any]) -> AsyncIterator[Any]:
        outputs = self.part.made(item.value, item.path)
        await self.part.pause(item.path)
        for value in outputs[:1]:
            yield value
        await item.turn()
        with self.seen.turn(self.part, item):
            for value in outputs[1:]:
                await self.part.pause(item.path)
                yield value

    def broadcast(self, item: Item[Any], index: int) -> Any:
        outputs = self.part.made(item.value, item.path)
        if index == len(outputs):
            raise self.part.error(item.path)
        return outputs[index]

    def aggregated(self, item: Item[Any], members: Sequence[Item[Any]]) -> Any:
        value = (item.value, tuple((member.path, member.value) for member in members))
        outputs = self.part.made(value, item.path)
        if not outputs and len(item.path) % 2:
            raise self.part.error(item.path)
        return outputs[0] if outputs else None

    async def stream(self, items: AsyncIterator[Item[Any]]) -> AsyncGenerator[Item[Any], None]:
        async for item in items:
            await self.part.pause(item.path)
            for value in self.part.made(item.value, item.path):
                yield derived(item, value)

    def step(self) -> Step:
        name, workers, reference = self.part.name, self.part.workers, self.part.reference
        declare: dict[str, Callable[[], Step]] = {
            "map": lambda: Map(self.one, name=name, workers=workers),
            "list": lambda: Scatter(self.listed, name=name, workers=workers),
            "generator": lambda: Scatter(self.generated, name=name, workers=workers),
            "ordered": lambda: Scatter(self.ordered, name=name, workers=workers, in_order_of=reference or None),
            "broadcast": lambda: Broadcast(4, self.broadcast, name=name, workers=workers),
            "aggregate": lambda: Aggregate(self.aggregated, over=reference, name=name),
            "callback": lambda: Callback(self.stream, name=name),
        }
        return declare[self.part.kind]()


KINDS = ("map", "list", "generator", "broadcast", "ordered", "ordered", "aggregate", "aggregate", "callback")


@st.composite
def part_lists(draw: st.DrawFn) -> list[Part]:
    """Up to seven parts that fit together."""
    seed = draw(st.integers(0, 2**32))
    parts: list[Part] = []
    for place in range(draw(st.integers(1, 7))):
        kind, workers = draw(st.sampled_from(KINDS)), draw(st.integers(1, 4))
        part = Part(kind, f"{kind} {place}", seed, workers)
        fitting = [""] if kind != "aggregate" else []
        if kind in ("ordered", "aggregate"):
            fitting += _within_reach(parts)
        if fitting:
            parts.append(replace(part, reference=draw(st.sampled_from(fitting[::-1]))))
    return parts


def _within_reach(parts: Sequence[Part]) -> list[str]:
    """What the next part may be over: between it and that, nothing mixes what came of different items."""
    names = [part.name for part in parts]
    return [
        name
        for place, name in enumerate(names)
        if not any(
            part.kind == "callback" or (part.kind == "aggregate" and names.index(part.reference) < place)
            for part in parts[place + 1 :]
        )
    ]


def _pipeline(parts: Sequence[Part], seen: Seen) -> Pipeline:
    return Pipeline([Functions(part, seen).step() for part in parts])


async def _consumed(pipeline: Pipeline, inputs: int, workers: int, pace: Random, most: int = 10**9) -> list[Item[Any]]:
    """The first items that come out, `most` of them at the most."""
    found: list[Item[Any]] = []
    async with asyncio.timeout(10), aclosing(pipeline.run(range(inputs), workers=workers)) as items:
        async for item in items:
            found.append(item)
            if len(found) == most:
                break
            for _ in range(pace.choice([0, 0, 1, 5])):
                await asyncio.sleep(0)
    assert not _other_tasks()
    return found


@settings(max_examples=300)
@given(part_lists(), st.integers(0, 3), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_run_gives_what_doing_one_thing_after_the_other_gives(
    parts: list[Part], inputs: int, workers: int, pace: Random
) -> None:
    seen = Seen()
    consuming = _consumed(_pipeline(parts, seen), inputs, workers, pace)
    found = own_time.run(consuming)
    expected = _one_after_the_other(parts, range(inputs))
    assert Counter((item.path, item.value) for item in found) == Counter(expected)
    assert [path for path, _ in expected] == sorted(item.path for item in found)
    assert all(seen.most[part.name] <= part.workers for part in parts)
    for turns in seen.turns.values():
        assert turns == sorted(turns)


@given(part_lists(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_run_that_is_closed_early_gave_nothing_else_and_leaves_nothing(
    parts: list[Part], inputs: int, workers: int, most: int, pace: Random
) -> None:
    consuming = _consumed(_pipeline(parts, Seen()), inputs, workers, pace, most)
    found = own_time.run(consuming)
    expected = Counter(_one_after_the_other(parts, range(inputs)))
    assert len(found) == min(most, expected.total())
    assert Counter((item.path, item.value) for item in found) <= expected

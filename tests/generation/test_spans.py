import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from nat_dpo_pipeline.errors import ItemDropped, ParseError
from nat_dpo_pipeline.generation.steps import Aggregate, Broadcast, Item, Map, Pipeline, Scatter

pytestmark = pytest.mark.own_time

PARSE_ERROR = ParseError("no list", "Sorry.")


async def same(item: Item[int]) -> int:
    return item.value


async def split(item: Item[int]) -> list[int]:
    return list(range(item.value))


def tenfold(item: Item[int], index: int) -> int:
    return item.value * 10 + index


def values(item: Item[int], members: Sequence[Item[int]]) -> list[int]:
    return [item.value, *(member.value for member in members)]


async def _total(item: Item[list[int]]) -> int:
    return sum(item.value)


def without(*dropped: int) -> Map:
    """A step, called after what it drops."""

    async def drop(item: Item[int]) -> int:
        await asyncio.sleep(0)
        if item.value in dropped:
            raise PARSE_ERROR if item.value % 2 else ItemDropped("even")
        return item.value

    return Map(drop, name=f"without {dropped}")


async def _items(pipeline: Pipeline, source: Any, **options: Any) -> list[Item[Any]]:
    """All that comes out, in the order of arrival; a run that hangs is an error."""

    async def collected() -> list[Item[Any]]:
        return [item async for item in pipeline.run(source, **options)]

    return await asyncio.wait_for(collected(), 5)


async def _run(pipeline: Pipeline, source: Any, **options: Any) -> list[Any]:
    """The values of all that comes out, by path."""
    items = await _items(pipeline, source, **options)
    return [item.value for item in sorted(items, key=lambda item: item.path)]


# Aggregates.


async def test_an_aggregate_holds_all_that_came_of_one_item_by_path() -> None:
    async def later_first(item: Item[int]) -> int:
        for _ in range(5 - item.value):
            await asyncio.sleep(0)
        return item.value

    pipeline = Scatter(split) >> Broadcast(2, tenfold) >> Map(later_first) >> Aggregate(values, over="split")
    assert await _run(pipeline, [2]) == [[0, 0, 1], [1, 10, 11]]


async def test_an_aggregate_is_complete_without_the_members_that_failed() -> None:
    pipeline = Scatter(split) >> Broadcast(2, tenfold) >> without(1) >> without(10) >> Aggregate(values, over="split")
    assert await _run(pipeline, [2]) == [[0, 0], [1, 11]]


async def test_an_aggregate_is_complete_when_nothing_came() -> None:
    pipeline = Map(same) >> Scatter(split) >> without(0) >> Aggregate(values, over="same")
    assert await _run(pipeline, [0, 1, 2]) == [[0], [1], [2, 1]]


async def test_an_aggregate_comes_out_as_soon_as_it_is_complete() -> None:
    gate = asyncio.Event()

    async def held(item: Item[int]) -> int:
        if item.root.value == 3:
            await gate.wait()
        return item.value

    pipeline = Map(same) >> Scatter(split) >> Map(held) >> Aggregate(values, over="same")
    async with aclosing(pipeline.run([3, 2])) as items:
        assert (await asyncio.wait_for(anext(items), 5)).value == [2, 0, 1]
        gate.set()
        assert (await asyncio.wait_for(anext(items), 5)).value == [3, 0, 1, 2]


async def test_aggregates_are_nested() -> None:
    def how_many(_: Item[int], members: Sequence[Item[Any]]) -> int:
        return len(members)

    pipeline = (
        Map(same)
        >> Scatter(split)
        >> Broadcast(3, tenfold)
        >> Aggregate(how_many, over="split")
        >> Aggregate(values, over="same")
    )
    assert await _run(pipeline, [2, 0]) == [[2, 3, 3], [0]]


async def test_two_aggregates_over_one_step_see_one_another() -> None:
    def nested(item: Item[int], members: Sequence[Item[list[int]]]) -> list[object]:
        return [item.value, *(member.value for member in members)]

    pipeline = (
        Scatter(split) >> Broadcast(2, tenfold) >> Aggregate(values, over="split") >> Aggregate(nested, over="split")
    )
    assert await _run(pipeline, [2]) == [[0, [0, 0, 1]], [1, [1, 10, 11]]]


async def test_an_aggregate_over_an_aggregate_and_over_the_step_just_before_it() -> None:
    def first(_: Item[list[int]], members: Sequence[Item[int]]) -> int:
        return members[0].value

    pipeline = Scatter(split) >> Aggregate(values, over="split") >> Map(_total) >> Aggregate(first, over="values")
    assert await _run(pipeline, [3]) == [0, 2, 4]


async def test_none_stands_for_no_aggregate() -> None:
    def even(item: Item[int], members: Sequence[Item[int]]) -> int | None:
        return None if item.value % 2 else len(members)

    pipeline = Scatter(split) >> Map(same) >> Aggregate(even, over="split") >> Map(same, name="last")
    assert await _run(pipeline, [4]) == [1, 1]
    assert await _run(pipeline >> Aggregate(values, over="even"), [4]) == [[1, 1], [1, 1]]


async def test_none_in_one_aggregate_leaves_the_one_around_it_complete() -> None:
    def none(_: Item[int], __: Sequence[Item[int]]) -> int | None:
        return None

    pipeline = Map(same) >> Scatter(split) >> Aggregate(none, over="split") >> Aggregate(values, over="same")
    assert await _run(pipeline, [2]) == [[2]]


async def test_none_is_a_value_of_other_steps() -> None:
    async def nothing(item: Item[int]) -> None: ...

    assert await _run(Map(same) >> Map(nothing), [1]) == [None]


async def test_an_aggregate_does_not_keep_its_members_alive() -> None:
    members: list[weakref.ref[Item[int]]] = []

    async def remembered(item: Item[int]) -> int:
        members.append(weakref.ref(item))
        return item.value

    pipeline = Scatter(split) >> Broadcast(2, tenfold) >> Map(remembered) >> Aggregate(values, over="split")
    items = await _items(pipeline, [2])
    assert len(members) == 4
    assert not [member for member in members if member() is not None]
    assert len(items) == 2


# Turns.


def _in_turn(log: list[tuple[int, ...]], **options: Any) -> Scatter:
    async def in_turn(item: Item[int]) -> AsyncIterator[int]:
        await item.turn()
        log.append(item.path)
        await asyncio.sleep(0)
        log.append(item.path)
        yield item.value

    return Scatter(in_turn, in_order_of="split", **options)


async def _later_first(item: Item[int]) -> int:
    for _ in range(3 * (5 - item.value)):
        await asyncio.sleep(0)
    return item.value


@pytest.mark.parametrize("workers", [1, 2, 64])
async def test_turns_come_by_path_whatever_is_ready_first(workers: int) -> None:
    log: list[tuple[int, ...]] = []
    pipeline = Scatter(split) >> Map(_later_first, workers=4) >> _in_turn(log, workers=workers) >> Map(same)
    assert await _run(pipeline, [5]) == [0, 1, 2, 3, 4]
    assert log == [(0, number) for number in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)]


async def test_turns_go_past_siblings_that_were_dropped() -> None:
    for dropped in ([0], [4], [1, 2], [0, 1, 2, 3, 4], [0, 2, 4]):
        log: list[tuple[int, ...]] = []
        pipeline = Scatter(split) >> Map(_later_first) >> without(*dropped) >> _in_turn(log, workers=1)
        left = [number for number in range(5) if number not in dropped]
        assert await _run(pipeline, [5]) == left
        assert log == [(0, number) for number in left for _ in range(2)]


async def test_siblings_of_other_items_do_not_wait_for_one_another() -> None:
    gate = asyncio.Event()
    log: list[tuple[int, ...]] = []

    async def held(item: Item[int]) -> int:
        if item.path == (0, 0):
            await gate.wait()
        return item.value

    pipeline = Scatter(split) >> Map(held) >> _in_turn(log)
    async with aclosing(pipeline.run([2, 2])) as items:
        assert [(await asyncio.wait_for(anext(items), 5)).path[0] for _ in range(2)] == [1, 1]
        gate.set()
        assert [item.path[0] async for item in items] == [0, 0]


async def test_outputs_may_go_on_before_the_turn_and_after_it() -> None:
    gate = asyncio.Event()

    async def both(item: Item[int]) -> AsyncIterator[int]:
        if item.value == 0:
            await gate.wait()
        yield item.value
        await item.turn()
        yield item.value + 10

    async with aclosing((Scatter(split) >> Scatter(both, in_order_of="split") >> Map(same)).run([3])) as items:
        assert sorted([(await asyncio.wait_for(anext(items), 5)).value for _ in range(2)]) == [1, 2]
        gate.set()
        assert [item.value async for item in items] == [0, 10, 11, 12]


async def test_a_turn_waits_for_all_that_came_of_the_earlier_siblings() -> None:
    log: list[tuple[int, ...]] = []
    pipeline = Scatter(split) >> Broadcast(2, tenfold) >> Map(_slow_when_small) >> _in_turn(log)
    await _run(pipeline, [3])
    assert [path[1] for path in log] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


async def _slow_when_small(item: Item[int]) -> int:
    for _ in range(max(0, 30 - item.value)):
        await asyncio.sleep(0)
    return item.value


async def test_two_steps_may_go_by_the_order_of_one() -> None:
    first: list[tuple[int, ...]] = []
    second: list[tuple[int, ...]] = []

    async def once_more(item: Item[int]) -> list[int]:
        await item.turn()
        second.append(item.path)
        return [item.value]

    pipeline = (
        Scatter(split)
        >> Map(_later_first)
        >> _in_turn(first, workers=1)
        >> Map(_later_first, name="again")
        >> Scatter(once_more, in_order_of="split", workers=1)
    )
    assert await _run(pipeline, [4]) == [0, 1, 2, 3]
    assert first == [(0, number) for number in range(4) for _ in range(2)]
    assert second == [(0, number, 0) for number in range(4)]


async def test_a_turn_goes_past_an_aggregate_on_the_way() -> None:
    log: list[int] = []

    async def in_turn(item: Item[list[int]]) -> list[int]:
        await item.turn()
        log.append(item.value[0])
        return item.value

    pipeline = (
        Scatter(split)
        >> Broadcast(2, tenfold)
        >> Map(_slow_when_small)
        >> Aggregate(values, over="split")
        >> Scatter(in_turn, in_order_of="split")
    )
    assert await _run(pipeline, [3]) == [0, 0, 1, 1, 10, 11, 2, 20, 21]
    assert log == [0, 1, 2]


async def test_a_turn_may_be_asked_for_on_the_way_and_more_than_once() -> None:
    passed_by: list[int] = []

    async def waiting(item: Item[int]) -> int:
        await item.turn()
        await item.turn()
        passed_by.append(item.value)
        return item.value

    log: list[tuple[int, ...]] = []
    pipeline = Scatter(split) >> Map(_later_first) >> Map(waiting, workers=1) >> _in_turn(log, workers=1)
    assert await _run(pipeline, [4]) == [0, 1, 2, 3]
    assert passed_by == [0, 1, 2, 3]

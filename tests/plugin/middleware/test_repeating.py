import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.plugin.middleware.repeating import answered_by, ended_by, has_result

pytestmark = pytest.mark.own_time


async def _after(seconds: float, error: Exception | None = None) -> str:
    await asyncio.sleep(seconds)
    if error is not None:
        raise error
    return f"{seconds}"


def _started(*coroutines: "asyncio.Future[str] | object") -> "list[asyncio.Task[str]]":
    return [asyncio.create_task(one) for one in coroutines]  # type: ignore[arg-type]


async def test_what_takes_too_long_is_cancelled() -> None:
    tasks = _started(_after(0), _after(60), _after(0, OSError()))
    await ended_by(tasks, 0.05)
    assert [has_result(task) for task in tasks] == [True, False, False]
    assert tasks[1].cancelled()


async def test_all_are_waited_for_without_a_limit() -> None:
    tasks = _started(_after(0), _after(0.05))
    await answered_by(tasks, None, first=False)
    assert all(map(has_result, tasks))


@pytest.mark.parametrize(
    ("seconds", "first", "answered"),
    [
        ((0.0, 60, 60), False, [True, False, False]),
        ((0.2, 60, 60), False, [True, False, False]),
        ((60, 0.2, 60), False, [False, True, False]),
        ((0.2, 0.0, 60), True, [True, True, False]),
    ],
)
async def test_there_is_a_result(seconds: Sequence[float], first: bool, answered: list[bool]) -> None:
    tasks = _started(*map(_after, seconds))
    await answered_by(tasks, 0.02, first=first)
    assert [has_result(task) for task in tasks] == answered


async def test_a_first_one_that_failed_is_waited_for_no_longer() -> None:
    tasks = _started(_after(0.0, OSError()), _after(0.2), _after(60))
    await answered_by(tasks, 0.02, first=True)
    assert [has_result(task) for task in tasks] == [False, True, False]


async def test_when_all_fail_it_ends() -> None:
    tasks = _started(_after(0, OSError()), _after(0.05, OSError()))
    await answered_by(tasks, 0.01, first=False)
    assert [task.done() for task in tasks] == [True, True]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.booleans(), st.data())
async def test_none_is_left_behind(failing: list[bool], first: bool, data: st.DataObject) -> None:
    delays = [data.draw(st.sampled_from([0.0, 0.0, 0.001])) for _ in failing]
    tasks = _started(
        *(_after(seconds, OSError() if fails else None) for seconds, fails in zip(delays, failing, strict=True))
    )
    await answered_by(tasks, 0.0, first=first)
    assert all(task.done() for task in tasks)
    assert any(map(has_result, tasks)) or all(failing)


async def test_one_that_does_not_end_holds_nobody_up() -> None:
    released = asyncio.Event()

    async def stubborn() -> str:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    tasks = _started(_after(0), stubborn())
    await answered_by(tasks, 0.01, first=False)
    assert [has_result(task) for task in tasks] == [True, False]
    released.set()
    assert await tasks[1] == "at last"

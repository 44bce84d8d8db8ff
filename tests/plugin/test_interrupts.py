import asyncio
import os
import signal

import pytest

from nat_dpo_pipeline.plugin.interrupts import Interrupted, cancelled_by_signals, interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def _put_in_order(put: list[str], number: signal.Signals | None) -> None:
    with interruptible("once more ends at once"):
        try:
            if number is None:
                raise asyncio.CancelledError
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            put.append("in order")


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_leaves_time_to_put_things_in_order(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    put = list[str]()
    with pytest.raises(Interrupted, match=r"^interrupted$"):
        await _put_in_order(put, number)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert put == ["in order"]
    assert caplog.messages == ["once more ends at once"]
    assert [signal.getsignal(one) for one in SIGNALS] == [signal.default_int_handler, signal.SIG_DFL]


async def test_what_is_cancelled_by_its_own_program_is_no_interruption(caplog: pytest.LogCaptureFixture) -> None:
    put = list[str]()
    with pytest.raises(asyncio.CancelledError):
        await _put_in_order(put, None)
    assert put == ["in order"]
    assert caplog.messages == []


async def test_a_second_signal_does_what_it_always_does() -> None:
    told: list[str] = []
    task = asyncio.create_task(asyncio.sleep(60))
    with cancelled_by_signals(task, lambda: told.append("first")):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait([task])
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert task.cancelled()
    assert told == ["first"]


async def test_another_thread_goes_without() -> None:
    async def work() -> str:
        with interruptible("never"):
            return "done"

    def run() -> str:
        with asyncio.Runner() as runner:
            return runner.run(work())

    assert await asyncio.to_thread(run) == "done"

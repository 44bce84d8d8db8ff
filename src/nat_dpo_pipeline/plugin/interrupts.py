"""Ctrl-C and SIGTERM while something is under way that has to be put in order first.

NAT replaces `asyncio.run` by one that leaves SIGINT alone: KeyboardInterrupt would arise in the middle of any line.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nat_dpo_pipeline.errors import TrainingError

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(TrainingError):  # noqa: N818 - it reads as what happened
    """A user, or the system, wanted an end."""


@contextmanager
def cancelled_by_signals(task: "asyncio.Task[Any]", on_cancel: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM cancels the task, the next ones do what they always do.

    Without effect outside the main thread, which alone receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def restore() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def cancel() -> None:
        restore()
        if task.cancel():
            on_cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel)
    try:
        yield
    finally:
        restore()


@contextmanager
def interruptible(warning: str) -> Iterator[None]:
    """The first SIGINT or SIGTERM cancels the current task, tells the warning and comes out as Interrupted."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("there is no task to interrupt")
    is_interrupted = False

    def tell() -> None:
        nonlocal is_interrupted
        is_interrupted = True
        logger.warning("%s", warning)

    try:
        with cancelled_by_signals(task, tell):
            yield
    except asyncio.CancelledError as error:
        if not is_interrupted:
            raise
        task.uncancel()
        raise Interrupted(f"interrupted: {error}" if error.args else "interrupted") from None

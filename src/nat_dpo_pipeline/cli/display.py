"""What a run is doing, on the terminal while it goes on: read from its record, into which nothing is pushed."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from textwrap import shorten
from threading import Event, Thread
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nat_dpo_pipeline.cli.summaries import duration, money, number, tokens_of
from nat_dpo_pipeline.cli.terminal import say
from nat_dpo_pipeline.core.printable import printable
from nat_dpo_pipeline.generation.chat import Waiting
from nat_dpo_pipeline.generation.record import GenerationRecord, ModelUsage

REFRESHES_A_SECOND = 4
SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_A_RATE = 10.0
_LONGEST_REASON = 120
# A wait that begins is told soon, also when the next line is not due.
_SECONDS_BETWEEN_LOOKS = 1.0
# A step that only says how often a question is asked; it takes no time.
_HIDDEN = "samples"


@dataclass(frozen=True, slots=True)
class StepReading:
    """One step at a moment. `expected` is None when nobody knows how many calls it will make."""

    name: str
    done: int
    running: int
    failed: int
    answered: int
    expected: int | None
    retries: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """A run at a moment; times in seconds, rates a second. What is not known is None."""

    steps: tuple[StepReading, ...]
    requests_rate: float
    tokens_rate: float
    replayed: int
    cost: float | None
    elapsed: float
    left: float | None
    waiting: tuple[Waiting, ...] = ()


class Meter:
    """Reads a record, and remembers enough of earlier readings to tell how fast it goes."""

    def __init__(
        self,
        record: GenerationRecord,
        expected: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._expected = expected or {}
        self._clock = clock
        self._began = clock()
        self._first_sent: float | None = None
        self._before = deque([(self._began, 0, 0)])

    def read(self) -> Reading:
        # The run goes on in another thread: a dict is copied in one go, but not read in one.
        usage, progress = dict(self._record.usage), dict(self._record.progress)
        now = self._clock()
        used = list(usage.values())
        requests = sum(one.requests for one in used)
        tokens = sum(one.prompt_tokens + one.completion_tokens for one in used)
        rates = self._rates(now, requests, tokens)
        names = dict.fromkeys((*self._expected, *progress, *(step for step, _ in usage)))
        steps = tuple(
            self._step(name, [one for (step, _), one in usage.items() if step == name])
            for name in names
            if name != _HIDDEN
        )
        return Reading(
            steps=steps,
            requests_rate=rates[0],
            tokens_rate=rates[1],
            replayed=sum(one.replayed for one in used),
            cost=GenerationRecord(prices=self._record.prices, usage=usage).total_cost(),
            elapsed=now - self._began,
            left=self._left(now, steps, used),
            waiting=tuple(self._record.waiting()),
        )

    def _step(self, name: str, used: list[ModelUsage]) -> StepReading:
        progress = self._record.progress.get(name)
        failures = self._record.failed_by.get(name)
        return StepReading(
            name=name,
            done=0 if progress is None else progress.done,
            running=0 if progress is None else progress.running,
            failed=0 if failures is None else sum(list(failures.values())),
            answered=sum(_answered(one) for one in used),
            expected=self._expected.get(name),
            retries=sum(one.retries for one in used),
            prompt_tokens=sum(one.prompt_tokens for one in used),
            completion_tokens=sum(one.completion_tokens for one in used),
            uncounted=sum(one.uncounted for one in used),
        )

    def _rates(self, now: float, requests: int, tokens: int) -> tuple[float, float]:
        self._before.append((now, requests, tokens))
        while len(self._before) > 2 and self._before[1][0] <= now - _SECONDS_OF_A_RATE:
            self._before.popleft()
        then, requests_then, tokens_then = self._before[0]
        seconds = max(now - then, 1.0)
        return (requests - requests_then) / seconds, (tokens - tokens_then) / seconds

    def _left(self, now: float, steps: tuple[StepReading, ...], used: list[ModelUsage]) -> float | None:
        """At the speed so far; replies from a journal say nothing about it."""
        answered = sum(one.answered for one in used)
        if not answered or not self._expected:
            return None
        self._first_sent = self._first_sent or now
        open_calls = sum(max((step.expected or 0) - step.answered, 0) for step in steps)
        seconds = now - self._first_sent
        return open_calls * seconds / answered if seconds > 0 else None


def _answered(used: ModelUsage) -> int:
    return used.answered + used.replayed


def line_of(reading: Reading) -> str:
    """The reading in one line."""
    steps = ", ".join(f"{step.name} {_calls(step)}" for step in reading.steps if step.expected or step.answered)
    failed = sum(step.failed for step in reading.steps)
    told = [steps or "starting", *([f"{number(failed)} failed"] if failed else []), *_facts(reading), *_waits(reading)]
    return "; ".join(told)


def table_of(reading: Reading) -> RenderableType:
    """The reading as a table with a line below."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for head in ("done", "running", "failed", "calls", "tokens in", "tokens out"):
        table.add_column(head, justify="right", no_wrap=True)
    for step in reading.steps:
        asks = bool(step.expected or step.answered or step.retries)
        table.add_row(
            printable(step.name),
            number(step.done),
            number(step.running),
            Text(number(step.failed), style="red" if step.failed else ""),
            _calls(step) if asks else "",
            *(tokens_of(step.prompt_tokens, step.completion_tokens, step.uncounted) if asks else ("", "")),
        )
    waits = (Text(wait, style="yellow") for wait in _waits(reading))
    return Group("", table, Text(" · ".join(_facts(reading)), style="dim"), *waits)


def _calls(step: StepReading) -> str:
    return number(step.answered) + ("" if step.expected is None else f" / {number(step.expected)}")


def _facts(reading: Reading) -> Iterator[str]:
    yield f"{reading.requests_rate:,.1f} requests/s"
    yield f"{number(reading.tokens_rate)} tokens/s"
    if retries := sum(step.retries for step in reading.steps):
        yield f"{number(retries)} retried"
    if reading.replayed:
        yield f"{number(reading.replayed)} from the journal"
    if reading.cost is not None:
        yield f"cost {money(reading.cost)}"
    yield f"{duration(reading.elapsed)} elapsed"
    if reading.left is not None:
        yield f"about {duration(reading.left)} left"


def _waits(reading: Reading) -> Iterator[str]:
    for one in reading.waiting:
        reason = shorten(one.reason, _LONGEST_REASON, placeholder="…")
        yield f"waiting for {one.llm}, {duration(max(one.seconds, 1.0))} more: {reason}"


@contextmanager
def watching(
    record: GenerationRecord,
    expected_calls: Mapping[str, int] | None = None,
    *,
    console: Console | None = None,
    refreshes_a_second: float = REFRESHES_A_SECOND,
    seconds_between_lines: float = SECONDS_BETWEEN_LINES,
) -> Iterator[None]:
    """Show what the run of `record` does while the block runs: a live table on a terminal, lines elsewhere."""
    shown_on = console or Console(stderr=True)
    meter = Meter(record, expected_calls)
    if shown_on.is_terminal and not shown_on.is_dumb_terminal:
        with _table(meter, shown_on, refreshes_a_second):
            yield
    else:
        with _lines(meter, shown_on, seconds_between_lines):
            yield


@contextmanager
def _table(meter: Meter, console: Console, refreshes_a_second: float) -> Iterator[None]:
    live = Live(
        console=console,
        get_renderable=lambda: table_of(meter.read()),
        refresh_per_second=refreshes_a_second,
        transient=True,
    )
    streams = (sys.stdout, sys.stderr)
    with live, _logs_above_the_table(streams):
        yield


@contextmanager
def _logs_above_the_table(streams: tuple[TextIO, ...]) -> Iterator[None]:
    """Live has replaced these streams by ones that print above it; what logs to them is to do so, too.

    What is not at least a warning would scroll by and is left out, unless debugging was asked for.
    """
    root = logging.getLogger()
    with ExitStack() as stack:
        for handler in root.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                stack.callback(handler.setStream, handler.stream)
                handler.setStream(sys.stderr)
                if root.level > logging.DEBUG:
                    stack.callback(handler.setLevel, handler.level)
                    handler.setLevel(max(handler.level, logging.WARNING))
        yield


@contextmanager
def _lines(meter: Meter, console: Console, seconds: float) -> Iterator[None]:
    ended = Event()

    def tell() -> None:
        told: set[str] = set()
        due = time.monotonic() + seconds
        while not ended.wait(min(seconds, _SECONDS_BETWEEN_LOOKS)):
            reading = meter.read()
            waited_for = {one.llm for one in reading.waiting}
            if time.monotonic() >= due or not waited_for <= told:
                say(line_of(reading), file=console.file)
                told, due = waited_for, time.monotonic() + seconds

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        say(line_of(meter.read()), file=console.file)

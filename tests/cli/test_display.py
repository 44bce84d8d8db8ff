import io
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import cast

import pytest
from rich.console import Console

from nat_dpo_pipeline.cli.display import Meter, line_of, table_of, watching
from nat_dpo_pipeline.generation.chat import Waiting
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord, ModelUsage, StepProgress
from nat_dpo_pipeline.generation.settings import Price
from tests.waiting import wait_until


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _record(answered: int = 30, retries: int = 2, replayed: int = 0) -> GenerationRecord:
    record = GenerationRecord(prices={"writer": Price(prompt=1.0, completion=2.0)})
    record.progress["responses"] = StepProgress(running=4, done=answered, failed=0)
    record.progress["samples"] = StepProgress(done=3)
    record.progress["turns"] = StepProgress(done=7)
    record.failed_by["responses"] = Counter({FailureReason.REFUSAL: 3, FailureReason.MODEL_ERROR: 1})
    record.usage["responses", "writer"] = ModelUsage("m", answered + retries, retries, replayed, 1_000_000, 500_000)
    return record


def _shown(record: GenerationRecord, **expected: int) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(table_of(Meter(record, expected).read()))
    return captured.get()


def test_a_table_shows_each_step_and_fits_eighty_columns() -> None:
    shown = _shown(_record(), responses=90_000, rewards=90_000)
    cells = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert cells["responses"] == ["30", "4", "4", "30", "/", "90,000", "1,000,000", "500,000"]
    assert cells["rewards"] == ["0", "0", "0", "0", "/", "90,000", "0", "0"]
    assert cells["turns"] == ["7", "0", "0"]
    assert "samples" not in cells
    assert "2 retried · cost 2.00" in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_rates_are_those_of_the_last_seconds() -> None:
    clock, record = Clock(), _record(answered=0, retries=0)
    used = record.usage["responses", "writer"]
    used.prompt_tokens = used.completion_tokens = 0
    meter = Meter(record, clock=clock)
    for _ in range(40):
        clock.now += 1.0
        used.requests += 2
        used.prompt_tokens += 30
        reading = meter.read()
    assert (reading.requests_rate, reading.tokens_rate) == (2.0, 30.0)
    for _ in range(10):
        clock.now += 1.0
        reading = meter.read()
    assert reading.requests_rate == 0.0
    assert reading.elapsed == 50.0


def test_tokens_that_are_not_counted_are_unknown_in_the_table() -> None:
    record = GenerationRecord()
    record.usage["responses", "writer"] = ModelUsage("m", requests=3, uncounted=3)
    shown = io.StringIO()
    Console(file=shown, width=120).print(table_of(Meter(record).read()))
    assert shown.getvalue().count("unknown") == 2


def test_what_is_left_is_reckoned_from_what_was_sent_and_not_from_what_was_replayed() -> None:
    clock, record = Clock(), GenerationRecord()
    used = record.usage["responses", "writer"] = ModelUsage(replayed=500)
    meter = Meter(record, {"responses": 600}, clock)
    clock.now += 1.0
    assert meter.read().left is None
    used.requests = 1
    meter.read()
    clock.now += 10.0
    used.requests = 20
    reading = meter.read()
    assert reading.left == pytest.approx(80 * 10 / 20)
    assert reading.replayed == 500
    assert "500 from the journal; 0:00:11 elapsed; about 0:00:40 left" in line_of(reading)


def test_nothing_is_said_of_what_is_not_known() -> None:
    line = line_of(Meter(GenerationRecord()).read())
    assert line == "starting; 0.0 requests/s; 0 tokens/s; 0:00:00 elapsed"
    assert "cost" not in line_of(Meter(GenerationRecord(prices={"writer": Price(prompt=1.0, completion=1.0)})).read())


def test_a_line_names_the_steps_that_ask_and_the_failures() -> None:
    line = line_of(Meter(_record(), {"responses": 90}).read())
    assert line.startswith("responses 30 / 90; 4 failed; ")
    assert "turns" not in line


def test_without_a_terminal_there_is_a_line_now_and_then_and_one_at_the_end() -> None:
    output = io.StringIO()
    with watching(_record(), console=Console(file=output), seconds_between_lines=0.01):
        wait_until(lambda: output.getvalue().count("\n") >= 3)
    lines = output.getvalue().splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("responses 30; 4 failed") for line in lines)


def test_a_run_that_is_over_before_the_first_line_has_the_last() -> None:
    output = io.StringIO()
    with watching(_record(), console=Console(file=output)):
        pass
    assert output.getvalue().count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def _on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """One that stands in for standard error; not as a fixture, since pytest has its own there between the phases."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        patch.setenv("TERM", "xterm")
        for name in ("NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        yield cast(Terminal, sys.stderr)


@contextmanager
def _logging_to(stream: io.StringIO, level: int) -> Iterator["logging.StreamHandler[io.StringIO]"]:
    root, handler = logging.getLogger(), logging.StreamHandler(stream)
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield handler
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def _logged(monkeypatch: pytest.MonkeyPatch, level: int) -> str:
    log = logging.getLogger("nat.some.part")
    with _on_a_terminal(monkeypatch) as terminal, _logging_to(terminal, level) as handler:
        with watching(_record(), console=Console(stderr=True, width=80), refreshes_a_second=50):
            wait_until(lambda: "responses" in terminal.getvalue())
            log.warning("mind the gap")
            log.info("noise")
            wait_until(lambda: "responses" in terminal.getvalue().partition("mind the gap")[2])
        assert handler.stream is terminal
        log.info("after")
    return terminal.getvalue()


def test_what_is_logged_goes_above_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _logged(monkeypatch, logging.INFO)
    assert "mind the gap\n" in shown
    assert "noise" not in shown
    assert shown.endswith("after\n")
    before, _, behind = shown.partition("mind the gap")
    # The lines of the table were cleared before it, and the table is drawn anew below.
    assert before.count("\x1b[2K") >= 3
    assert "responses" in behind
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_debugging_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "noise\n" in _logged(monkeypatch, logging.DEBUG)


def test_an_interruption_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = sys.stdout

    def interrupted() -> None:
        with watching(_record(), console=Console(stderr=True)):
            raise KeyboardInterrupt

    with _on_a_terminal(monkeypatch) as terminal:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert sys.stderr is terminal
    assert sys.stdout is stdout
    assert terminal.getvalue().count("\x1b[?25h") == 1
    # Transient: what was drawn is cleared.
    assert terminal.getvalue().endswith("\x1b[2K")


def test_a_dumb_terminal_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    with _on_a_terminal(monkeypatch) as terminal:
        monkeypatch.setenv("TERM", "dumb")
        with watching(_record()):
            pass
    assert "\x1b" not in terminal.getvalue()


def test_a_record_can_change_while_it_is_read() -> None:
    record, ended = _record(), Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            record.usage[f"step-{number % 500}", f"llm-{number}"] = ModelUsage()
            record.progress[f"step-{number % 500}"] = StepProgress()
            if number % 1000 == 0:
                record.usage.clear()

    writer = Thread(target=write)
    writer.start()
    try:
        meter = Meter(record)
        for _ in range(10):
            meter.read()
    finally:
        ended.set()
        writer.join()


def _waiting_record(until: list[bool]) -> GenerationRecord:
    reason = "model 'writer' (m at http://localhost/v1) answered 429: slow down (the request was refused)"
    record = _record()
    record.waiting = lambda: [Waiting("writer", 61.2, reason)] if until else []
    return record


def test_what_is_waited_for_is_told_in_the_table_and_in_a_line() -> None:
    record = _waiting_record([True])
    assert "waiting for writer, 0:01:01 more: model 'writer' (m at http://localhost/v1)" in _shown(record)
    assert "answered 429: slow down" in line_of(Meter(record).read())
    assert "waiting" not in _shown(_record())


def test_a_wait_is_told_in_a_line_as_soon_as_it_begins() -> None:
    output = io.StringIO()
    waits = [True]
    with watching(_waiting_record(waits), console=Console(file=output), seconds_between_lines=3600.0):
        wait_until(lambda: "waiting for writer" in output.getvalue())
        waits.clear()
    assert len(output.getvalue().splitlines()) == 2

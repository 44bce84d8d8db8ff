"""Commands as a user starts them. Whatever a test starts is gone when the test is over, also when it fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.forking import Copy, copied
from tests.waiting import wait_until

NAT = Path(sys.executable).with_name("nat")
_KEYS = ("NVIDIA_API_KEY", "NVIDIA_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")

Process = Copy | subprocess.Popen[bytes]
Streams = Sequence[IO[bytes] | int]


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, and what it wrote to standard output and to standard error."""

    code: int
    output: str
    logs: str

    @property
    def said(self) -> str:
        return self.output + self.logs

    def last_line(self) -> str:
        return next(line for line in reversed(self.logs.splitlines()) if line.strip(" \x1b[0m"))

    def count(self, name: str) -> int:
        """The number behind a name in a table of the command."""
        return int(next(line for line in self.said.splitlines() if line.startswith(f"  {name} ")).split()[1])


class Command:
    """A command at work. It writes into files, since a pipe that nobody reads would hold it up."""

    def __init__(self, process: Process, output: IO[bytes], logs: IO[bytes]) -> None:
        self.process = process
        self._output = output
        self._logs = logs

    @property
    def said(self) -> str:
        return _text(self._output) + _text(self._logs)

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Wait for what the command shall cause; raise AssertionError when it ends before."""
        try:
            wait_until(happened, lambda: self.process.poll() is None)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.said}") from None

    def end(self) -> Done:
        code = self.process.wait()
        return Done(code, _text(self._output), _text(self._logs))


def _text(file: IO[bytes]) -> str:
    # The command writes at the offset that it shares with this process, so nothing may be sought here.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode()


def environment(*folders: Path, **more: str) -> dict[str, str]:
    """The environment of a command that finds the modules in `folders`, and no key."""
    kept = {name: value for name, value in os.environ.items() if name not in _KEYS}
    path = os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "NAT_TELEMETRY_ENABLED": "false", "NO_COLOR": "1", **more}


@contextmanager
def process(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], streams: Streams, *, afresh: bool
) -> Iterator[Process]:
    """Run a Python script; `afresh` in an interpreter of its own, with its own seed of hashes."""
    if not afresh:
        with copied(command, folder, environment, streams) as copy:
            yield copy
        return
    stdin, stdout, stderr = streams
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    ) as fresh:
        try:
            yield fresh
        finally:
            with suppress(ProcessLookupError):
                os.killpg(fresh.pid, signal.SIGKILL)


@contextmanager
def started(
    folder: Path, *command: str | Path, env: Mapping[str, str] | None = None, afresh: bool = False
) -> Iterator[Command]:
    """Start a Python script in `folder`."""
    with (
        Path(os.devnull).open("rb") as nothing,
        TemporaryFile() as output,
        TemporaryFile() as logs,
        process(command, folder, environment() if env is None else env, (nothing, output, logs), afresh=afresh) as one,
    ):
        yield Command(one, output, logs)


def run(folder: Path, *command: str | Path, env: Mapping[str, str] | None = None, afresh: bool = False) -> Done:
    """Run a Python script in `folder` to its end."""
    with started(folder, *command, env=env, afresh=afresh) as running:
        return running.end()


def run_nat(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, afresh: bool = False) -> Done:
    return run(folder, NAT, *arguments, env=env, afresh=afresh)

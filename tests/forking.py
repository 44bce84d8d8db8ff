"""Python scripts in copies of a process that has imported NAT already: the import takes two seconds, a copy none.

Everything else is as when a user starts the script: a process in a session of its own, with its own arguments, folder,
environment, standard streams, signals and exit code. Copies share the seed of hashes; a test about results that are the
same in every process starts one afresh.

A request is a byte with four file descriptors: the standard streams, and a socket on which the copy reads what it is to
run and answers with its process id. The exit code follows there.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO

_STREAMS = 3
_starting = Lock()


class Copy:
    """A process, as far as `subprocess.Popen` says the same of one."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._channel = channel

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(_line(self._channel))
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


@contextmanager
def copied(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str], streams: Sequence[IO[bytes] | int]
) -> Iterator[Copy]:
    """Run the script `command[0]`; kill its process group in the end."""
    request = {"command": [str(word) for word in command], "folder": str(folder), "environment": dict(environment)}
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, _starting:
            numbers = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            socket.send_fds(_origin(), [b"+"], [*numbers, theirs.fileno()])
        ours.sendall(json.dumps(request).encode() + b"\n")
        process = Copy(int(_line(ours)), ours)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@cache
def _origin() -> socket.socket:
    """A connection to the process that is copied."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.forking", str(theirs.fileno())],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "NAT_TELEMETRY_ENABLED": "false", "NO_COLOR": "1"},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


def _line(channel: socket.socket) -> bytes:
    """The next line; byte by byte, as what follows it is for the next reader."""
    line = b""
    while not line.endswith(b"\n"):
        byte = channel.recv(1)
        if not byte:
            raise EOFError("the other process is gone")
        line += byte
    return line


def _import_everything() -> None:
    import beartype.door  # noqa: F401 - the largest of what is imported late
    import nat.cli
    import nat.plugins.eval
    from nat.runtime.loader import PluginTypes, discover_and_register_plugins

    import nat_dpo_pipeline

    discover_and_register_plugins(PluginTypes.ALL)
    for package in (nat.cli, nat.plugins.eval, nat_dpo_pipeline):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".trl." in module.name:  # torch is for processes that are started afresh
                continue
            with suppress(ImportError):  # of what is not installed here
                importlib.import_module(module.name)


def _next_copy(control: socket.socket) -> socket.socket:
    """Serve until the tests are gone; return in each copy, with the channel to whoever asked for it."""
    channels: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            os.read(woken, 1024)
            _tell_ends(channels)
        if control not in ready:
            continue
        _, numbers, _, _ = socket.recv_fds(control, 1, _STREAMS + 1)
        if not numbers:
            _kill(channels)
            sys.exit()
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _be_on_ones_own(numbers, [woken, wake, control.detach(), *(one.detach() for one in channels.values())])
            return socket.socket(fileno=numbers[-1])
        channels[pid] = socket.socket(fileno=numbers[-1])
        for number in numbers[:-1]:
            os.close(number)


def _tell_ends(channels: dict[int, socket.socket]) -> None:
    while channels:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with channels.pop(pid) as channel, suppress(BrokenPipeError):
            channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _kill(channels: dict[int, socket.socket]) -> None:
    for pid in channels:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _be_on_ones_own(streams: Sequence[int], others: Sequence[int]) -> None:
    os.setsid()
    for number in others:
        os.close(number)
    for target, number in enumerate(streams[:-1]):
        os.dup2(number, target)
        os.close(number)
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _prepare(request: dict[str, object]) -> str:
    """Become the process that was asked for; return the script."""
    command, environment = request["command"], request["environment"]
    assert isinstance(command, list)
    assert isinstance(environment, dict)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = command
    sys.path[:0] = [str(Path(command[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    return str(command[0])


if __name__ == "__main__":
    _import_everything()
    gc.freeze()
    with _next_copy(socket.socket(fileno=int(sys.argv[1]))) as asker:
        script = _prepare(json.loads(_line(asker)))
        asker.sendall(b"%d\n" % os.getpid())
    runpy.run_path(script, run_name="__main__")

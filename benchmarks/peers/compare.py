"""This package beside NVIDIA NeMo Data Designer and distilabel: the same work, on one server, in turns.

Each tool runs in an environment and a process of its own, and makes the same requests: equal questions, and ratings
that differ in the mark of their tags only. None keeps a cache or sends telemetry. The settings are the fastest of those
tried:

data_designer  A column for each response and each rating, `max_parallel_requests` at the limit, no health check,
               Jinja's own renderer, no endpoint for metrics. A row for each response, or groups of 50 rows: no faster.
distilabel     A row for each response, since its client asks for several with `n`, which the server ignores. Batches as
               large as the limit, which each of its two steps has for itself; smaller ones and replicas were slower.

this_package   Measured once more on a server that honours `n`: how many requests are left, and the time they take.

Times: `at_server` lies between the first request and the last reply, and leaves out every start. `wall` is the call
that runs the pipeline, with the start of distilabel's own processes. `process` adds the interpreter and the imports.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers.work import Work

from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.judges import DEFAULT_CRITERIA

_HERE = Path(__file__).parent
_ENVIRONMENTS = Path(".build/peers")
_QUESTIONS, _RESPONSES, _CONCURRENCY, _LATENCY = 200, 4, 256, 0.05
_QUIET = {
    "NEMO_TELEMETRY_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
_OURS = "this_package"
_TIMES = ("at_server", "wall", "process", "processor", "processor_of_process")


@dataclass(frozen=True)
class Peer:
    """A tool, and the packages that its environment needs."""

    name: str
    packages: tuple[str, ...]

    def python(self) -> Path:
        """Its interpreter. Raises CalledProcessError where it cannot be installed."""
        folder = _ENVIRONMENTS / "-".join((self.name, *self.packages)).replace("[openai]", "")
        python = (folder / "bin" / "python").absolute()
        ready = folder / "ready"
        if not ready.exists():
            venv.create(folder, with_pip=True, clear=True)
            install = [python, "-m", "pip", "install", "-qq", *self.packages]
            subprocess.run(install, capture_output=True, text=True, check=True)
            ready.touch()
        return python


# distilabel imports requests and does not ask for it.
PEERS = (
    Peer("data_designer", ("data-designer==0.9.7",)),
    Peer("distilabel", ("distilabel[openai]==1.5.3", "requests")),
)


def measure(rounds: int) -> dict[str, object]:
    """Medians over the rounds, and how many times as long as this package each peer takes; skipped peers say why."""
    pythons: dict[str, Path] = {_OURS: Path(sys.executable)}
    skipped = {}
    for peer in PEERS:
        try:
            pythons[peer.name] = peer.python()
        except subprocess.CalledProcessError as error:
            skipped[peer.name] = "cannot be installed: " + error.stderr.strip().rsplit("\n", 1)[-1]
    return {
        "questions": _QUESTIONS,
        "responses": _RESPONSES,
        "calls_at_once": _CONCURRENCY,
        "latency_seconds": _LATENCY,
        "one_response_a_request": _compared(pythons, rounds),
        "all_responses_a_request": several(rounds),
        **({"skipped": skipped} if skipped else {}),
    }


def several(rounds: int) -> dict[str, object]:
    """This package on a server that honours `n`, with and without one request for all responses to a question."""
    runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with _server("--choices") as url:
        for _ in range(rounds):
            for together, rows in runs.items():
                rows.append(_run(_OURS, Path(sys.executable), url, together=together))
    return {
        "requests_for_responses": {
            "together": [row["questions"] for row in runs[True]],
            "each": [row["questions"] for row in runs[False]],
        },
        "together_over_each": {name: _ratio(runs[True], runs[False], name) for name in ("questions", *_TIMES)},
    }


def _compared(pythons: dict[str, Path], rounds: int) -> dict[str, object]:
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    with _server() as url:
        for _ in range(rounds):
            for name, python in pythons.items():
                runs[name].append(_run(name, python, url))
    return {
        "times_as_long_as_this_package": {
            name: {time: _ratio(runs[name], runs[_OURS], time) for time in _TIMES} for name in runs if name != _OURS
        },
        "medians": {name: _medians(rows) for name, rows in runs.items()},
    }


def _ratio(theirs: list[dict[str, float]], ours: list[dict[str, float]], name: str) -> dict[str, object]:
    ratios = [their[name] / our[name] for their, our in zip(theirs, ours, strict=True)]
    return {"median": round(statistics.median(ratios), 2), "all": [round(ratio, 2) for ratio in ratios]}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def _run(name: str, python: Path, url: str, *, together: bool = False) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        work = Work(url, "loopback", _asked(), _RESPONSES, _rating_prompt(), _CONCURRENCY, folder, together)
        file = Path(folder) / "work.json"
        work.save(file)
        _counts(url)  # those of the run before
        command = [str(python), "-W", "ignore", str(_HERE / f"by_{name}.py"), str(file)]
        process, processor, output = _timed(command, folder)
        counts = _counts(url)
    found = [line for line in output.splitlines() if line.startswith("RESULT")]
    if not found:
        raise RuntimeError(f"{name} did not run: {output[-2000:]}")
    result = json.loads(found[0].removeprefix("RESULT "))
    assert result.pop("rated") == _QUESTIONS * _RESPONSES, (name, result)
    return {**result, "process": process, "processor_of_process": processor, **counts}


def _timed(command: list[str], folder: str) -> tuple[float, float, str]:
    """Seconds, seconds of the processor, and output of a command with its children."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **_QUIET}
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return seconds, used.ru_utime + used.ru_stime, output.read()


def _asked() -> list[str]:
    return [f"What about question number {number}?" for number in range(_QUESTIONS)]


def _rating_prompt() -> str:
    return prompts.load("judge_rating").render(
        mark="0" * 8,
        criteria=DEFAULT_CRITERIA,
        conversation="user: {{ question }}",
        reply="{{ response }}",
        lowest="1",
        highest="10",
    )


@contextmanager
def _server(*options: str) -> Iterator[str]:
    command = [sys.executable, "-W", "ignore", str(_HERE / "server.py"), str(_LATENCY), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def _counts(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/counts") as reply:
        counts: dict[str, float] = json.load(reply)
    return counts

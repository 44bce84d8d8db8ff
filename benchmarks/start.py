"""Processor time of commands over small files, user and system, each in a process of its own. Prints one JSON line.

The first round compiles the sources and is not counted; the result is the median of the others.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_ROUNDS = 5
_START = "from nat_dpo_pipeline.cli import dpo; dpo(prog_name='nat-dpo')"


def _candidates(path: Path) -> None:
    """Five candidates of each of five questions."""
    rows = (
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"Question {one}?", "response": f"{rank}.", "score": rank}
        for one in range(5)
        for rank in range(5)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _seconds(words: Sequence[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", _START, *words]
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    commands = {
        "help": ("--help",),
        "pairs": ("pairs", "candidates.jsonl", "-o", "pairs"),
        "inspect": ("inspect", "pairs"),
        "report": ("report", "pairs"),
        "export": ("export", "pairs", "-f", "hh", "-o", "again"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _candidates(folder / "candidates.jsonl")
        rounds = [{name: _seconds(words, folder) for name, words in commands.items()} for _ in range(_ROUNDS + 1)]
    medians = {name: round(statistics.median(one[name] for one in rounds[1:]), 3) for name in commands}
    print(json.dumps({"benchmark": "start", "processor_seconds": medians}))


if __name__ == "__main__":
    main()

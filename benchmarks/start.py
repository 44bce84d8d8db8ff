"""Processor time of commands over small files, and of loading the plugin at the start of `nat`. Prints one JSON line.

Each measurement is a process of its own. The first round compiles the sources and is not counted; the result is the
median of the others.
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
# The import of the plugin's entry point after NAT's own plugins.
_PLUGIN = """
import time
from importlib.metadata import entry_points
from nat.cli.type_registry import GlobalTypeRegistry
with GlobalTypeRegistry.get().pause_registration_changed_hooks():
    for entry_point in entry_points(group="nat.components"):
        entry_point.load()
    started = time.process_time()
    import nat_dpo_pipeline.plugin.register
    print(time.process_time() - started)
"""
_START = "from nat_dpo_pipeline.cli import dpo; dpo(prog_name='nat-dpo')"
_COMMANDS = {
    "help": ("--help",),
    "pairs": ("pairs", "candidates.jsonl", "-o", "pairs"),
    "inspect": ("inspect", "pairs"),
    "report": ("report", "pairs"),
    "export": ("export", "pairs", "-f", "hh", "-o", "again"),
}


def _candidates(path: Path) -> None:
    """Five candidates of each of five questions."""
    rows = (
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"Question {one}?", "response": f"{rank}.", "score": rank}
        for one in range(5)
        for rank in range(5)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _python(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-W", "ignore", "-c", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def _command(folder: Path, words: Sequence[str]) -> float:
    """User and system time, with the start of the interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _python(folder, _START, *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _round(folder: Path) -> dict[str, float]:
    commands = {name: _command(folder, words) for name, words in _COMMANDS.items()}
    return {**commands, "plugin": float(_python(folder, _PLUGIN).split()[-1])}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _candidates(folder / "candidates.jsonl")
        _, *rounds = (_round(folder) for _ in range(_ROUNDS + 1))
    medians = {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}
    print(json.dumps({"benchmark": "start", "processor_seconds": medians}))


if __name__ == "__main__":
    main()

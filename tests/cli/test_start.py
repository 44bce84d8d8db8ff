"""Commands over files import only what they use; benchmarks/start.py measures what that is worth."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each takes a tenth of a second to three seconds to import.
HEAVY = {
    "aiohttp",
    "beartype",
    "datasets",
    "langchain_core",
    "nat",
    "openai",
    "pandas",
    "polars",
    "pyarrow",
    "ray",
    "rich",
    "starlette",
    "torch",
    "transformers",
}
SCRIPT = """
import atexit, sys
from nat_dpo_pipeline.cli import dpo
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
if sys.argv[1:]:
    dpo()
"""


def _imported(folder: Path, *words: str) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    rows = [
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"Why {one}?", "response": f"{rank}", "score": rank}
        for one in range(5)
        for rank in range(5)
    ]
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _imported(folder, "pairs", "candidates.jsonl", "-o", "pairs")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("pairs", "candidates.jsonl", "-o", "again"),
        ("inspect", "pairs"),
        ("export", "pairs", "-f", "hh", "-o", "exported"),
        ("report", "pairs"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_over_a_small_file_imports_nothing_heavy(folder: Path, words: tuple[str, ...]) -> None:
    assert not _imported(folder, *words) & HEAVY


def test_inspect_reads_and_imports_nothing_for_writing(folder: Path) -> None:
    assert not _imported(folder, "inspect", "pairs") & {*HEAVY, "filelock", "numpy", "pydantic"}


@pytest.mark.parametrize("given", [None, "3"])
def test_numpy_starts_no_threads_unless_the_user_wants_them(folder: Path, given: str | None) -> None:
    script = (
        "import atexit, os\n"
        "from nat_dpo_pipeline.cli import dpo\n"
        "atexit.register(lambda: print(os.environ['OPENBLAS_NUM_THREADS']))\n"
        "dpo()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    command = [sys.executable, "-c", script, "pairs", "candidates.jsonl", "-o", "again"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == (given or "1")


@pytest.mark.parametrize("words", [(), ("--help",), ("generate", "--help"), ("status", "--help")])
def test_the_group_and_its_help_are_light(folder: Path, words: tuple[str, ...]) -> None:
    """NAT imports the group at every start."""
    assert not _imported(folder, *words) & {*HEAVY, "filelock", "jinja2", "pydantic", "yaml"}

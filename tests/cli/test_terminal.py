"""Whatever is in data, a command prints lines that a terminal only shows."""

import io
import json
from errno import ENOSPC
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.cli.terminal import errors_in_one_line, say
from nat_dpo_pipeline.errors import InputError

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202ebad\u2028\x9b31m"


def test_what_a_stream_cannot_write_is_escaped() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    say("✗ \x1b[1m ä", file=stream)
    stream.seek(0)
    assert stream.read() == "\\u2717 \\x1b[1m \\xe4\n"


@pytest.mark.parametrize(
    "error", [InputError("several\n lines and \x1b[1m"), OSError(ENOSPC, "No space left on device", "a\n\x1b[1m")]
)
def test_what_a_user_can_mend_is_one_line(error: Exception) -> None:
    with pytest.raises(click.ClickException) as raised, errors_in_one_line():
        raise error
    assert "\n" not in raised.value.message
    assert "\x1b" not in raised.value.message


@pytest.mark.parametrize("command", ["inspect", "pairs", "report", "export"])
def test_nothing_in_a_file_reaches_the_terminal_as_it_is(tmp_path: Path, command: str) -> None:
    rows = [
        {
            HOSTILE: 1,
            "example_id": f"e{HOSTILE}",
            "turn_id": "t",
            "prompt": [{"role": HOSTILE, "content": HOSTILE}],
            "candidates": [{"response": f"{HOSTILE}{one}", "score": one, "model": HOSTILE} for one in range(3)],
            "subtopic": HOSTILE,
        },
        {HOSTILE: HOSTILE},
    ]
    folder = tmp_path / HOSTILE.replace("\x07", "")
    folder.mkdir()
    (folder / "candidates.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[: 1 + (command == "inspect")])
    )
    (folder / "manifest.json").write_text(
        json.dumps({"generator": "nat-dpo-pipeline", "kind": "generation", "status": HOSTILE, "message": HOSTILE})
    )
    words = {
        "inspect": [folder / "candidates.jsonl", folder / "manifest.json"],
        "pairs": [folder / "candidates.jsonl", "-o", tmp_path / "out"],
        "report": [folder, "--text"],
        "export": [folder, "-o", tmp_path / "out", "-f", "trl"],
    }[command]
    done = CliRunner().invoke(dpo, [command, *map(str, words)])
    assert done.exit_code in (0, 1)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert all(line.isprintable() for line in done.output.split("\n"))

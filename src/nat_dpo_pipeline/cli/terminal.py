"""The output of commands, and the errors that end them. All text from data is printed through this module."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EPIPE
from typing import IO, Any

import click

from nat_dpo_pipeline.core.printable import printable
from nat_dpo_pipeline.errors import DPOPipelineError


def say(line: str, *, err: bool = False, file: IO[Any] | None = None) -> None:
    """Print a line; characters that the stream's encoding lacks are escaped."""
    stream = file or (sys.stderr if err else sys.stdout)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def say_all(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        say(line)


def in_one_line(error: object) -> str:
    """Return the message of an error for the user."""
    return printable(" ".join(str(error).split()))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn errors that a user can mend into click's exceptions, which end a command with one line and exit code 1."""
    try:
        yield
    except DPOPipelineError as error:
        raise click.ClickException(in_one_line(error)) from error
    except OSError as error:
        # A full disk, a removed file: code that knows more about the cause has raised a DPOPipelineError instead.
        if error.errno in (None, EPIPE):
            raise
        raise click.ClickException(in_one_line(error)) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nat":
            raise
        raise click.ClickException("this command needs the NeMo Agent Toolkit: pip install nvidia-nat") from error

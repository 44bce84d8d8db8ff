"""The work that each tool is given, and how it is timed. Standard library only: it runs in every tool's environment."""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """Ask each question `responses` times and have each response rated, with `concurrency` calls at once.

    `rating_prompt` is a Jinja template of `question` and `response`. What is written goes into `folder`. `together`
    allows one request for all responses to a question.
    """

    url: str
    model: str
    questions: list[str]
    responses: int
    rating_prompt: str
    concurrency: int
    folder: str
    together: bool = False

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def timed(run: Callable[[Work], int]) -> None:
    """Do the work that the first argument names, and print what it took as the last line.

    `run` gives the number of rated responses. Seconds of the processor are those of this process and its children.
    """
    work = Work(**json.loads(Path(sys.argv[1]).read_text()))
    started, used = time.perf_counter(), _processor_seconds()
    rated = run(work)
    wall, processor = time.perf_counter() - started, _processor_seconds() - used
    print("RESULT", json.dumps({"rated": rated, "wall": wall, "processor": processor}), flush=True)


def _processor_seconds() -> float:
    whose = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in whose)

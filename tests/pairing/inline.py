"""Tasks done in the process of the test, one after the other."""

from collections.abc import Iterator, Sequence
from typing import Any, Self

from nat_dpo_pipeline.pairing.tasks import Done, Task
from nat_dpo_pipeline.pairing.work import do


class InlineEngine:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        return (do(task) for task in tasks)

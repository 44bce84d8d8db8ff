"""What a report is made of: the turns of a run, and what was paired of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.core.pairs import PreferencePair


class LeftOut(NamedTuple):
    """Two candidates of a turn that are no pair of the dataset; `reason` is one word. The first scored no lower."""

    chosen: Candidate
    rejected: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class PairedTurn:
    """A turn with its pairs, and every other two of its candidates with the reason why they are none."""

    turn: Turn
    pairs: Sequence[PreferencePair]
    left_out: Sequence[LeftOut] = ()


#: The turns of a run from the first to the last, each time it is called; they are never all in memory.
PairedTurns = Callable[[], Iterable[PairedTurn]]


def model_of(candidate: Candidate) -> str:
    """Who wrote it, by the user's name for the model where there is one."""
    names = (candidate.metadata.get("llm"), candidate.metadata.get("model"), candidate.model)
    return next((clean(name) for name in names if isinstance(name, str) and name), "unknown")


def subtopic_of(turn: Turn) -> str:
    """What the question is about; empty where nobody said."""
    first = turn.candidates[0].metadata if turn.candidates else {}
    found = (first.get(name) for name in ("subtopic", "topic"))
    return next((clean(name) for name in found if isinstance(name, str) and name), "")


def asked(prompt: Prompt) -> str:
    """The last thing that was said in the prompt."""
    return clean(prompt if isinstance(prompt, str) else prompt[-1].content if prompt else "")


def clean(text: str) -> str:
    """`text` as it can be written in UTF-8: halves of surrogate pairs become question marks."""
    return text.encode(errors="replace").decode()

"""The pairs that the page can show, as JSON: texts a chunk of turns at a time, and what is filtered by in columns."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.report.document import json_for_html
from nat_dpo_pipeline.report.numbers import Numbers
from nat_dpo_pipeline.report.paired import LeftOut, PairedTurn, clean, model_of, subtopic_of

MOST_PAIRS = 50_000
MOST_CHARACTERS = 60_000_000
LEFT_OUT_SHOWN = 200
_TURNS_A_CHUNK = 100
_CHARACTERS_A_CHUNK = 500_000


def every_how_many(numbers: Numbers) -> int:
    """Of how many turns one is shown: all of them, unless they would make a page that nobody can open."""
    lengths = numbers.lengths
    characters = numbers.flow.pairs * (lengths.chosen.mean + lengths.rejected.mean)
    return max(1, ceil(numbers.flow.pairs / MOST_PAIRS), ceil(characters / MOST_CHARACTERS))


@dataclass(slots=True)
class PairIndex:
    """A column for each thing that pairs are filtered by; names are told once, and a reason of 0 means kept."""

    models: dict[str, int] = field(default_factory=dict)
    subtopics: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=lambda: {"": 0})
    chunk_starts: "array[int]" = field(default_factory=lambda: array("l"))
    turn_subtopics: "array[int]" = field(default_factory=lambda: array("l"))
    turns: "array[int]" = field(default_factory=lambda: array("l"))
    margins: "array[float]" = field(default_factory=lambda: array("d"))
    chosen: "array[int]" = field(default_factory=lambda: array("l"))
    rejected: "array[int]" = field(default_factory=lambda: array("l"))
    chosen_models: "array[int]" = field(default_factory=lambda: array("l"))
    rejected_models: "array[int]" = field(default_factory=lambda: array("l"))
    pair_reasons: "array[int]" = field(default_factory=lambda: array("l"))

    def to_json(self) -> dict[str, object]:
        return {
            "models": list(self.models),
            "subtopics": list(self.subtopics),
            "reasons": list(self.reasons),
            "chunkStarts": list(self.chunk_starts),
            "turnSubtopics": list(self.turn_subtopics),
            "turns": list(self.turns),
            "margins": [float(f"{margin:.6g}") for margin in self.margins],
            "chosen": list(self.chosen),
            "rejected": list(self.rejected),
            "chosenModels": list(self.chosen_models),
            "rejectedModels": list(self.rejected_models),
            "pairReasons": list(self.pair_reasons),
        }

    def add(self, turn: int, pair: Iterable[Candidate], places: Sequence[int], reason: str) -> None:
        chosen, rejected = pair
        self.turns.append(turn)
        self.margins.append(min(chosen.score - rejected.score, 1e308))
        self.chosen.append(places[0])
        self.rejected.append(places[1])
        self.chosen_models.append(_place(self.models, model_of(chosen)))
        self.rejected_models.append(_place(self.models, model_of(rejected)))
        self.pair_reasons.append(_place(self.reasons, reason))


def chunks(turns: Iterable[PairedTurn], step: int, index: PairIndex) -> Iterator[str]:
    """The texts of every `step`th turn that has something to show; `index` is complete when they have been taken."""
    left_out: Counter[str] = Counter()
    waiting: list[object] = []
    size = 0
    for paired in _every(turns, step):
        shown = [one for one in paired.left_out if _is_within_limit(one, left_out)]
        if not paired.pairs and not shown:
            continue
        if not waiting:
            index.chunk_starts.append(len(index.turn_subtopics))
        row, characters = _row(paired, shown, index)
        waiting.append(row)
        size += characters
        if len(waiting) >= _TURNS_A_CHUNK or size >= _CHARACTERS_A_CHUNK:
            yield json_for_html(waiting)
            waiting, size = [], 0
    if waiting:
        yield json_for_html(waiting)


def _every(turns: Iterable[PairedTurn], step: int) -> Iterator[PairedTurn]:
    return (paired for place, paired in enumerate(turns) if place % step == 0)


def _is_within_limit(one: LeftOut, left_out: Counter[str]) -> bool:
    left_out[one.reason] += 1
    return left_out[one.reason] <= LEFT_OUT_SHOWN


def _row(paired: PairedTurn, shown: Sequence[LeftOut], index: PairIndex) -> tuple[object, int]:
    turn = len(index.turn_subtopics)
    index.turn_subtopics.append(_place(index.subtopics, subtopic_of(paired.turn)))
    places: dict[int, int] = {}
    responses: list[list[object]] = []
    kept = [(chosen, rejected, "") for chosen, rejected, _ in paired.pairs]
    for chosen, rejected, reason in (*kept, *shown):
        for one in (chosen, rejected):
            if id(one) not in places:
                places[id(one)] = len(responses)
                responses.append([clean(one.response), one.score, *_behind(one)])
        index.add(turn, (chosen, rejected), (places[id(chosen)], places[id(rejected)]), reason)
    size = sum(len(str(text)) for text, *_ in responses)
    return [_prompt(paired.turn.prompt), responses], size


def _behind(candidate: Candidate) -> list[object]:
    """Return how many rollouts stand behind a reply, and its place in them; nothing for a reply that is no branch."""
    facts = [candidate.metadata.get(name) for name in ("rollouts", "message")]
    return facts if all(isinstance(fact, int) for fact in facts) else []


def _prompt(prompt: Prompt) -> object:
    if isinstance(prompt, str):
        return clean(prompt)
    if len(prompt) == 1 and prompt[0].role == "user":
        return clean(prompt[0].content)
    return [[clean(message.role), clean(message.text)] for message in prompt]


def _place(names: dict[str, int], name: str) -> int:
    return names.setdefault(name, len(names))

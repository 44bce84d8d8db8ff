"""Generation runs with everything odd in them, written to a run folder as `nat dpo generate` writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, DATASET
from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply, Usage
from nat_dpo_pipeline.generation.scorers import Score
from nat_dpo_pipeline.generation.settings import Price, StepName
from nat_dpo_pipeline.generation.steps import Item
from nat_dpo_pipeline.generation.turns import Flaw, Question, Response, Scored, Turn, make_turn
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.options import EngineName, PairedFiles, PairingOptions

ODD_TEXTS = (
    "</script><script>window.hacked = 1</script>",
    "<!-- <img src=x onerror='window.hacked = 2'> & \"quoted\" 'twice'",
    "{{ 7 * 7 }} {% raw %} ${7 * 7}",
    "half of a pair \ud83d and \udc00",
    "line\u2028and\u2029and\x85and\x0b\x0c\r\n",
    "\x00\x07\x1b[31mred\x1b]0;title\x07\x7f\x9b",
    "\u202eright to left\u2066 \u0301\u200b\ufeff\ufffe\U0010ffff",
    "long " * 200,
    "__proto__",
    "null",
    " ",
)
texts = st.sampled_from(ODD_TEXTS) | st.text(st.characters(), max_size=20)
scores = st.sampled_from([0.0, -0.0, 5e-324, 1e-12, 1e308, -1e308, 0.1 + 0.2, 0.3]) | st.floats(
    allow_nan=False, allow_infinity=False
)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from([*FailureReason, *Flaw, Path("a/b"), 2**64, -(2**70), 10**400])
)
_keys = texts | st.sampled_from([*FailureReason, *Flaw, None, True, 1.5, 2**70, (1, "a"), date(2026, 1, 2)])
values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(_keys, inner, max_size=2) | st.sets(_scalars, max_size=2)
    ),
    max_leaves=4,
)


@dataclass(frozen=True)
class OddRun:
    """What a run collected, as its steps hand it on."""

    turns: Sequence[tuple[str, Turn]]
    record: GenerationRecord
    failures: Sequence[Failure]
    configuration: dict[object, object]

    @property
    def responses(self) -> int:
        return sum(len(turn.candidates) + len(turn.unscored) for _, turn in self.turns)

    @property
    def flaws(self) -> dict[str, int]:
        """How many responses have each flaw, scored or not."""
        marks = [one.metadata["flaw"] for _, turn in self.turns for one in turn.candidates]
        marks += [one.response.flaw for _, turn in self.turns for one in turn.unscored]
        return {flaw: marks.count(flaw) for flaw in Flaw if flaw in marks}

    def write(self, folder: Path, builder: BuilderSettings) -> PairedFiles:
        """Write candidates, failures, pairs and manifest."""
        with RunFolder(folder) as run:
            self.record.on_failure = run.failed
            for failure in self.failures:
                self.record.add(failure)
            for place, (example_id, turn) in enumerate(self.turns):
                run.add(Item(turn, (place,)), example_id)
            run.write_candidates()
            configuration = {**self.configuration, "trajectory_builder": builder.model_dump(mode="json")}
            dataset = pair_as_set(
                [str(folder / CANDIDATES)],
                str(folder / DATASET),
                (builder, SplitSettings(), DatasetSettings()),
                PairingOptions(engine=EngineName.MEMORY, exact_split=True),
                configuration=configuration,
            )
            run.write_manifest(self.record, status="complete", configuration=configuration)
        return dataset


def response(
    question: Question, index: int, text: str, *, flaw: Flaw | None = None, llm: str = "writer", thoughts: str = ""
) -> Response:
    return Response(question, index, text, llm, f"{llm}/1", flaw, temperature=0.5, thoughts=thoughts, detail=text)


@st.composite
def _turns(draw: st.DrawFn, place: int) -> tuple[str, Turn]:
    messages = tuple(Message(draw(st.sampled_from(["user", "system", "odd \ud83d"])), draw(texts)) for _ in range(2))
    question = Question((*messages, Message("user", draw(texts))), draw(st.none() | texts), draw(st.none() | texts))
    found = [
        _scored(draw, response(question, index, draw(texts), flaw=draw(flaws), llm=draw(texts), thoughts=draw(texts)))
        for index in range(draw(st.integers(0, 4)))
    ]
    example, name = draw(texts), f"{place}{draw(texts)}"
    turn = make_turn(example, name, question, found, draw(st.none() | scores))
    candidates = [replace(one, metadata={**one.metadata, **draw(_metadata)}) for one in turn.candidates]
    return example, replace(turn, candidates=tuple(candidates))


_facts = st.sampled_from(["llm", "model", "subtopic", "topic", "agreement", "member_scores", "temperature", "id"])
_metadata = st.dictionaries(_facts | texts, values, max_size=2)


flaws = st.none() | st.sampled_from(list(Flaw))


def _scored(draw: st.DrawFn, of: Response) -> Scored:
    if draw(st.booleans()):
        members = draw(st.dictionaries(texts, scores, max_size=2))
        return Scored(of, Score(draw(scores), draw(st.dictionaries(texts, scores, max_size=2)), draw(texts), members))
    return Scored(of, None, draw(st.sampled_from([*FailureReason, *Flaw]) | texts), draw(st.none() | texts))


@st.composite
def odd_runs(draw: st.DrawFn) -> OddRun:
    """Runs in which each field holds whatever it may hold, and a failure for every reason."""
    record = GenerationRecord(prices={"writer": Price(prompt=draw(_prices), completion=draw(_prices))})
    for step, llm in draw(st.lists(st.tuples(texts, texts | st.just("writer")), max_size=3)):
        usage = Usage(draw(_tokens), draw(_tokens))
        record.spent(step, ChatReply("", "stop", llm, draw(texts), usage, {}, retries=draw(st.integers(0, 3))))
    record.counts.update(draw(st.dictionaries(texts, st.integers(0, 2**70), max_size=2)))
    record.stopped = draw(st.none() | texts)
    record.stood_in_for = draw(st.dictionaries(texts, texts, max_size=2))
    failures = [
        Failure(draw(_steps), draw(texts), reason, draw(texts), draw(st.none() | texts)) for reason in FailureReason
    ]
    turns = [draw(_turns(place)) for place in range(draw(st.integers(0, 4)))]
    return OddRun(turns, record, failures, draw(st.dictionaries(_keys, values, max_size=3)))


_tokens = st.integers(0, 10**8)
_prices = st.floats(0, allow_nan=False, allow_infinity=False)
_steps = st.sampled_from([*StepName, "of one's own \ud83d </script>"])


def run_of_everything() -> OddRun:
    """Return a run with a turn for each odd text, in which each flaw is scored once and missing a score once."""
    record = GenerationRecord(stopped=ODD_TEXTS[0])
    record.spent(StepName.RESPONSES, ChatReply("", "stop", ODD_TEXTS[0], ODD_TEXTS[1], Usage(1, 2), {}))
    marks = [None, *Flaw]
    turns = []
    for place, text in enumerate((*ODD_TEXTS, "very long " * 20_000)):
        question = Question((Message("user", f"What is {text}".encode(errors="replace").decode()),), text, text)
        scored = [
            Scored(
                response(question, index, f"{index} {text}", flaw=mark, llm=f"{text}{index % 2}"),
                Score(value, {}, text),
            )
            for index, (mark, value) in enumerate(zip(marks, (1e308, -1e308, *range(len(marks))), strict=False))
        ]
        missing = [Scored(response(question, 20 + index, text, flaw=one), None, one) for index, one in enumerate(Flaw)]
        turns.append((text, make_turn(text, f"turn {place}", question, [*scored, *missing], None)))
    failures = [
        Failure(StepName.RESPONSES, ODD_TEXTS[0], reason, ODD_TEXTS[3], ODD_TEXTS[5]) for reason in FailureReason
    ]
    return OddRun(turns, record, failures, {"odd": list(ODD_TEXTS), Flaw.EMPTY: 2**70})

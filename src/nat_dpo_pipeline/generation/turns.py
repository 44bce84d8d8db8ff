"""What the steps of the recipe hand on: subtopics, questions, samples, responses, scores, turns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rendering import render_prompt
from nat_dpo_pipeline.core.rewards import agreement
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.record import FailureReason
from nat_dpo_pipeline.generation.scorers import Score


class Claim:
    """Whether something that is on its way already stands; until those before it are known it may be a duplicate.

    A question `is_asked` once a model is to respond to it; `repeated` counts the responses that were withdrawn.
    """

    __slots__ = ("is_asked", "is_settled", "is_withdrawn", "repeated")

    def __init__(self, *, is_settled: bool = True) -> None:
        self.is_settled = is_settled
        self.is_withdrawn = False
        self.is_asked = False
        self.repeated = 0

    def settle(self) -> None:
        self.is_settled = True

    def withdraw(self) -> None:
        self.is_settled = self.is_withdrawn = True


@dataclass(frozen=True, slots=True)
class Subtopic:
    """A part of a topic to ask questions about."""

    topic: str
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt to respond to, and where it came from."""

    messages: tuple[Message, ...]
    topic: str | None = None
    subtopic: str | None = None
    claim: Claim = field(default_factory=Claim, compare=False, repr=False)

    @property
    def text(self) -> str:
        return self.messages[-1].content

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the times that a question is asked, and who is asked."""

    question: Question
    index: int
    model: ChatModel

    def __str__(self) -> str:
        return self.question.text


class Flaw(StrEnum):
    """Why a response is not scored unless it is to be kept."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    ONLY_THOUGHTS = "only_thoughts"
    REFUSAL = "refusal"
    FILTERED = "filtered"
    TOOL_CALL = "tool_call"
    CONTENT_NOT_TEXT = "content_not_text"
    UNKNOWN_ENDING = "unknown_ending"

    @property
    def failure(self) -> FailureReason:
        """What a response that is not scored for it is counted under."""
        return _FAILURES[self]


_FAILURES = {
    Flaw.EMPTY: FailureReason.EMPTY_REPLY,
    Flaw.TRUNCATED: FailureReason.TRUNCATED_REPLY,
    Flaw.ONLY_THOUGHTS: FailureReason.ONLY_THOUGHTS,
    Flaw.REFUSAL: FailureReason.REFUSAL,
    Flaw.FILTERED: FailureReason.FILTERED_REPLY,
    Flaw.TOOL_CALL: FailureReason.TOOL_CALL,
    Flaw.CONTENT_NOT_TEXT: FailureReason.CONTENT_NOT_TEXT,
    Flaw.UNKNOWN_ENDING: FailureReason.UNKNOWN_ENDING,
}


@dataclass(frozen=True, slots=True)
class Response:
    """A response before it is scored, apart from what the model thought before it.

    `llm` is the user's name of the model, `model` what the server calls it; `detail` is what the flaw follows from.
    """

    question: Question
    index: int
    text: str
    llm: str
    model: str
    flaw: Flaw | None = None
    temperature: float | None = None
    claim: Claim = field(default_factory=Claim, compare=False, repr=False)
    thoughts: str = ""
    detail: str | None = None

    def __str__(self) -> str:
        return self.question.text


@dataclass(frozen=True, slots=True)
class Scored:
    """A response with its score, or with the reason why it has none: one word, and as `detail` what is known of it."""

    response: Response
    score: Score | None = None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with all its responses, for scorers that compare them."""

    question: Question
    responses: tuple[Response, ...]

    def __str__(self) -> str:
        return self.question.text


@dataclass(frozen=True, slots=True)
class Turn:
    """A question with all that was said to it. `set_aside` is why its candidates are not to be paired."""

    turn_id: str
    question: Question
    candidates: tuple[Candidate, ...]
    unscored: tuple[Scored, ...] = ()
    set_aside: str | None = None


def make_turn(
    example_id: str, turn_id: str, question: Question, scored: Sequence[Scored], min_best_score: float | None
) -> Turn:
    """The turn of a question; of an ensemble's members each candidate says how far they agree on it."""
    ranked = [(one.response, one.score) for one in scored if one.score is not None]
    agreements = agreement([score.members for _, score in ranked])
    candidates = tuple(
        _candidate(example_id, turn_id, response, score, agreed)
        for (response, score), agreed in zip(ranked, agreements, strict=True)
    )
    unscored = tuple(one for one in scored if one.score is None)
    return Turn(turn_id, question, candidates, unscored, _set_aside(question, candidates, min_best_score))


def _set_aside(question: Question, candidates: Sequence[Candidate], min_best_score: float | None) -> str | None:
    try:
        render_prompt(question.messages)
    except CandidateRefused as refused:  # a model's question may hold half of a surrogate pair
        return refused.reason
    best = max((candidate.score for candidate in candidates), default=None)
    is_poor = min_best_score is not None and best is not None and best < min_best_score
    return "below_min_best_score" if is_poor else None


def _candidate(example_id: str, turn_id: str, response: Response, score: Score, agreed: float | None) -> Candidate:
    question = response.question
    return Candidate(
        example_id=example_id,
        turn_id=turn_id,
        candidate_index=response.index,
        prompt=question.messages,
        response=response.text,
        score=score.value,
        attributes=score.attributes,
        model=response.model,
        metadata={
            "topic": question.topic,
            "subtopic": question.subtopic,
            "llm": response.llm,
            "reward_model": score.model,
            "flaw": response.flaw,
            **({"reasoning": response.thoughts} if response.thoughts else {}),
            **({} if response.temperature is None else {"temperature": response.temperature}),
            **({"member_scores": dict(score.members), "agreement": agreed} if score.members else {}),
        },
    )

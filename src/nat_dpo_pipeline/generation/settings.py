"""Settings of the recipe; light, so that configurations can import them."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, FiniteFloat, field_validator

from nat_dpo_pipeline.strict import StrictConfig

Temperature = Annotated[FiniteFloat, Field(ge=0.0)]
Temperatures = Annotated[list[Temperature], Field(min_length=1)]
# Set elsewhere, or what would change the form of the reply.
_OURS = frozenset(("messages", "model", "n", "stream", "stream_options"))
_PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "reasoning_effort")


class StepName(StrEnum):
    """The steps of the recipe, and the reading of rows that need none."""

    INPUT = "input"
    SUBTOPICS = "subtopics"
    QUESTIONS = "questions"
    RESPONSES = "responses"
    REWARDS = "rewards"


class ResponseMode(StrEnum):
    """Both responses in one reply, as the recipe has it, or one call per response."""

    PAIRED = "paired"
    INDEPENDENT = "independent"


class Spread(StrEnum):
    """How the calls of a step are spread over the members of its pool."""

    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    ALL = "all"


class JournalBy(StrEnum):
    """Key of a finished call in a journal: its model, or the address of the model's server too."""

    MODEL = "model"
    SERVER = "server"


class AskTogether(StrEnum):
    """Whether samples of one question are asked for in one request."""

    AUTO = "auto"
    NEVER = "never"


class InputKind(StrEnum):
    """What a plain text input is; AUTO takes a text that ends with a question mark for a question."""

    AUTO = "auto"
    TOPIC = "topic"
    QUESTION = "question"


class ExtraBody(StrictConfig):
    """What a request says besides what is said elsewhere."""

    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="More parameters for the request's body, as the server knows them."
    )

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_request_what_it_is(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OURS & body.keys()):
            raise ValueError(f"{taken[0]!r} cannot be set here: replies would not be read right")
        return body


class _AnySampling(ExtraBody):
    """What is not given is as the llm entry has it."""

    spoken_of_as: ClassVar[str | None] = "sampling"
    model_config = ConfigDict(frozen=True)

    top_p: float | None = Field(default=None, gt=0.0, le=1.0, description="Share of the likeliest tokens to draw from.")
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens after which a reply is cut.")
    reasoning_effort: str | None = Field(
        default=None, min_length=1, description="How long a reasoning model thinks: `low`, `high`, or what it knows."
    )


class Sampling(_AnySampling):
    """How a call is sampled. What is not given is as the llm entry has it."""

    temperature: Temperature | None = Field(default=None, description="0: the likeliest reply, as far as it goes.")
    seed: int | None = Field(default=None, description="A call that is made again has the next one.")

    def given(self) -> dict[str, object]:
        """Return the parameters that are set, as the body of a request has them, without `extra_body`."""
        values = ((name, getattr(self, name)) for name in _PARAMETERS)
        return {name: value for name, value in values if value is not None}


#: Nothing is set, so that the model's own settings hold. Not validated, as that would build validators at import.
AS_CONFIGURED = Sampling.model_construct()


class StepSampling(_AnySampling):
    """How the calls of a step are sampled. What is not given is as the llm entry has it."""

    temperature: Temperature | Temperatures | None = Field(
        default=None, description="Of several the n-th response to a question has the n-th, then again the first."
    )
    seed: int | None = Field(default=None, description="Instead of the workflow's `seed`.")

    @property
    def temperatures(self) -> list[float]:
        given = self.temperature
        return given if isinstance(given, list) else [] if given is None else [given]

    def of_call(self, temperature: float | None, seed: int | None) -> Sampling:
        """Return the sampling of one call of the step."""
        return Sampling.model_construct(**{**dict(self), "temperature": temperature, "seed": seed})


class StepSamplings(StrictConfig):
    """Sampling by step."""

    spoken_of_as: ClassVar[str | None] = "sampling"

    subtopics: StepSampling = Field(default_factory=StepSampling, description="Of the list of subtopics.")
    questions: StepSampling = Field(default_factory=StepSampling, description="Of the lists of questions.")
    responses: StepSampling = Field(default_factory=StepSampling, description="Of the responses.")

    def of(self, step: StepName) -> StepSampling:
        """Return that of a step; nothing is set for the others."""
        return getattr(self, step, None) or StepSampling.model_construct()


class Price(StrictConfig):
    """What a model costs, in any one currency."""

    prompt: FiniteFloat = Field(ge=0.0, description="For a million prompt tokens.")
    completion: FiniteFloat = Field(ge=0.0, description="For a million completion tokens.")


class RecipeSettings(StrictConfig):
    """How much is asked for, and what becomes of it."""

    n_subtopics: int = Field(default=10, ge=1, le=1000, description="Subtopics to ask for.")
    n_questions: int = Field(default=10, ge=1, le=1000, description="Questions to ask for, per subtopic.")
    responses: ResponseMode = Field(
        default=ResponseMode.PAIRED,
        description="`paired`: two responses in one reply, as NVIDIA's recipe; `independent`: one call per response.",
    )
    n_responses: int = Field(
        default=2, ge=2, le=256, description="Responses per question in `independent` mode; `paired` always has two."
    )
    max_top_ups: int = Field(
        default=3,
        ge=0,
        le=100,
        description="How often more is asked for where a list is short or unreadable, or a response repeats another; "
        "what is missing after that is reported.",
    )
    near_duplicate: float = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="Subtopics and questions count as the same when so much of their words is; 1.0: only with the same "
        "words, in any order.",
    )
    sampling: StepSamplings = Field(
        default_factory=StepSamplings, description="Temperature and the like by step: subtopics, questions, responses."
    )
    keep_truncated: bool = Field(
        default=False,
        description="Score responses that were cut at max_tokens too; a cut answer teaches to stop mid-sentence. To "
        "pair them set `pair_flawed` of the trajectory builder.",
    )
    keep_refusals: bool = Field(
        default=False,
        description="Score refusals too; for data that is to teach when to refuse, with `pair_flawed` of the builder.",
    )
    seed: int | None = Field(
        default=None,
        description="Sent with every writer and responder call; the n-th response to a question adds n to it.",
    )
    min_best_score: FiniteFloat | None = Field(
        default=None,
        description="Questions whose best response scores less are not paired; NVIDIA's notebook has 3.0 of "
        "helpfulness. Leave it out for reward models whose scores mean nothing across prompts.",
    )

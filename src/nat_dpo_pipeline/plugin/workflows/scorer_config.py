"""What scores responses, in a configuration: one of several kinds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from nat.plugin_api import FunctionRef, LLMRef
from pydantic import BeforeValidator, Field, FiniteFloat, field_validator, model_validator

from nat_dpo_pipeline.core.rewards import Combination, GenRMFormat, weights_named
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.settings import ExtraBody, Sampling
from nat_dpo_pipeline.strict import StrictConfig


def names_of(given: Any) -> list[str]:
    """One name of an llm, or several, each once, as a list. Raises ValueError."""
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"expected the name of an llm or a list of such names, got {given!r:.80}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]!r} is named more than once; `limits` says how much at once a model is asked")
    return names


def _one_or_several(given: Any) -> Any:
    names_of(given)
    return given


# The list comes first: an LLMRef can be made of anything, also of the text of a list.
LLM = Annotated[list[LLMRef] | LLMRef, Field(union_mode="left_to_right"), BeforeValidator(_one_or_several)]
_LLM = "The llm that is asked; a list of them stands for replicas of one model, which share the work."
_CRITERIA = "What the judge is to look at, in a sentence or more; when not given: correct, helpful, complete and clear."


class _AskingConfig(StrictConfig):
    """A scorer that asks a model."""

    llm: LLM = Field(description=_LLM)


class _SampledConfig(_AskingConfig):
    """A scorer whose model writes its verdict."""

    sampling: Sampling = Field(
        default_factory=Sampling, description="Temperature and the like of the calls that score."
    )


class RewardModelConfig(_SampledConfig):
    """A reward model behind chat completions that gives attributes, such as Nemotron-4-340B-Reward, or one number."""

    kind: Literal["reward_model"]
    weights: str | dict[str, FiniteFloat] = Field(
        default="helpfulness",
        description="How attributes become one score: `helpfulness` (NVIDIA's notebook), `nemotron-4-340b`, "
        "`llama3-70b-steerlm` (the model cards' weights), or weights of your own by attribute. A model that gives one "
        "number needs none.",
    )
    user_suffix: str | None = Field(
        default=None,
        description="Added to the last user turn after a space, for example `/nothink` for Qwen-3-Nemotron-32B-Reward.",
    )

    @field_validator("weights")
    @classmethod
    def _weights_weigh_something(cls, weights: str | dict[str, float]) -> str | dict[str, float]:
        try:
            named = weights_named(weights) if isinstance(weights, str) else weights
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        if not any(named.values()):
            raise ValueError("with such weights every score would be 0")
        return weights


class PrincipleConfig(_AskingConfig):
    """A model that says how far a response satisfies a principle, such as Llama-3.3-Nemotron-70B-Reward-Principle.

    The score is the log-odds of Yes against No, so its server must give log-probabilities.
    """

    kind: Literal["principle"]
    principle: str = Field(min_length=1, description="What to hold a response to, for example `correctness`.")


class PoolingConfig(_AskingConfig, ExtraBody):
    """A scalar reward model that vLLM or SGLang serves under `/pooling`."""

    kind: Literal["pooling"]


class ClassifyConfig(_AskingConfig, ExtraBody):
    """A reward model with a single output that vLLM or SGLang serves under `/classify`."""

    kind: Literal["classify"]


class RatingJudgeConfig(_SampledConfig):
    """An ordinary language model that rates each response. Ratings tie often: a comparison tells more apart."""

    kind: Literal["rating_judge"]
    lowest: FiniteFloat = Field(default=1.0, description="The worst rating.")
    highest: FiniteFloat = Field(default=10.0, description="The best rating.")
    criteria: str | None = Field(default=None, min_length=1, description=_CRITERIA)

    @model_validator(mode="after")
    def _scale_goes_up(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest is {self.lowest:g}, which is not below highest, {self.highest:g}")
        return self


class PairwiseJudgeConfig(_SampledConfig):
    """An ordinary language model that compares every two responses to a question, in both orders.

    The score is the share of the others that a response beats, a tie being half of one; what one order says and the
    other does not is a tie. n responses take n × (n - 1) calls.
    """

    kind: Literal["pairwise_judge"]
    criteria: str | None = Field(default=None, min_length=1, description=_CRITERIA)


class GenRMConfig(_SampledConfig):
    """A generative reward model that scores and ranks every two responses to a question, in both orders.

    Two responses have scores from 1 to 5, with the winner's above the loser's; more have the share of the others that
    each beats, with its own score as the attribute `individual`. n responses take n × (n - 1) calls.
    """

    kind: Literal["genrm"]
    llm: LLM = Field(
        description=_LLM + " It reasons at length before it scores: give it a `max_tokens` of 16,384 or so."
    )
    format: GenRMFormat = Field(description="Which model's answers it gives.")


class FunctionScorerConfig(StrictConfig):
    """A function of the workflow that scores one response.

    It is called with `prompt`, a list of messages with `role` and `content`, and `response`, a text; so it takes two
    arguments of these names, a model with these fields, or a dict. It returns a number, or `score` and optionally
    `attributes` (numbers by name) as a dict, a model or JSON.
    """

    kind: Literal["function"]
    function: FunctionRef = Field(description="Its name under `functions`.")


MemberConfig = Annotated[
    RewardModelConfig | PrincipleConfig | PoolingConfig | ClassifyConfig | RatingJudgeConfig | FunctionScorerConfig,
    Field(discriminator="kind"),
]


class EnsembleConfig(StrictConfig):
    """Several scorers of single responses that score together.

    A response that one of them cannot score has no score: with a member less it would be on another scale than those
    it competes with.
    """

    kind: Literal["ensemble"]
    combine: Combination = Field(
        default=Combination.MEAN,
        description="`mean` of the members' scores, or the `worst` of them. Nothing is rescaled: give it members whose "
        "scores are on one scale.",
    )
    members: dict[str, MemberConfig] = Field(
        min_length=2, description="Scorers by a name of yours, which their scores are recorded under."
    )

    @field_validator("members", mode="before")
    @classmethod
    def _members_score_single_responses(cls, members: Any) -> Any:
        for name, member in members.items() if isinstance(members, Mapping) else ():
            kind = member.get("kind") if isinstance(member, Mapping) else getattr(member, "kind", None)
            if kind in ("pairwise_judge", "genrm", "ensemble"):
                raise ValueError(f"{name!r} is of kind {kind!r}, but a member of an ensemble scores single responses")
        return members


ScorerConfig = Annotated[
    RewardModelConfig
    | PrincipleConfig
    | PoolingConfig
    | ClassifyConfig
    | RatingJudgeConfig
    | PairwiseJudgeConfig
    | GenRMConfig
    | FunctionScorerConfig
    | EnsembleConfig,
    Field(discriminator="kind"),
]

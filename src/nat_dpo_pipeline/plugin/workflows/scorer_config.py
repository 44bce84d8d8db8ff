"""The kinds of scorer in a configuration: settings of each, the scorer that it opens, and what that asks."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self, cast

from nat.plugin_api import FunctionRef
from pydantic import Field, FiniteFloat, field_validator, model_validator

from nat_dpo_pipeline.core.rewards import Combination, GenRMFormat, weights_named
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.call_checks import ToolCallScorer
from nat_dpo_pipeline.generation.chat import ChatModel, Route
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.judges import (
    DEFAULT_CRITERIA,
    GenerativeRewardModel,
    GroupJudge,
    PairwiseJudge,
    RatingJudge,
)
from nat_dpo_pipeline.generation.plan import GENRM_TOKENS, JUDGEMENT_TOKENS, REWARD_TOKENS, Asked, Scoring
from nat_dpo_pipeline.generation.prompts import load
from nat_dpo_pipeline.generation.scorers import PoolingScorer, PrincipleScorer, RewardModelScorer, Scorer, TurnScorer
from nat_dpo_pipeline.generation.settings import ExtraBody, Sampling
from nat_dpo_pipeline.plugin.workflows.scorer_settings import (
    LLM,
    FunctionNamed,
    Opened,
    ScorerConfig,
    ScorerSettings,
    names_of,
)
from nat_dpo_pipeline.plugin.workflows.scorers import FunctionScorer

_LLM = "The llm that is asked; a list of them stands for replicas of one model, which share the work."
_CRITERIA = "What the judge is to look at, in a sentence or more; when not given: correct, helpful, complete and clear."


class _AskingConfig(ScorerSettings):
    """A scorer that asks a model."""

    llm: LLM = Field(description=_LLM)

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        yield Scoring(asked(names_of(self.llm)), REWARD_TOKENS)

    def _model(self, opened: Opened) -> ChatModel:
        return opened([str(name) for name in names_of(self.llm)])


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

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        weights = weights_named(self.weights) if isinstance(self.weights, str) else self.weights
        return RewardModelScorer(self._model(opened), weights, self.user_suffix, self.sampling)


class PrincipleConfig(_AskingConfig):
    """A model that says how far a response satisfies a principle, such as Llama-3.3-Nemotron-70B-Reward-Principle.

    The score is the log-odds of Yes against No, so its server must give log-probabilities.
    """

    kind: Literal["principle"]
    principle: str = Field(min_length=1, description="What to hold a response to, for example `correctness`.")

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return PrincipleScorer(self._model(opened), self.principle)


class PoolingConfig(_AskingConfig, ExtraBody):
    """A scalar reward model that vLLM or SGLang serves under `/pooling`."""

    kind: Literal["pooling"]

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return PoolingScorer(self._model(opened), extra_body=self.extra_body)


class ClassifyConfig(_AskingConfig, ExtraBody):
    """A reward model with a single output that vLLM or SGLang serves under `/classify`."""

    kind: Literal["classify"]

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return PoolingScorer(self._model(opened), Route.CLASSIFY, self.extra_body)


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

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return RatingJudge(
            self._model(opened),
            lowest=self.lowest,
            highest=self.highest,
            criteria=self.criteria or DEFAULT_CRITERIA,
            sampling=self.sampling,
        )

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        instructions = len(load("judge_rating").text) + len(self.criteria or DEFAULT_CRITERIA)
        yield Scoring(asked(names_of(self.llm)), JUDGEMENT_TOKENS, instructions)


class PairwiseJudgeConfig(_SampledConfig):
    """An ordinary language model that compares every two responses to a question, in both orders.

    The score is the share of the others that a response beats, a tie being half of one; what one order says and the
    other does not is a tie. n responses take n × (n - 1) calls.
    """

    compares: ClassVar[bool] = True

    kind: Literal["pairwise_judge"]
    criteria: str | None = Field(default=None, min_length=1, description=_CRITERIA)

    def open(self, opened: Opened, function_named: FunctionNamed) -> TurnScorer:
        criteria = self.criteria or DEFAULT_CRITERIA
        return PairwiseJudge(self._model(opened), criteria=criteria, sampling=self.sampling)

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        instructions = len(load("judge_pairwise").text) + len(self.criteria or DEFAULT_CRITERIA)
        yield Scoring(asked(names_of(self.llm)), JUDGEMENT_TOKENS, instructions, compares=True)


class GroupJudgeConfig(_SampledConfig):
    """An ordinary language model that scores all responses to a question from 0 to 1 in one call.

    One call a question, so that it costs least of the judges; the conversation is in it once.
    """

    compares: ClassVar[bool] = True

    kind: Literal["group_judge"]
    criteria: str | None = Field(default=None, min_length=1, description=_CRITERIA)

    def open(self, opened: Opened, function_named: FunctionNamed) -> TurnScorer:
        criteria = self.criteria or DEFAULT_CRITERIA
        return GroupJudge(self._model(opened), criteria=criteria, sampling=self.sampling)

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        instructions = len(load("judge_group").text) + len(self.criteria or DEFAULT_CRITERIA)
        yield Scoring(asked(names_of(self.llm)), JUDGEMENT_TOKENS, instructions, compares=True, together=True)


class ToolCallsConfig(ScorerSettings):
    """Checks tool calls without a model: the score is the share of a reply's calls whose tool is on offer and whose
    arguments fit the tool's JSON schema; 1 for a reply without calls. Needs the extra `tools`."""

    kind: Literal["tool_calls"]

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return ToolCallScorer()


class GenRMConfig(_SampledConfig):
    """A generative reward model that scores and ranks every two responses to a question, in both orders.

    Two responses have scores from 1 to 5, with the winner's above the loser's; more have the share of the others that
    each beats, with its own score as the attribute `individual`. n responses take n × (n - 1) calls.
    """

    compares: ClassVar[bool] = True

    kind: Literal["genrm"]
    llm: LLM = Field(
        description=_LLM + " It reasons at length before it scores: give it a `max_tokens` of 16,384 or so."
    )
    format: GenRMFormat = Field(description="Which model's answers it gives.")

    def open(self, opened: Opened, function_named: FunctionNamed) -> TurnScorer:
        return GenerativeRewardModel(self._model(opened), self.format, self.sampling)

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        yield Scoring(asked(names_of(self.llm)), GENRM_TOKENS, compares=True)


class FunctionScorerConfig(ScorerSettings):
    """A function of the workflow that scores one response.

    It is called with `prompt`, a list of messages with `role` and `content`, and `response`, a text; so it takes two
    arguments of these names, a model with these fields, or a dict. It returns a number, or `score` and optionally
    `attributes` (numbers by name) as a dict, a model or JSON.
    """

    kind: Literal["function"]
    function: FunctionRef = Field(description="Its name under `functions`.")

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        return FunctionScorer(str(self.function), function_named)


class EnsembleConfig(ScorerSettings):
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
    members: dict[str, ScorerConfig] = Field(
        min_length=2, description="Scorers by a name of yours, which their scores are recorded under."
    )

    @field_validator("members")
    @classmethod
    def _members_score_single_responses(cls, members: dict[str, ScorerSettings]) -> dict[str, ScorerSettings]:
        for name, member in members.items():
            if member.compares or isinstance(member, EnsembleConfig):
                raise ValueError(
                    f"{name!r} is of kind {member.kind!r}, but a member of an ensemble scores single responses"
                )
        return members

    def open(self, opened: Opened, function_named: FunctionNamed) -> Scorer:
        members = {name: member.open(opened, function_named) for name, member in self.members.items()}
        return EnsembleScorer(cast(dict[str, Scorer], members), self.combine)

    def asks(self, asked: Callable[[list[str]], Asked]) -> Iterator[Scoring]:
        for member in self.members.values():
            yield from member.asks(asked)


KINDS: Mapping[str, type[ScorerSettings]] = MappingProxyType(
    {
        "reward_model": RewardModelConfig,
        "principle": PrincipleConfig,
        "pooling": PoolingConfig,
        "classify": ClassifyConfig,
        "rating_judge": RatingJudgeConfig,
        "pairwise_judge": PairwiseJudgeConfig,
        "group_judge": GroupJudgeConfig,
        "genrm": GenRMConfig,
        "tool_calls": ToolCallsConfig,
        "function": FunctionScorerConfig,
        "ensemble": EnsembleConfig,
    }
)

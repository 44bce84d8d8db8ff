"""What the `best_of_n` middleware can be told. Unknown keys are refused."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Self

from nat.plugin_api import FunctionMiddlewareBaseConfig
from pydantic import ConfigDict, Field, FiniteFloat, field_validator, model_validator

from nat_dpo_pipeline.generation.settings import Price, Sampling, Temperatures
from nat_dpo_pipeline.plugin.workflow_config import ModelLimitsConfig, functions_in, llms_in
from nat_dpo_pipeline.plugin.workflows.scorer_settings import ScorerSettings, scorer_of
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME, StrictConfig


class Returned(StrEnum):
    """Which of the results the caller gets."""

    BEST = "best"
    FIRST = "first"
    RANDOM = "random"


class PromptSource(StrEnum):
    """Where the prompt of the candidates is taken from."""

    AUTO = "auto"
    LLM = "llm"
    INPUT = "input"


class VaryConfig(StrictConfig):
    """How the calls differ: by the sampling of one llm under the function.

    It reaches LangChain clients (`builder.get_llm(…, wrapper_type="langchain")`) and models of
    `nat_dpo_pipeline.plugin.llms.open_llm`; what asks in another way finds it in `plugin.varying.sampling_for`.
    """

    # A plain name: see `scorer` of the middleware.
    llm: str = Field(min_length=1, description="The name of the llm entry.")
    temperatures: Temperatures | None = Field(
        default=None, description="The n-th call has the n-th, then again the first."
    )
    seed: int | None = Field(default=None, description="The first call has it, each further one the next number.")

    @model_validator(mode="after")
    def _varies_something(self) -> Self:
        if self.temperatures is None and self.seed is None:
            raise ValueError(f"vary names the llm {self.llm!r} and nothing to vary: give temperatures or a seed")
        return self

    def sampling(self, call: int) -> Sampling:
        """That of call number `call`, from 0."""
        temperature = self.temperatures[call % len(self.temperatures)] if self.temperatures else None
        return Sampling(temperature=temperature, seed=None if self.seed is None else self.seed + call)


class CeilingConfig(StrictConfig):
    """How much may be spent; after that, calls go straight through. What is under way is not cut off."""

    calls: int | None = Field(default=None, ge=1, description="Calls of the function that are made n times.")
    cost: FiniteFloat | None = Field(default=None, gt=0.0, description="What scoring costs, in the unit of `prices`.")
    hours: FiniteFloat | None = Field(
        default=None, gt=0.0, description="In so many hours, then anew; without it, in the life of the process."
    )

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.calls is None and self.cost is None:
            raise ValueError("a ceiling needs calls or cost")
        return self


class BestOfNConfig(FunctionMiddlewareBaseConfig, StrictConfig, name="best_of_n"):
    """Calls the function n times, scores the results, records them as candidates, and returns one of them."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    n: int = Field(default=2, ge=1, le=256, description="Calls of the function for each call that is sampled.")
    # Not a ScorerConfig: NAT reads references out of the fields of a middleware and then builds it after functions
    # that it wraps, which it does not read out of those, and which then do not find it.
    scorer: dict[str, Any] | None = Field(
        default=None, description="What scores the results: as the `scorer` of the `preference_data` workflow."
    )
    allow_repeated_calls: bool = Field(
        default=False,
        description="The function may be called several times for one call: it books, sends and stores nothing.",
    )
    vary: VaryConfig | None = Field(
        default=None, description="How the calls differ; without it they are repeated as they are."
    )
    # A keyword of Python cannot name a field.
    returns: Returned = Field(
        default=Returned.BEST,
        alias="return",
        description="The `best` result, the `first` (what the caller got without this, and when), or a `random` one. "
        "In Python `returns`.",
    )
    prompt: PromptSource = Field(
        default=PromptSource.AUTO,
        description="`auto`: what the model saw where all calls saw the same, else the input; `llm`: only what the "
        "model saw, else nothing is recorded; `input`: the function's input.",
    )
    sample_rate: float = Field(
        default=1.0, ge=0.0, le=1.0, description="The share of calls that this is done for; others go straight through."
    )
    seed: int | None = Field(default=None, description="Makes `sample_rate` and `return: random` repeatable.")
    calls_at_once: int | None = Field(default=None, ge=1, description="Of the n calls so many at once; all otherwise.")
    max_seconds: FiniteFloat | None = Field(
        default=None,
        gt=0.0,
        description="Calls that take longer are given up, unless there is no result yet, or the one to return.",
    )
    max_scoring_seconds: FiniteFloat = Field(
        default=60.0, gt=0.0, description="What is not scored by then, counted from the last call, has no score."
    )
    max_unfinished: int = Field(
        default=100,
        ge=1,
        description="Turns whose caller has the answer and that are not recorded yet; while there are so many, calls "
        "go straight through.",
    )
    ceiling: CeilingConfig | None = Field(default=None, description="How much may be spent.")
    limits: dict[str, ModelLimitsConfig] = Field(
        default_factory=dict, description="Limits of the scorer's models by the name of the llm."
    )
    prices: dict[str, Price] = Field(
        default_factory=dict, description="Prices of the scorer's models by the name of the llm."
    )
    max_concurrency: int = Field(default=8, ge=1, description="Scoring calls under way at once, for each model.")
    request_timeout: FiniteFloat = Field(default=60.0, gt=0.0, description="Seconds until a scoring call is given up.")
    max_retries: int = Field(default=2, ge=0, description="Retries of a scoring call that failed.")
    step_name: str = Field(default=DEFAULT_STEP_NAME, min_length=1, description="Name of the TTC steps.")

    @field_validator("scorer")
    @classmethod
    def _is_a_scorer(cls, scorer: dict[str, Any] | None) -> dict[str, Any] | None:
        if scorer is not None:
            scorer_of(scorer)
        return scorer

    @model_validator(mode="after")
    def _may_repeat(self) -> Self:
        if self.n > 1 and not self.allow_repeated_calls:
            raise ValueError(
                f"best_of_n calls the function {self.n} times for each sampled call. If it has no side effects, say "
                "so with allow_repeated_calls: true"
            )
        return self

    @model_validator(mode="after")
    def _scorer_fits(self) -> Self:
        scorer = self.scorer_config()
        if scorer is None and self.n > 1:
            raise ValueError(f"best_of_n.n is {self.n}, but there is no scorer to tell the results apart")
        if self.n == 1 and scorer is not None and scorer.compares:
            raise ValueError(f"best_of_n.n is 1, but a scorer of kind {scorer.kind!r} compares results")
        return self

    @model_validator(mode="after")
    def _names_are_used(self) -> Self:
        used = sorted(llms_in(self.scorer_config()))
        for field, names in (("limits", self.limits), ("prices", self.prices)):
            if unknown := sorted(set(names) - set(used)):
                raise ValueError(f"{field} name {unknown[0]!r}, which the scorer does not use")
        if self.ceiling is not None and self.ceiling.cost is not None:
            self._check_cost_is_known(used)
        return self

    def _check_cost_is_known(self, llms: list[str]) -> None:
        if functions := sorted(functions_in(self.scorer_config())):
            raise ValueError(f"ceiling.cost: nobody knows what the function {functions[0]!r} costs; use ceiling.calls")
        if not llms or (unpriced := sorted(set(llms) - set(self.prices))):
            raise ValueError(f"ceiling.cost needs prices of {', '.join(unpriced) if llms else 'a scorer'}")

    def scorer_config(self) -> ScorerSettings | None:
        return None if self.scorer is None else scorer_of(self.scorer)

    def names(self) -> Iterator[tuple[str, str]]:
        """What the configuration refers to: the group, `llms` or `functions`, and the name in it."""
        scorer = self.scorer_config()
        yield from (("llms", name) for name in llms_in(scorer))
        yield from (("functions", name) for name in functions_in(scorer))
        if self.vary is not None:
            yield "llms", self.vary.llm

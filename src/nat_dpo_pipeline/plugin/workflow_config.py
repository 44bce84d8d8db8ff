"""What the workflows and the demo model can be told. Unknown keys are refused."""

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any, Self

from nat.plugin_api import ComponentRef, FunctionBaseConfig, FunctionRef, LLMBaseConfig, LLMRef
from pydantic import BaseModel, Field, FiniteFloat, model_validator

from nat_dpo_pipeline.generation.settings import (
    AskTogether,
    InputKind,
    JournalBy,
    Price,
    RecipeSettings,
    ResponseMode,
    Spread,
)
from nat_dpo_pipeline.plugin.workflows.scorer_settings import LLM, ScorerConfig, ScorerSettings, names_of, scorer_of
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME, StrictConfig


class ModelLimitsConfig(StrictConfig):
    """What one model may be asked. What is not given is not limited, or as the workflow has it."""

    max_concurrency: int | None = Field(default=None, ge=1, description="Calls under way at once.")
    requests_per_minute: FiniteFloat | None = Field(default=None, gt=0, description="Evenly spaced, without bursts.")
    tokens_per_minute: int | None = Field(default=None, gt=0, description="Prompt and completion tokens together.")
    max_retries: int | None = Field(default=None, ge=0, description="Retries of a call that failed.")
    max_wait_seconds: FiniteFloat = Field(
        default=1800.0,
        gt=0,
        description="Seconds until a model that answers nobody, being down or asked too much, ends the run; the same "
        "command goes on later.",
    )


class ModelPoolConfig(StrictConfig):
    """One or several llms that share the work of a step. In YAML a name, a list of names, or this."""

    models: dict[LLMRef, float] = Field(
        description="Names of llms, as a list, or with the weight of each: `{large: 1, small: 3}`."
    )
    use: Spread = Field(
        default=Spread.ROUND_ROBIN,
        description="`round_robin`: in turn; `weighted`: by their weights (so when weights are given); `all`: every "
        "model answers every question. One that is down or out of credit has the others stand in, not with `all`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, values: Any) -> Any:
        given = {"models": values} if isinstance(values, str | list) else values
        models = given.get("models") if isinstance(given, dict) else None
        if isinstance(models, str | list):
            return {**given, "models": dict.fromkeys(names_of(models), 1.0)}
        return {"use": Spread.WEIGHTED, **given} if isinstance(models, dict) else given

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        if not self.models or not all(0.0 < weight < inf for weight in self.models.values()):
            raise ValueError(f"models must name llms, each with a weight above 0, got {dict(self.models)!r}")
        return self


class PreferenceDataConfig(RecipeSettings, FunctionBaseConfig, name="preference_data"):
    """Preference data from a topic: subtopics, questions, several responses each, scored by a reward model or a judge.

    The input is a topic, or a question or a list of messages, for which the first steps are skipped. Every scored
    candidate becomes a TTC_END step for a `dpo_traj_builder`; the result is a JSON summary.
    """

    writer_llm: ModelPoolConfig = Field(description="The model or models that write subtopics and questions.")
    responder_llm: ModelPoolConfig | None = Field(
        default=None, description="The model or models that answer the questions; `writer_llm` when not given."
    )
    reward_llm: LLM | None = Field(
        default=None,
        description="The reward model that scores each response, or replicas of one; short for a "
        "`scorer` of that kind.",
    )
    scorer: ScorerConfig | None = Field(
        default=None, description="What scores the responses, when it is not simply `reward_llm`: see its `kind`."
    )
    input_kind: InputKind = Field(
        default=InputKind.AUTO,
        description="What a plain text input is: `topic`, `question`, or `auto` (a question when it ends with '?').",
    )
    ask_together: AskTogether = Field(
        default=AskTogether.AUTO,
        description="`auto`: in `independent` mode responses that one model gives to a question at one temperature are "
        "choices of one request (`n`), if the server gives several, which is tried once, and no `seed` tells them "
        "apart; `never`: one request per response.",
    )
    reward: str | dict[str, FiniteFloat] = Field(
        default="helpfulness",
        description="How attribute scores of `reward_llm` become one score: `helpfulness` (NVIDIA's notebook), "
        "`nemotron-4-340b`, `llama3-70b-steerlm` (the model cards' weights), or weights of your own by attribute.",
    )
    max_concurrency: int = Field(
        default=8, ge=1, description="Calls under way at once, for each model, unless `limits` says otherwise."
    )
    journal: Path | None = Field(
        default=None,
        description="File that keeps every finished call: a run that is started again after a crash replays them and "
        "pays for none twice. Remove it to ask anew.",
    )
    journal_by: JournalBy = Field(
        default=JournalBy.MODEL,
        description="What the journal knows a call by: `model`, so that a server that comes up at another address is "
        "not asked again for what is answered; `server`, where models of one name at several addresses differ.",
    )
    max_minutes: FiniteFloat | None = Field(
        default=None,
        gt=0,
        description="`nat dpo generate` ends after so many minutes and the calls that are under way then: what is "
        "finished is written, and the same command makes the rest.",
    )
    request_timeout: FiniteFloat = Field(default=120.0, gt=0, description="Seconds until one request is given up.")
    max_retries: int = Field(
        default=8,
        ge=0,
        description="Retries of a call that failed (time-outs, lost connections, server errors), unless `limits` or "
        "the llm set their own; at most 2 until a model has answered once. A 429 costs none: the model is left alone "
        "for as long as it says.",
    )
    limits: dict[str, ModelLimitsConfig] = Field(
        default_factory=dict, description="Limits by the name of an llm, for example what a hosted trial allows."
    )
    prices: dict[str, Price] = Field(
        default_factory=dict,
        description="Prices by the name of an llm; without one the cost is what the server says, or not known.",
    )
    pipeline: str | None = Field(
        default=None,
        description="`package.module.function` that is given the recipe's Pipeline and gives the one to run, with "
        "steps added, replaced or left out.",
    )
    ttc_step_name: str = Field(
        default=DEFAULT_STEP_NAME, description="Name of the TTC steps; the trajectory builder collects by it."
    )

    @model_validator(mode="after")
    def _names_are_used(self) -> Self:
        used = sorted(set(llms_in(self)))
        for field, names in (("limits", self.limits), ("prices", self.prices)):
            if unknown := sorted(set(names) - set(used)):
                raise ValueError(
                    f"{field} name {unknown[0]!r}, which this workflow does not use; it uses {', '.join(used)}"
                )
        return self

    @model_validator(mode="after")
    def _responses_fit(self) -> Self:
        if self.responses is ResponseMode.PAIRED and self.n_responses != 2:
            raise ValueError(f"n_responses is {self.n_responses}, but `responses: paired` always has 2")
        if self.writer_llm.use is Spread.ALL and self.responder_llm is not None:
            raise ValueError("writer_llm.use is 'all', which is for the models that answer: set responder_llm.use")
        return self

    @model_validator(mode="after")
    def _has_one_scorer(self) -> Self:
        if (self.reward_llm is None) == (self.scorer is None):
            raise ValueError("what scores the responses? Set one of reward_llm and scorer")
        if self.scorer is not None and "reward" in self.model_fields_set:
            raise ValueError("`reward` goes with reward_llm; with `scorer` set the weights there")
        self.scorer_config()
        return self

    def scorer_config(self) -> ScorerSettings:
        """The scorer, also where only its short form is given."""
        if self.scorer is not None:
            return self.scorer
        return scorer_of({"kind": "reward_model", "llm": self.reward_llm, "weights": self.reward})


def llms_in(value: object) -> Iterator[str]:
    """The names of all llms that a configuration refers to."""
    return (str(one) for one in _references_in(value) if isinstance(one, LLMRef))


def functions_in(value: object) -> Iterator[str]:
    """The names of all functions that a configuration refers to."""
    return (str(one) for one in _references_in(value) if isinstance(one, FunctionRef))


def _references_in(value: object) -> Iterator[ComponentRef]:
    if isinstance(value, ComponentRef):
        yield value
    elif isinstance(value, BaseModel):
        yield from _references_in([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        yield from _references_in([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _references_in(one)


class ScoredCandidatesConfig(FunctionBaseConfig, StrictConfig, name="scored_candidates"):
    """Your own candidates: a dataset row with a prompt and scored responses becomes TTC steps."""

    prompt_key: str = Field(default="prompt", description="The row's key for the prompt: text or a list of messages.")
    candidates_key: str = Field(default="candidates", description="The row's key for its list of candidates.")
    response_key: str = Field(default="response", description="The candidate's key for its text.")
    score_key: str = Field(default="score", description="The candidate's key for its score.")
    ttc_step_name: str = Field(
        default=DEFAULT_STEP_NAME, description="Name of the TTC steps; the trajectory builder collects by it."
    )


class DemoModelConfig(LLMBaseConfig, StrictConfig, name="dpo_demo"):
    """The embedded demo model: answers from the documentation of Python's standard library, offline.

    It is not a language model; it plays both the writer and the reward model of the recipe, so that everything else
    can be tried without a key or a network.
    """

    model_name: str = Field(description="`demo/stdlib-writer` or `demo/stdlib-reward`.")
    seed: int = Field(default=0, description="Another seed gives other questions and answers.")

"""Every NAT configuration of the package. Unknown keys are refused."""

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from nat.plugin_api import FunctionBaseConfig, LLMBaseConfig, LLMRef
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from nat_dpo_pipeline.generation.settings import InputKind, RecipeSettings, ResponseMode
from nat_dpo_pipeline.plugin.nat_api import TrainerAdapterConfig, TrainerConfig, TrajectoryBuilderConfig

logger = logging.getLogger(__name__)

DEFAULT_STEP_NAME = "dpo_candidate_move"


class StrictConfig(BaseModel):
    """Refuses unknown keys in words: NAT shows of a validation error only its message, not where it arose."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict) and (unknown := sorted(set(values) - _accepted_keys(cls))):
            raise ValueError(f"{_described(cls)} has no {unknown[0]!r}{_suggestion(unknown[0], cls)}")
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _name_what_is_wrong(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise ValueError("; ".join(_in_words(cls, details) for details in error.errors())) from error


def _in_words(config: type[BaseModel], details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return message
    path = ".".join(map(str, details["loc"]))
    given = "" if details["type"] == "missing" else f" is {details['input']!r:.80}"
    return f"{_described(config)}.{path}{given}: {message}"


def _accepted_keys(config: type[BaseModel]) -> set[str]:
    return {"_type", *config.model_fields}


def _described(config: type[BaseModel]) -> str:
    return str(getattr(config, "_typed_model_name", None) or config.__name__)


def _suggestion(key: str, config: type[BaseModel]) -> str:
    known = sorted(config.model_fields)
    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; its keys are {', '.join(known)}"


class ModelLimitsConfig(StrictConfig):
    """What one model may be asked. What is not given is not limited, or as the workflow has it."""

    max_concurrency: int | None = Field(default=None, ge=1, description="Calls under way at once.")
    requests_per_minute: float | None = Field(default=None, gt=0, description="Evenly spaced, without bursts.")
    tokens_per_minute: int | None = Field(default=None, gt=0, description="Prompt and completion tokens together.")
    max_retries: int | None = Field(default=None, ge=0, description="Retries of a call that failed.")
    max_wait_seconds: float = Field(
        default=1800.0, gt=0, description="Seconds until a call is given up, with all its waiting and retries."
    )


class PreferenceDataConfig(FunctionBaseConfig, StrictConfig, name="preference_data"):
    """Preference data from a topic: subtopics, questions, several responses each, scored by a reward model.

    The input is a topic, or a question or a list of messages, for which the first steps are skipped. Every scored
    candidate becomes a TTC_END step for a `dpo_traj_builder`; the result is a JSON summary.
    """

    writer_llm: LLMRef = Field(description="The model that writes subtopics and questions.")
    responder_llm: LLMRef | None = Field(
        default=None, description="The model that answers the questions; `writer_llm` when not given."
    )
    reward_llm: LLMRef = Field(description="The reward model that scores each response.")
    input_kind: InputKind = Field(
        default=InputKind.AUTO,
        description="What a plain text input is: `topic`, `question`, or `auto` (a question when it ends with '?').",
    )
    n_subtopics: int = Field(default=10, ge=1, le=1000, description="Subtopics to ask for.")
    n_questions: int = Field(default=10, ge=1, le=1000, description="Questions to ask for, per subtopic.")
    responses: ResponseMode = Field(
        default=ResponseMode.PAIRED,
        description="`paired`: two responses in one reply, as NVIDIA's recipe; `independent`: one call per response.",
    )
    n_responses: int = Field(
        default=2, ge=2, le=256, description="Responses per question in `independent` mode; `paired` always has two."
    )
    reward: str | dict[str, FiniteFloat] = Field(
        default="helpfulness",
        description="How attribute scores become one score: `helpfulness` (NVIDIA's notebook), `nemotron-4-340b`, "
        "`llama3-70b-steerlm` (the model cards' weights), or weights of your own by attribute.",
    )
    keep_truncated: bool = Field(
        default=False,
        description="Score responses that were cut at max_tokens too; a cut answer teaches to stop mid-sentence.",
    )
    seed: int | None = Field(
        default=None,
        description="Sent with every writer and responder call; the n-th response to a question adds n to it.",
    )
    max_concurrency: int = Field(default=8, ge=1, description="Model calls under way at once.")
    journal: Path | None = Field(
        default=None,
        description="File that keeps every finished call: a run that is started again after a crash replays them and "
        "pays for none twice. Remove it to ask anew.",
    )
    request_timeout: float = Field(default=120.0, gt=0, description="Seconds until one request is given up.")
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
    ttc_step_name: str = Field(
        default=DEFAULT_STEP_NAME, description="Name of the TTC steps; the trajectory builder collects by it."
    )

    @model_validator(mode="after")
    def _limits_name_models(self) -> "PreferenceDataConfig":
        used = sorted({str(name) for name in (self.writer_llm, self.responder_llm, self.reward_llm) if name})
        if unknown := sorted(set(self.limits) - set(used)):
            raise ValueError(f"limits name {unknown[0]!r}, which this workflow does not use; it uses {', '.join(used)}")
        return self

    @model_validator(mode="after")
    def _responses_fit(self) -> "PreferenceDataConfig":
        if self.responses is ResponseMode.PAIRED and self.n_responses != 2:
            raise ValueError(f"n_responses is {self.n_responses}, but `responses: paired` always has 2")
        return self

    def recipe_settings(self) -> RecipeSettings:
        return RecipeSettings(
            n_subtopics=self.n_subtopics,
            n_questions=self.n_questions,
            n_responses=self.n_responses,
            responses=self.responses,
            seed=self.seed,
            keep_truncated=self.keep_truncated,
        )


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


class DPOTrajectoryBuilderConfig(TrajectoryBuilderConfig, StrictConfig, name="dpo_pipeline_traj_builder"):
    """Preference pairs from the scored candidates of an evaluation: TTC_END steps, grouped by turn, paired by score."""

    ttc_step_name: str = Field(default=DEFAULT_STEP_NAME, description="Name of the TTC_END steps to collect.")
    exhaustive_pairs: bool = Field(
        default=True,
        description="True: every two candidates of a turn with unequal scores. False: the best against the worst.",
    )
    min_score_diff: FiniteFloat = Field(
        default=0.0, ge=0.0, description="Pairs whose scores differ by less are left out. Ties never pair."
    )
    max_pairs_per_turn: int | None = Field(
        default=None, ge=1, description="At most this many pairs per turn, largest score difference first."
    )
    reward_from_score_diff: bool = Field(
        default=True, description="A trajectory's reward: the score difference, or else the chosen score."
    )
    require_multiple_candidates: bool = Field(
        default=True, description="Count turns with a single candidate as skipped; they have no pair either way."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_custom_step_name(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "custom_step_name" not in values:
            return values
        renamed = {name: value for name, value in values.items() if name != "custom_step_name"}
        if renamed.setdefault("ttc_step_name", values["custom_step_name"]) != values["custom_step_name"]:
            raise ValueError("both ttc_step_name and custom_step_name are set, to different names: keep ttc_step_name")
        logger.warning("`custom_step_name` is an old name of `ttc_step_name`: rename it in the configuration")
        return renamed


class SharedDPOTrajectoryBuilderConfig(DPOTrajectoryBuilderConfig, name="dpo_traj_builder"):
    __doc__ = DPOTrajectoryBuilderConfig.__doc__


class DPOTrainerConfig(TrainerConfig, StrictConfig, name="dpo_trainer"):
    """Collects preference pairs in one or several runs, splits them by prompt and submits them to a trainer once."""

    num_runs: int = Field(default=1, ge=1, description="Evaluation runs to collect pairs from.")
    continue_on_collection_error: bool = Field(
        default=False, description="Go on with the next run when one fails, and train on what the others gave."
    )
    deduplicate_pairs: bool = Field(
        default=True, description="Keep one of several pairs with the same prompt, chosen and rejected text."
    )
    max_pairs: int | None = Field(default=None, ge=1, description="Draw this many pairs at random; None keeps all.")
    validation_fraction: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="Share of the prompts (with all their pairs) that are held out; at least one when there are two.",
    )
    seed: int = Field(default=0, description="Seed of the draw and of the split.")
    wait_for_completion: bool = Field(default=True, description="Wait for the training job to end.")


class DatasetTrainerAdapterConfig(TrainerAdapterConfig, StrictConfig, name="dataset_trainer_adapter"):
    """Writes the pairs as a dataset (TRL rows and a manifest) instead of training; needs no service."""

    output_dir: Path = Field(
        description="Folder of the dataset: `trl/train.jsonl`, `trl/validation.jsonl`, manifest.json."
    )
    validation_fraction: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Used when the trainer did not split: share of the prompts held out."
    )
    seed: int = Field(default=0, description="Used when the trainer did not split: seed of the split.")

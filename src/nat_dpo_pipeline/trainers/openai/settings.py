"""Settings of fine-tuning behind OpenAI's API; light, so that configurations can import them."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, SecretStr, model_validator

from nat_dpo_pipeline.strict import secret_text
from nat_dpo_pipeline.trainers.settings import PolledJobSettings

if TYPE_CHECKING:
    from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend

_OPENAI_URL = "https://api.openai.com/v1"
_HYPERPARAMETERS = {"beta", "n_epochs", "batch_size", "learning_rate_multiplier"}
# What a job is found again by, and what is checked before it is sent.
_OURS = frozenset({"model", "training_file", "validation_file", "metadata", "seed", "suffix"})
Auto = Literal["auto"]
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]


class OpenAISettings(PolledJobSettings):
    """A DPO job of OpenAI's fine-tuning API, and where it goes."""

    model: str = Field(min_length=1, description="The model to train, such as gpt-4.1-mini-2025-04-14.")
    base_url: str | None = Field(
        default=None, description="Where the API is; None: OPENAI_BASE_URL, or else OpenAI itself."
    )
    api_key: SecretStr | None = Field(default=None, description="None: OPENAI_API_KEY; ${OTHER} for another variable.")
    beta: Auto | PositiveFloat = Field(default="auto", description="How strictly to stay near the model as it was.")
    n_epochs: Auto | PositiveInt = Field(default="auto", description="Passes over the training file.")
    batch_size: Auto | PositiveInt = Field(default="auto", description="Pairs a step.")
    learning_rate_multiplier: Auto | PositiveFloat = Field(default="auto", description="Of the service's own rate.")
    seed: int = Field(
        default=0,
        ge=0,
        le=2**31 - 1,
        description="Seed of the training, and of the split when the trainer did not split.",
    )
    suffix: str | None = Field(
        default=None, min_length=1, max_length=64, description="Becomes part of the trained model's name."
    )
    min_rows: int = Field(default=10, ge=1, description="Fewer rows to train on are not sent; OpenAI wants 10.")
    delete_files: bool = Field(default=False, description="Delete the uploaded files once the job has ended.")
    request_timeout: float = Field(default=120.0, gt=0, description="Seconds that a request may take.")
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Put into the request that creates the job, over what is there: a `method` of another shape, say.",
    )

    @model_validator(mode="after")
    def _leaves_what_is_ours(self) -> Self:
        if taken := sorted(_OURS & self.extra_body.keys()):
            raise ValueError(f"extra_body may not hold {taken[0]!r}, which the adapter sets")
        return self

    @property
    def address(self) -> str:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI_URL

    @property
    def key(self) -> str:
        return (secret_text(self.api_key) or os.environ.get("OPENAI_API_KEY", "")).strip()

    def hyperparameters(self) -> dict[str, float | str]:
        """Return those of the method, "auto" or numbers."""
        return self.model_dump(include=_HYPERPARAMETERS)

    def backend(self) -> "OpenAIBackend":
        from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend

        return OpenAIBackend(self)

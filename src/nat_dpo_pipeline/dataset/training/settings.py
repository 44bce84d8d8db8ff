"""Settings of the training configurations beside the data; light, so that configurations can import them."""

from typing import ClassVar

from pydantic import Field, field_validator

from nat_dpo_pipeline.strict import StrictConfig

# Those of TRL's own example, trl/scripts/dpo.py.
_RATE, _RATE_OF_LORA = 5e-7, 5e-6


class TrainingSettings(StrictConfig):
    """What the training configurations beside the data say."""

    spoken_of_as: ClassVar[str | None] = "training"

    model: str = Field(
        default="Qwen/Qwen2.5-1.5B-Instruct",
        min_length=1,
        description="The model to train: its id on the Hugging Face hub, or the absolute path of a folder.",
    )
    beta: float = Field(default=0.1, gt=0, allow_inf_nan=False, description="DPO's beta.")
    epochs: int = Field(default=1, ge=1, description="Passes over the pairs.")
    learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="None: 5e-6 with LoRA, 5e-7 for all weights."
    )
    batch_size: int = Field(default=16, ge=1, description="Pairs a step, on one GPU.")
    max_length: int = Field(
        default=2048, ge=1, description="Tokens of prompt and answer; what is longer is cut or dropped."
    )
    lora: bool = Field(default=True, description="Train an adapter; NeMo Helix trains all weights anyway.")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the adapter; its alpha is twice that.")

    @field_validator("model")
    @classmethod
    def _is_found_from_everywhere(cls, model: str) -> str:
        if model.startswith((".", "~")):
            raise ValueError(
                "the training starts in the dataset's folder: give the absolute path of the model's folder"
            )
        return model

    @property
    def lora_alpha(self) -> int:
        return 2 * self.lora_rank

    def rate(self, *, lora: bool) -> float:
        """The learning rate; what is usual where none is set."""
        if self.learning_rate is not None:
            return self.learning_rate
        return _RATE_OF_LORA if lora else _RATE

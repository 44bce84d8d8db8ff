"""What `trl_trainer_adapter` can be told. Unknown keys are refused."""

from dataclasses import fields
from pathlib import Path
from typing import Self

from pydantic import Field, FiniteFloat, model_validator

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.trainer_config import BackendAdapterConfig
from nat_dpo_pipeline.strict import StrictConfig
from nat_dpo_pipeline.trainers.trl.settings import Device, LoraSettings, Precision, TrlSettings


class LoraConfig(StrictConfig):
    """A low-rank adapter in place of all weights (arXiv 2106.09685): less memory, larger learning rates."""

    r: int = Field(default=16, ge=1, description="Rank.")
    alpha: FiniteFloat = Field(default=32.0, gt=0.0, description="Scale: the adapter counts alpha / r times.")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Share of the adapter's inputs left out at random.")
    target_modules: str | list[str] = Field(
        default="all-linear", description="Names of the model's modules, or `all-linear`."
    )
    merge: bool = Field(
        default=True, description="Write the whole model with the adapter merged into it, or else the adapter alone."
    )

    def settings(self) -> LoraSettings:
        """Raises ConfigurationError."""
        names = self.target_modules
        return LoraSettings(
            self.r, self.alpha, self.dropout, names if isinstance(names, str) else tuple(names), self.merge
        )


class TrlTrainerAdapterConfig(BackendAdapterConfig, name="trl_trainer_adapter"):
    """Trains on this machine with TRL's DPOTrainer, in a process of its own; needs the extra `train`."""

    model: str = Field(
        description="A folder with a model, its name on the Hugging Face hub, or `tiny`: a small one made from the "
        "training pairs, for trying it out without a download."
    )
    output_dir: Path = Field(description="Gets a folder a job: pairs, log, learning curves, result.json and the model.")
    loss_type: str | list[str] = Field(
        default="sigmoid",
        description="One or several of TRL's losses: sigmoid (DPO), ipo, hinge, robust, … docs/train.md lists them.",
    )
    beta: FiniteFloat = Field(
        default=0.1, description="How dear it is to move away from the model as it was: smaller moves further."
    )
    label_smoothing: FiniteFloat = Field(
        default=0.0, description="Share of pairs taken to be the wrong way round; robust, exo_pair and the aot losses."
    )
    epochs: FiniteFloat = Field(default=1.0, description="How often each pair is seen.")
    batch_size: int = Field(default=4, description="Pairs that are in memory at once.")
    gradient_accumulation: int = Field(default=1, description="Batches a step.")
    learning_rate: FiniteFloat = Field(
        default=1e-5, description="Falls to 0 in a line. With LoRA 1e-4 and more; TRL's own 1e-6 needs many steps."
    )
    max_length: int = Field(default=1024, description="Tokens of prompt and answer together; longer answers are cut.")
    max_dropped: float = Field(
        default=0.05, description="Largest share of training pairs that may be left out because they do not fit."
    )
    lora: LoraConfig | None = Field(
        default=None, description="Train an adapter with these settings; None: all weights."
    )
    precision: Precision = Field(
        default=Precision.AUTO,
        description="auto (bf16 on a GPU that computes in it, otherwise fp32), fp32, bf16 or fp16 (GPU only); weights "
        "that are trained stay in 32 bits.",
    )
    device: Device = Field(default=Device.AUTO, description="auto, cpu or cuda; one GPU, the first that is visible.")
    num_threads: int = Field(
        default=1, description="Of the CPU. More than are free make it several times slower, so 1 unless all are yours."
    )
    gradient_checkpointing: bool = Field(default=False, description="Less memory for about a third more time.")
    save_every: int | None = Field(
        default=None, description="Steps between checkpoints, of which the last two are kept; None: ten minutes."
    )
    log_every: int = Field(default=10, description="Steps between two lines in metrics.jsonl.")
    evaluate_every: int | None = Field(
        default=None, description="Steps between two looks at up to 64 held-out pairs; None: five looks."
    )

    @model_validator(mode="after")
    def _can_be_trained_with(self) -> Self:
        try:
            self.settings()
        except ConfigurationError as error:
            raise ValueError(f"trl_trainer_adapter: {error}") from error
        return self

    def settings(self) -> TrlSettings:
        """Raises ConfigurationError."""
        given = {one.name: getattr(self, one.name) for one in fields(TrlSettings)}
        losses = (self.loss_type,) if isinstance(self.loss_type, str) else tuple(self.loss_type)
        return TrlSettings(**{**given, "loss_type": losses, "lora": self.lora.settings() if self.lora else None})

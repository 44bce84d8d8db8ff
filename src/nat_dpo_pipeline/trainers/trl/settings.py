"""Settings of local training with TRL; light, so that configurations can import them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from nat_dpo_pipeline.strict import StrictConfig
from nat_dpo_pipeline.trainers.settings import PolledJobSettings

if TYPE_CHECKING:
    from nat_dpo_pipeline.trainers.trl.local import TrlBackend

#: The value of `model` that stands for a model made in place; docs/train.md says what it is.
TINY = "tiny"
#: What TRL 1.16 knows. It refuses another name only at the first step, after everything has been loaded.
LOSS_TYPES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
#: Losses that are ln 2 while the policy equals the reference, whatever the label smoothing.
LN2_LOSSES = frozenset(("sigmoid", "sigmoid_norm", "robust", "aot", "aot_unpaired"))
_SMOOTHED_LOSSES = frozenset(("exo_pair", "robust", "aot", "aot_unpaired"))


class Precision(StrEnum):
    """Numbers of the forward and backward pass; weights that are trained are always kept in 32 bits. AUTO is BF16 on a
    GPU that computes in it, and FP32 anywhere else."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Device(StrEnum):
    """Where to train; AUTO is a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class LoraSettings(StrictConfig):
    """A low-rank adapter in place of all weights (arXiv 2106.09685): less memory, larger learning rates."""

    spoken_of_as: ClassVar[str | None] = "lora"

    r: int = Field(default=16, ge=1, description="Rank.")
    alpha: FiniteFloat = Field(default=32.0, gt=0.0, description="Scale: the adapter counts alpha / r times.")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Share of the adapter's inputs left out at random.")
    target_modules: str | list[str] = Field(
        default="all-linear", description="Names of the model's modules, or `all-linear`."
    )
    merge: bool = Field(
        default=True, description="Write the whole model with the adapter merged into it, or else the adapter alone."
    )

    @model_validator(mode="after")
    def _modules_can_be_trained(self) -> Self:
        names = [self.target_modules] if isinstance(self.target_modules, str) else self.target_modules
        _require(
            all(names) and bool(names), "lora.target_modules is empty: name modules of the model, or give all-linear"
        )
        _require(
            "lm_head" not in names,
            "lora.target_modules names lm_head: TRL computes log-probabilities from its weights alone, so an adapter "
            "there would not be trained",
        )
        return self


class TrlSettings(PolledJobSettings):
    """Everything that one training depends on besides its pairs."""

    spoken_of_as: ClassVar[str | None] = "trl_trainer_adapter"

    model: str = Field(
        description="A folder with a model, its name on the Hugging Face hub, or `tiny`: a small one made from the "
        "training pairs, for trying it out without a download."
    )
    output_dir: Path = Field(description="Gets a folder a job: pairs, log, learning curves, result.json and the model.")
    loss_type: list[str] = Field(
        default=["sigmoid"],
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
    lora: LoraSettings | None = Field(
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

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_loss_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_trained_with(self) -> Self:
        try:
            _check(self)
        except ValueError as error:
            raise ValueError(f"trl_trainer_adapter: {error}") from error
        return self

    def to_json(self) -> dict[str, Any]:
        """Return JSON values of which the settings can be made again."""
        own = TrlSettings.model_fields.keys() - PolledJobSettings.model_fields.keys()
        return self.model_dump(mode="json", include=set(own))

    def backend(self) -> "TrlBackend":
        from nat_dpo_pipeline.trainers.trl.local import TrlBackend

        return TrlBackend(self)


def _check(settings: TrlSettings) -> None:
    _require(bool(settings.model.strip()), "model is empty: give a folder, a name on the Hugging Face hub, or tiny")
    _check_loss(settings)
    for name in ("epochs", "learning_rate"):
        _require(getattr(settings, name) > 0, f"{name} is {getattr(settings, name)!r}: it must be above 0")
    for name in ("batch_size", "gradient_accumulation", "num_threads", "log_every", "max_length"):
        _require(getattr(settings, name) >= 1, f"{name} is {getattr(settings, name)!r}: it must be at least 1")
    for name in ("save_every", "evaluate_every"):
        steps = getattr(settings, name)
        _require(steps is None or steps >= 1, f"{name} is {steps!r}: give a number of steps, or leave it out")
    dropped = settings.max_dropped
    _require(0 <= dropped < 1, f"max_dropped is {dropped!r}: it is a share, from 0 to below 1")
    _require(
        settings.precision is not Precision.FP16 or settings.device is not Device.CPU,
        "precision is fp16 and device cpu: a CPU trains in fp32 or bf16",
    )


def _check_loss(settings: TrlSettings) -> None:
    losses, smoothing = settings.loss_type, settings.label_smoothing
    _require(bool(losses), f"loss_type is empty: give one of {', '.join(LOSS_TYPES)}")
    for loss in losses:
        _require(loss in LOSS_TYPES, f"loss_type {loss!r} is unknown: TRL knows {', '.join(LOSS_TYPES)}")
    _require(settings.beta > 0, f"beta is {settings.beta!r}: it must be above 0, as with 0 nothing is learned")
    _require(0 <= smoothing < 1, f"label_smoothing is {smoothing!r}: it is a share, from 0 to below 1")
    if "exo_pair" in losses:
        _require(smoothing > 0, "loss_type exo_pair needs a label_smoothing above 0; its paper recommends 0.001")
    if "robust" in losses:
        _require(smoothing < 0.5, f"loss_type robust needs a label_smoothing below 0.5, not {smoothing!r}")
    _require(
        smoothing == 0 or not _SMOOTHED_LOSSES.isdisjoint(losses),
        f"label_smoothing is {smoothing!r}, but {' and '.join(losses)} would ignore it: use one of "
        f"{', '.join(sorted(_SMOOTHED_LOSSES))}, or remove it",
    )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ValueError(message)

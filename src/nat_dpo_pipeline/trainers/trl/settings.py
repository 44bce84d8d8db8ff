"""What local training with TRL can be told; light, so that configurations can import it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from nat_dpo_pipeline.errors import ConfigurationError

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


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """A low-rank adapter is trained instead of the model (arXiv 2106.09685). `merge` writes the whole model at the end.

    Raises ConfigurationError for what PEFT or TRL would refuse only after everything has been loaded.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    merge: bool = True

    def __post_init__(self) -> None:
        _require(self.r >= 1, f"lora.r is {self.r!r}: the rank is at least 1")
        _require(self.alpha > 0, f"lora.alpha is {self.alpha!r}: it must be above 0")
        _require(0 <= self.dropout < 1, f"lora.dropout is {self.dropout!r}: it is a share, from 0 to below 1")
        names = (self.target_modules,) if isinstance(self.target_modules, str) else self.target_modules
        _require(
            all(names) and bool(names), "lora.target_modules is empty: name modules of the model, or give all-linear"
        )
        _require(
            "lm_head" not in names,
            "lora.target_modules names lm_head: TRL computes log-probabilities from its weights alone, so an adapter "
            "there would not be trained",
        )


@dataclass(frozen=True, slots=True)
class TrlSettings:
    """Everything that one training depends on besides its pairs.

    Lengths are in tokens, `save_every`, `log_every` and `evaluate_every` in optimizer steps; without `save_every` there
    is a checkpoint every ten minutes. Raises ConfigurationError.
    """

    model: str
    output_dir: Path
    loss_type: tuple[str, ...] = ("sigmoid",)
    beta: float = 0.1
    label_smoothing: float = 0.0
    epochs: float = 1.0
    batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 1e-5
    max_length: int = 1024
    max_dropped: float = 0.05
    lora: LoraSettings | None = None
    precision: Precision = Precision.AUTO
    device: Device = Device.AUTO
    num_threads: int = 1
    gradient_checkpointing: bool = False
    save_every: int | None = None
    log_every: int = 10
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        _require(bool(self.model.strip()), "model is empty: give a folder, a name on the Hugging Face hub, or tiny")
        _check_loss(self)
        for name in ("epochs", "learning_rate"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)!r}: it must be above 0")
        for name in ("batch_size", "gradient_accumulation", "num_threads", "log_every", "max_length"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)!r}: it must be at least 1")
        for name in ("save_every", "evaluate_every"):
            steps = getattr(self, name)
            _require(steps is None or steps >= 1, f"{name} is {steps!r}: give a number of steps, or leave it out")
        _require(0 <= self.max_dropped < 1, f"max_dropped is {self.max_dropped!r}: it is a share, from 0 to below 1")
        _require(
            self.precision is not Precision.FP16 or self.device is not Device.CPU,
            "precision is fp16 and device cpu: a CPU trains in fp32 or bf16",
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal one."""
        return {**asdict(self), "output_dir": str(self.output_dir)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Raises ConfigurationError for a name that is none of the settings."""
        unknown = sorted(set(values) - {one.name for one in fields(cls)})
        _require(not unknown, f"there is no setting {', '.join(unknown)}")
        lora = values.get("lora")
        given: dict[str, Any] = {
            **values,
            "output_dir": Path(values["output_dir"]),
            "loss_type": tuple(values["loss_type"]),
            "precision": Precision(values["precision"]),
            "device": Device(values["device"]),
            "lora": LoraSettings(**{**lora, "target_modules": _names(lora["target_modules"])}) if lora else None,
        }
        return cls(**given)


def _names(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


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
        raise ConfigurationError(message)

"""What training configurations can be told; light, so that configurations can import it."""

from dataclasses import dataclass

# Those of TRL's own example, trl/scripts/dpo.py.
_RATE, _RATE_OF_LORA = 5e-7, 5e-6


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train, whichever tool does it.

    `model` is an id on the Hugging Face hub or the absolute path of a folder; `batch_size` is in pairs a step,
    `max_length` in tokens of prompt and answer together.
    """

    model: str = "Qwen/Qwen2.5-1.5B-Instruct"
    beta: float = 0.1
    epochs: int = 1
    learning_rate: float | None = None
    batch_size: int = 16
    max_length: int = 2048
    lora: bool = True
    lora_rank: int = 16

    @property
    def lora_alpha(self) -> int:
        return 2 * self.lora_rank

    def rate(self, *, lora: bool) -> float:
        """The learning rate; what is usual where none is set."""
        if self.learning_rate is not None:
            return self.learning_rate
        return _RATE_OF_LORA if lora else _RATE

"""Settings of every training job; light, so that configurations can import them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from nat_dpo_pipeline.strict import StrictConfig

if TYPE_CHECKING:
    from nat_dpo_pipeline.core.messages import Prompt
    from nat_dpo_pipeline.trainers.backend import Backend


@dataclass(frozen=True, slots=True)
class Patience:
    """How a job is waited for, in seconds.

    It is asked for every `poll_interval`; where asking fails, after twice as long each time, up to `longest_pause`, no
    longer than `unreachable` altogether and no more often than `max_failures` in a row. A job that has not ended after
    `timeout` is cancelled. None is no limit.
    """

    poll_interval: float = 10.0
    timeout: float | None = None
    unreachable: float = 900.0
    longest_pause: float = 60.0
    max_failures: int | None = None


class JobSettings(StrictConfig):
    """Settings of every training job, apart from the pause between two looks at it."""

    timeout: float | None = Field(
        default=None, gt=0, description="Seconds until a job that has not ended is cancelled; None: no limit."
    )
    validation_fraction: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Used when the trainer did not split: share of the prompts held out."
    )
    seed: int = Field(default=0, description="Seed of the training, and of the split when the trainer did not split.")

    def shorten(self) -> "Callable[[Prompt], Prompt] | None":
        """Return what shortens the prompts of rows; the split, duplicates and contradictions go by what it leaves."""
        return None

    def patience(self) -> Patience:
        """Return how the job is waited for."""
        return Patience(timeout=self.timeout)

    def backend(self) -> "Backend":
        """Return the back end that trains with these settings, which is imported now. Raises ConfigurationError."""
        raise NotImplementedError


class PolledJobSettings(JobSettings):
    """Settings of every training job of a back end that names its settings as this package does."""

    poll_interval: float = Field(default=10.0, gt=0, description="Seconds between two looks at the job.")

    def patience(self) -> Patience:
        return Patience(self.poll_interval, self.timeout)

"""What the trainer and the trainer adapters can be told. Unknown keys are refused."""

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from nat_dpo_pipeline.core.candidates import Prompt
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.plugin.nat_api import TrainerAdapterConfig, TrainerConfig
from nat_dpo_pipeline.strict import StrictConfig
from nat_dpo_pipeline.trainers.settings import Patience


class DPOTrainerConfig(TrainerConfig, SplitSettings, name="dpo_trainer"):
    """Collects preference pairs in one or several runs, splits them by prompt and submits them to a trainer once."""

    num_runs: int = Field(default=1, ge=1, description="Evaluation runs to collect pairs from.")
    continue_on_collection_error: bool = Field(
        default=False, description="Go on with the next run when one fails, and train on what the others gave."
    )
    wait_for_completion: bool = Field(default=True, description="Wait for the training job to end.")


class DatasetTrainerAdapterConfig(TrainerAdapterConfig, DatasetSettings, name="dataset_trainer_adapter"):
    """Writes the pairs as a dataset in the formats of trainers instead of training; needs no service."""

    output_dir: Path = Field(
        description="Folder of the dataset: a folder a format (`trl/train.jsonl`, …), README.md and manifest.json. "
        "`nat dpo generate` writes to its run folder instead."
    )


class JobAdapterConfig(TrainerAdapterConfig, StrictConfig):
    """What every adapter over a training back end can be told, apart from how often it looks at its job."""

    timeout: float | None = Field(
        default=None, gt=0, description="Seconds until a job that has not ended is cancelled; None: no limit."
    )
    validation_fraction: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Used when the trainer did not split: share of the prompts held out."
    )
    seed: int = Field(default=0, description="Seed of the training, and of the split when the trainer did not split.")

    def shorten(self) -> Callable[[Prompt], Prompt] | None:
        """Return what shortens the prompts of rows; the split, duplicates and contradictions go by what it leaves."""
        return None

    def patience(self) -> Patience:
        """How the job is waited for."""
        return Patience(timeout=self.timeout)


class BackendAdapterConfig(JobAdapterConfig):
    """What every adapter over a training back end can be told, whose fields are our own."""

    poll_interval: float = Field(default=10.0, gt=0, description="Seconds between two looks at the job.")

    def patience(self) -> Patience:
        return Patience(self.poll_interval, self.timeout)

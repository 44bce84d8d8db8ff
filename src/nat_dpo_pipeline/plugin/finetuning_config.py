"""Configurations of the trajectory builder, the trainer and the trainer adapters: the settings of each, for NAT."""

from pathlib import Path

from pydantic import Field

from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.plugin.nat_api import TrainerAdapterConfig, TrainerConfig, TrajectoryBuilderConfig
from nat_dpo_pipeline.trainers.nemo.settings import NVIDIAS_VALIDATION_FRACTION, NemoSettings
from nat_dpo_pipeline.trainers.openai.settings import OpenAISettings
from nat_dpo_pipeline.trainers.settings import JobSettings
from nat_dpo_pipeline.trainers.trl.settings import TrlSettings


class DPOTrajectoryBuilderConfig(TrajectoryBuilderConfig, BuilderSettings, name="dpo_pipeline_traj_builder"):
    """Preference pairs from the scored candidates of an evaluation: TTC_END steps, grouped by turn, paired by score."""


class SharedDPOTrajectoryBuilderConfig(DPOTrajectoryBuilderConfig, name="dpo_traj_builder"):
    __doc__ = DPOTrajectoryBuilderConfig.__doc__


class DPOTrainerConfig(TrainerConfig, SplitSettings, name="dpo_trainer"):
    """Collects preference pairs in one or several runs, splits them by prompt and submits them to a trainer once."""

    num_runs: int = Field(default=1, ge=1, description="Evaluation runs to collect pairs from.")
    continue_on_collection_error: bool = Field(
        default=False, description="Go on with the next run when one fails, and train on what the others gave."
    )
    wait_for_completion: bool = Field(default=True, description="Wait for the training job to end.")


class NeMoCustomizerTrainerConfig(DPOTrainerConfig, name="dpo_nemo_customizer_trainer"):
    """Collects preference pairs in one or several runs and submits them once: NVIDIA's nemo_customizer_trainer."""

    validation_fraction: float = Field(
        default=NVIDIAS_VALIDATION_FRACTION,
        ge=0.0,
        lt=1.0,
        description="Share of the prompts (with all their pairs) that are held out; NVIDIA's trainer holds out 0.2 of "
        "the pairs.",
    )


class SharedNeMoCustomizerTrainerConfig(NeMoCustomizerTrainerConfig, name="nemo_customizer_trainer"):
    __doc__ = NeMoCustomizerTrainerConfig.__doc__


class DatasetTrainerAdapterConfig(TrainerAdapterConfig, DatasetSettings, name="dataset_trainer_adapter"):
    """Writes the pairs as a dataset in the formats of trainers instead of training; needs no service."""

    output_dir: Path = Field(
        description="Folder of the dataset: a folder a format (`trl/train.jsonl`, …), README.md and manifest.json. "
        "`nat dpo generate` writes to its run folder instead."
    )


class JobAdapterConfig(TrainerAdapterConfig, JobSettings):
    """Base of every adapter over a training back end."""


class OpenAITrainerAdapterConfig(OpenAISettings, JobAdapterConfig, name="openai_trainer_adapter"):
    """Trains with a DPO job of OpenAI's fine-tuning API, at OpenAI, Azure or a server that speaks it; jobs are paid."""


class TrlTrainerAdapterConfig(TrlSettings, JobAdapterConfig, name="trl_trainer_adapter"):
    """Trains on this machine with TRL's DPOTrainer, in a process of its own; needs the extra `train`."""


class NeMoCustomizerTrainerAdapterConfig(NemoSettings, JobAdapterConfig, name="dpo_nemo_customizer_trainer_adapter"):
    """Trains in NVIDIA's NeMo Customizer, and deploys what was trained: NVIDIA's nemo_customizer_trainer_adapter."""


class SharedNeMoCustomizerTrainerAdapterConfig(
    NeMoCustomizerTrainerAdapterConfig, name="nemo_customizer_trainer_adapter"
):
    __doc__ = NeMoCustomizerTrainerAdapterConfig.__doc__

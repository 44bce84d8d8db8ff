"""What the trajectory builder can be told, for NAT."""

from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.plugin.nat_api import TrajectoryBuilderConfig


class DPOTrajectoryBuilderConfig(TrajectoryBuilderConfig, BuilderSettings, name="dpo_pipeline_traj_builder"):
    """Preference pairs from the scored candidates of an evaluation: TTC_END steps, grouped by turn, paired by score."""


class SharedDPOTrajectoryBuilderConfig(DPOTrajectoryBuilderConfig, name="dpo_traj_builder"):
    __doc__ = DPOTrajectoryBuilderConfig.__doc__

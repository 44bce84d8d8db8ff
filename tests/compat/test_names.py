"""Beside NVIDIA's package its names stay its own, and ours are there under names of our own."""

from pathlib import Path

from nat.plugins.customizer.dpo.config import DPOTrajectoryBuilderConfig as TheirConfig
from nat.runtime.loader import load_config

from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig as OurConfig

YAML = """
workflow:
  _type: scored_candidates
trajectory_builders:
  pairs:
    _type: {builder}
    ttc_step_name: dpo_candidate_move
    exhaustive_pairs: true
    min_score_diff: 0.05
    max_pairs_per_turn: 5
"""


def written(folder: Path, builder: str) -> Path:
    file = folder / "config.yml"
    file.write_text(YAML.format(builder=builder), encoding="utf-8")
    return file


def test_the_shared_name_means_nvidias_builder(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "dpo_traj_builder"))

    assert type(config.trajectory_builders["pairs"]) is TheirConfig


def test_our_own_name_means_our_builder(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "dpo_pipeline_traj_builder"))

    assert type(config.trajectory_builders["pairs"]) is OurConfig

"""The settings that the page on pairing shows are valid, and every one of them is shown."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.core.pairs import SkipReason
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig

GUIDE = (Path(__file__).parents[1] / "docs" / "pairing.md").read_text(encoding="utf-8")
YAML = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]


def _settings(block: dict[str, Any]) -> dict[str, Any]:
    (settings,) = block["trajectory_builders"].values()
    return {name: value for name, value in settings.items() if name != "_type"}


@pytest.mark.parametrize("block", YAML, ids=lambda block: ",".join(_settings(block)))
def test_the_settings_are_valid(block: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evaluation.jsonl").touch()
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema({"workflow": {"_type": "scored_candidates"}, **block}, Config)
    assert config.trajectory_builders["pairs"].type == "dpo_traj_builder"


def test_every_setting_that_leaves_pairs_out_is_shown() -> None:
    shown = {name for block in YAML for name in _settings(block)}
    not_shown = {
        "ttc_step_name",
        "reward_from_score_diff",
        "require_multiple_candidates",
        "reward",
        "source",
        "map",
        "type",
    }
    in_words = {"exhaustive_pairs", "max_pairs_per_turn", "seed"}
    assert set(DPOTrajectoryBuilderConfig.model_fields) - shown <= not_shown | in_words
    assert all(f"`{name}" in GUIDE for name in in_words)


def test_every_strategy_is_in_the_table() -> None:
    for strategy in Strategy:
        assert f"\n| `{strategy}`" in GUIDE


def test_reasons_in_the_page_are_those_that_are_counted() -> None:
    reasons = {str(reason) for reason in SkipReason}
    named = set(re.findall(r"`((?:below|over|no|turned)_\w+)`", GUIDE))
    assert named
    assert named <= reasons

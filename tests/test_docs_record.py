"""What the guide to recording shows loads as it stands, and a row is as it says."""

import json
import re
from pathlib import Path

import pytest
import yaml
from nat.data_models.config import Config
from nat.observability.exporter_manager import ExporterManager
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema
from nat.utils.reactive.subject import Subject

from nat_dpo_pipeline.plugin.capture import turn
from nat_dpo_pipeline.plugin.exporter_config import CandidateExporterConfig
from nat_dpo_pipeline.plugin.nat_api import ContextState
from nat_dpo_pipeline.plugin.telemetry.exporter import CandidateExporter

GUIDE = (Path(__file__).parents[1] / "docs" / "record_production.md").read_text(encoding="utf-8")
SETTINGS = GUIDE.split("## Settings")[1].split("\n## ")[0]


@pytest.mark.parametrize("source", re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))
def test_every_configuration_loads(source: str) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema({**yaml.safe_load(source), "workflow": {"_type": "scored_candidates"}}, Config)
    exporter = config.general.telemetry.tracing["candidates"]
    assert isinstance(exporter, CandidateExporterConfig)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", SETTINGS, re.MULTILINE))
    assert set(table) == set(CandidateExporterConfig.model_fields) - {"type"}
    defaults = CandidateExporterConfig()
    assert table["path"] == f"`{defaults.path}`"
    assert table["ttc_step_name"] == f"`{defaults.ttc_step_name}`"
    assert table["max_bytes"] == f"{defaults.max_bytes:,}"


async def test_a_row_has_the_fields_that_are_shown(tmp_path: Path) -> None:
    shown = json.loads(re.search(r"```json\n(.*?)```", GUIDE, re.DOTALL)[1])  # type: ignore[index]
    exporter = CandidateExporter(CandidateExporterConfig(path=tmp_path / "candidates.jsonl"))
    state = ContextState.get()
    state.event_stream.set(Subject())
    state.workflow_run_id.set("run")
    state.input_message.set("in")
    running = ExporterManager.from_exporters({"candidates": exporter}).start(state)
    async with running, turn(prompt=shown["prompt"][0]["content"]) as candidates:
        candidates.add("e4", score=0.4, model="m", attributes={"truth": 1.5}, metadata={"topic": "chess"})
    row = json.loads((tmp_path / "candidates.jsonl").read_text())
    assert {*row, "item_id"} == set(shown)
    assert {name: type(row[name]) for name in row} == {name: type(shown[name]) for name in row}

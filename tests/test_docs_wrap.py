"""What the page on wrapping says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig, PromptSource, Returned
from nat_dpo_pipeline.plugin.workflow_config import ModelLimitsConfig
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Response
from tests.plugin.functions import BODIES, workflow, wrapped

GUIDE = (Path(__file__).parents[1] / "docs" / "wrap_your_agent.md").read_text(encoding="utf-8")
YAML = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
(PYTHON,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
SETTINGS = GUIDE.partition("## Settings")[2].partition("\n## ")[0]


@pytest.mark.parametrize("block", YAML, ids=str)
def test_the_configurations_are_valid(block: dict[str, Any]) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema(
        {**block, "workflow": {"_type": "scored_candidates", "middleware": ["candidates"]}}, Config
    )
    assert isinstance(config.middleware["candidates"], BestOfNConfig)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", SETTINGS, re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    fields = {field.alias or name: field for name, field in BestOfNConfig.model_fields.items()}
    assert set(told) == set(fields) - {"type"}
    for name in ("n", "return", "prompt", "max_scoring_seconds", "step_name"):
        default = fields[name].default
        assert told[name].strip("`") == (f"{default:g}" if isinstance(default, float) else str(default))
    models = [f"{fields[name].default:g}" for name in ("max_concurrency", "request_timeout", "max_retries")]
    assert told["max_concurrency"] == ", ".join(models)


def test_every_choice_is_named() -> None:
    for choice in (*Returned, *PromptSource, *ModelLimitsConfig.model_fields):
        assert f"`{choice}`" in SETTINGS


async def test_the_function_without_a_framework_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON, "guide", "exec"), names)

    async def function(value: str, builder: Any) -> str:
        return str(await names["ask"](builder, value))

    BODIES["guide"] = function
    async with LoopbackServer(lambda _: Response(body=completion("So."))) as server:
        llms = {"writer": {"_type": "openai", "base_url": server.url, "model_name": "m"}}
        source = wrapped("guide", {"n": 1, "scorer": None}, llms=llms)
        async with workflow(source) as built:
            assert (await built.run("Why?")).result == "So."

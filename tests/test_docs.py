"""What the guide shows is run as it stands."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline import Pipeline
from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.generation.inputs import read_request
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode
from nat_dpo_pipeline.testing import ScriptedModel

GUIDE = (Path(__file__).parents[1] / "docs" / "generation.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
YAML = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
LLMS = {
    name: {"_type": "openai", "model_name": name, "base_url": "http://127.0.0.1:9/v1"}
    for name in ("large", "medium", "small", "reward", "judge")
}


def _executed(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, "guide", "exec"), names)
    return names


async def test_the_steps_of_ones_own_run_in_the_recipe() -> None:
    adapt = _executed(next(code for code in PYTHON if "def adapt" in code))["adapt"]
    long = "Why " + "oh " * 100 + "why?"
    writer = ScriptedModel(lambda call: f"Short?\n{long}" if "questions" in call.messages[0].content else "Tea, Coffee")
    responder = ScriptedModel(lambda call: f"# answer {call.sample}")
    rewarder = ScriptedModel(lambda _: "1.5")
    recipe = PreferenceRecipe(
        writer=writer,
        responders=[responder],
        scorer=RewardModelScorer(rewarder, weights_named("helpfulness")),
        settings=RecipeSettings(n_subtopics=2, n_questions=2, responses=ResponseMode.INDEPENDENT, max_top_ups=0),
        adapt=adapt,
    )
    record = GenerationRecord()
    turns = await recipe.turns(read_request("Drinks"), record)
    assert [turn.question.text for turn in turns] == ["Short?"]
    assert [candidate.response for candidate in turns[0].candidates] == ["answer 0", "answer 1"]
    assert record.counts["dropped_long_question"] >= 1


def test_the_pipeline_without_the_recipe_prints_what_its_comment_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(code for code in PYTHON if "asyncio.run" in code)
    names = _executed(code)
    assert isinstance(names["pipeline"], Pipeline)
    assert capsys.readouterr().out.strip() == code.rsplit("# ", 1)[1].strip()


def _workflows() -> list[dict[str, Any]]:
    """The settings shown, each put into a workflow; what is shown as a comment beside it is tried as well."""
    shown = []
    for block in YAML:
        inner = block.removeprefix("workflow:\n  _type: preference_data\n")
        shown += [inner, *_alternatives(inner)]
    return [yaml.safe_load(text) for text in shown]


def _alternatives(block: str) -> list[str]:
    """The block with one of the settings in comments in the place of that before it."""
    lines = block.splitlines()
    commented = [index for index, line in enumerate(lines) if line.startswith("  # ") and not line.startswith("  #   ")]
    found = []
    for index in commented:
        rest = list(takewhile(lambda line: line.startswith("  #   "), lines[index + 1 :]))
        text = [lines[index].replace("  # ", "  ", 1), *(line.replace("  # ", "  ", 1) for line in rest)]
        key = text[0].split(":", 1)[0].strip()
        others = [line for line in lines if not line.startswith("  #") and not line.strip().startswith(f"{key}:")]
        found.append("\n".join([*others, *text]))
    return found


@pytest.mark.parametrize("settings", _workflows(), ids=lambda settings: ",".join(settings))
def test_the_settings_are_valid(settings: dict[str, Any]) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    workflow = {"_type": "preference_data", "writer_llm": "large", **settings}
    if "scorer" not in workflow:
        workflow["reward_llm"] = "reward"
    functions = {"my_scorer": {"_type": "scored_candidates"}}
    config = validate_schema({"llms": LLMS, "functions": functions, "workflow": workflow}, Config)
    assert config.workflow.type == "preference_data"

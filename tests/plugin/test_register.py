import ast
import json
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from nat.cli.type_registry import GlobalTypeRegistry, RegisteredInfo
from nat.data_models.config import Config
from nat.data_models.finetuning import FinetuneRunConfig
from nat.finetuning.finetuning_runtime import finetuning_main
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.plugin import nat_api

COMPONENTS = {
    "preference_data",
    "scored_candidates",
    "dpo_demo",
    "best_of_n",
    "dpo_pipeline_traj_builder",
    "dpo_traj_builder",
    "dpo_trainer",
    "dataset_trainer_adapter",
    "openai_trainer_adapter",
    "dpo_nemo_customizer_trainer",
    "dpo_nemo_customizer_trainer_adapter",
    "nemo_customizer_trainer",
    "nemo_customizer_trainer_adapter",
    "trl_trainer_adapter",
}
# What costs time, or is needed only when a component is built.
IMPLEMENTATIONS = {
    "openai",
    "torch",
    "transformers",
    "datasets",
    "pandas",
    "starlette",
    "nat_dpo_pipeline.demo",
    "nat_dpo_pipeline.generation.openai_model",
    "nat_dpo_pipeline.plugin.finetuning.job_adapter",
    "nat_dpo_pipeline.plugin.middleware.best_of_n",
    "nat_dpo_pipeline.plugin.workflows.models",
    "nat_dpo_pipeline.plugin.finetuning.trainer",
    "nat_dpo_pipeline.plugin.finetuning.dataset_adapter",
    "nat_dpo_pipeline.plugin.finetuning.trajectory_builder",
    "nat_dpo_pipeline.plugin.workflows.workflow",
    "nat_dpo_pipeline.trainers.openai.dpo",
    "nat_dpo_pipeline.trainers.nemo.customizer",
}


def _registered() -> dict[str, RegisteredInfo[Any]]:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    registry = GlobalTypeRegistry.get()
    infos: list[RegisteredInfo[Any]] = [
        *registry.get_registered_functions(),
        *registry.get_registered_llm_providers(),
        *registry.get_registered_middleware(),
        *registry.get_registered_trajectory_builders(),
        *registry.get_registered_trainers(),
        *registry.get_registered_trainer_adapters(),
    ]
    return {info.local_name: info for info in infos if info.config_type.__module__.startswith("nat_dpo_pipeline.")}


def test_the_entry_point_loads() -> None:
    """NAT turns an ImportError of a plugin into a warning."""
    (plugin,) = entry_points(group="nat.plugins", name="nat_dpo_pipeline")
    assert plugin.load().__name__ == "nat_dpo_pipeline.plugin.register"


@pytest.mark.skipif(find_spec("nat.plugins.customizer") is not None, reason="NVIDIA's package keeps its own names")
def test_every_component_is_registered() -> None:
    assert set(_registered()) == COMPONENTS


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_a_component_has_a_description_and_a_full_name(name: str) -> None:
    info = _registered()[name]
    assert info.config_type.__doc__
    assert len(info.config_type.__doc__) > 20
    assert info.full_type == f"nat_dpo_pipeline.plugin/{name}", "users may write it in their YAML"


def _loaded_by_register() -> set[str]:
    """The modules that importing `register` adds to NAT's own."""
    tree = ast.parse(Path(str(nat_api.__file__)).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    # The first registration of any plugin makes NAT import its loader.
    nat_modules = sorted({"nat.plugin_api", "nat.runtime.loader", *(name for name in names if name.startswith("nat."))})
    script = (
        f"import sys, {', '.join(nat_modules)}\n"
        "before = set(sys.modules)\n"
        "import nat_dpo_pipeline.plugin.register\n"
        "print(*sorted(set(sys.modules) - before), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_registering_imports_no_implementation() -> None:
    loaded = _loaded_by_register()
    assert "nat_dpo_pipeline.plugin.workflow_config" in loaded
    assert {
        name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in IMPLEMENTATIONS)
    } == set()


@pytest.mark.parametrize("builder", ["dpo_traj_builder", "dpo_pipeline_traj_builder"])
async def test_the_components_build_and_work_together(tmp_path: Path, builder: str) -> None:
    """As `nat finetune` puts them together."""
    rows = [{"prompt": "Why?", "candidates": [{"response": str(n), "score": n} for n in range(3)]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = {"_type": "custom", "function": "nat_dpo_pipeline.plugin.datasets.load_rows", "file_path": "rows.jsonl"}
    source = {
        "workflow": {"_type": "scored_candidates"},
        "eval": {"general": {"output_dir": str(tmp_path / "eval"), "dataset": dataset}},
        "trajectory_builders": {"pairs": {"_type": builder}},
        "trainers": {"trainer": {"_type": "dpo_trainer"}},
        "trainer_adapters": {"files": {"_type": "dataset_trainer_adapter", "output_dir": str(tmp_path / "out")}},
        "finetuning": {
            "enabled": True,
            "trainer": "trainer",
            "trajectory_builder": "pairs",
            "trainer_adapter": "files",
            "output_dir": str(tmp_path / "run"),
        },
    }
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema(source, Config)
    await finetuning_main(FinetuneRunConfig(config_file=config, dataset=tmp_path / "rows.jsonl"))
    assert len(_lines(tmp_path / "out" / "trl" / "train.jsonl")) == 3


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_door_to_nat_exports_what_it_imports() -> None:
    assert all(hasattr(nat_api, name) for name in nat_api.__all__)

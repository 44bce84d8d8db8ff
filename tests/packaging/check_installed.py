"""Run by `make wheel` where the wheel and its dependencies are installed: NAT finds the plugin and loads the demo."""

import os
import subprocess
import sys
import warnings
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path

import nat_dpo_pipeline

CONFIG = "configs/demo.yml"


def main() -> None:
    _check_files()
    _check_entry_point()
    components = _nat("info", "components", "-t", "trajectory_builder")
    if "dpo_traj_builder" not in components:
        sys.exit(f"`nat info components` does not know dpo_traj_builder:\n{components}")
    _nat("validate", "--config_file", CONFIG)
    print(f"the installed wheel registers its components, and {CONFIG} is valid")


def _check_files() -> None:
    package = resources.files(nat_dpo_pipeline)
    if Path(sys.prefix).resolve() not in Path(str(package)).resolve().parents:
        sys.exit(f"nat_dpo_pipeline comes from {package}, not from the wheel in {sys.prefix}")
    source = Path("src/nat_dpo_pipeline")
    files = [file.relative_to(source) for file in source.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    if missing := [str(file) for file in files if not package.joinpath(*file.parts).is_file()]:
        sys.exit(f"the wheel lacks {', '.join(missing)}")


def _check_entry_point() -> None:
    """NAT only warns about a plugin that fails to import; here it fails."""
    (plugin,) = entry_points(group="nat.plugins", name="nat_dpo_pipeline")
    with warnings.catch_warnings(record=True):  # NAT's own deprecations; the tests watch ours
        plugin.load()


def _nat(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("nat")), *arguments]
    # NAT prints tables as wide as the terminal and cuts names that do not fit.
    environment = {**os.environ, "COLUMNS": "400", "NAT_TELEMETRY_ENABLED": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"`nat {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()

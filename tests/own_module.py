"""A module with NAT components, as if it were installed, for commands that a test starts."""

import tomllib
from pathlib import Path

from tests import commands


def install(folder: Path, module: str, source: str | None = None, target: str | None = None) -> None:
    """Make `module` one of NAT's plugins for whoever has `folder` in PYTHONPATH; `source` is put there as well."""
    if source is not None:
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"{module}-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[nat.plugins]\n{module} = {target or module}\n")


def install_project(folder: Path, project: Path) -> None:
    """Make what the `pyproject.toml` of `project` registers known to whoever has both folders in PYTHONPATH."""
    points = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"]["nat.plugins"]
    for name, module in points.items():
        install(folder, name, target=module)


def run_nat(place: Path, *arguments: str, modules: tuple[Path, ...] = ()) -> str:
    """What the command told, when it ended well; started in `place`, which may hold modules itself."""
    done = commands.run_nat(place, *arguments, env=commands.environment(place, *modules))
    assert done.code == 0, done.said
    return done.said

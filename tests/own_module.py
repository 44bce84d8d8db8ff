"""A module with NAT components, as if it were installed, for commands that a test starts."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

NAT = Path(sys.executable).with_name("nat")


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


def environment(*folders: Path) -> dict[str, str]:
    """The environment of a command that finds the modules in `folders`."""
    path = os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "NAT_TELEMETRY_ENABLED": "false", "NO_COLOR": "1"}


def run_nat(place: Path, *arguments: str, modules: tuple[Path, ...] = (), timeout: float = 120) -> str:
    """What the command told, when it ended well; started in `place`, which may hold modules itself."""
    done = subprocess.run(
        [str(NAT), *arguments],
        cwd=place,
        env=environment(place, *modules),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout

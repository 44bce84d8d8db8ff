"""Shards as tasks of a Ray cluster of two workers on this machine."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.errors import InputError, OutputError
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import EngineName, PairingOptions
from tests.pairing.candidates import make_rows, snapshot, write_jsonl
from tests.pairing.killing import (
    children,
    command,
    count_files,
    killing,
    moments,
    run_and_kill,
    run_counting_files,
)

# Ray's own: it forks where threads run, and leaves sockets to the collector.
pytestmark = pytest.mark.filterwarnings("default")
OPTIONS = {"shard_bytes": 40_000, "workers": 2, "deduplicate": True}
MOMENTS = 5


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster, which this process is connected to."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Workers import this package and these tests from where this process does.
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path("src").absolute()), str(Path().absolute()))))
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
            yield ray.get_runtime_context().gcs_address
        finally:
            ray.shutdown()
            gc.collect()  # what Ray left open is warned of here, and not in a test of something else


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("input") / "rows.jsonl", make_rows(700))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, path: Path) -> dict[str, bytes]:
    """What the local engine makes."""
    folder = tmp_path_factory.mktemp("local") / "out"
    pair_files([str(path)], str(folder), PairingRules(), options=PairingOptions(**OPTIONS))
    return snapshot(folder)


def on_ray(address: str | None = None) -> PairingOptions:
    return PairingOptions(engine=EngineName.RAY, address=address, **OPTIONS)


def busy_workers() -> list[int]:
    return children("ray::do")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_ray_makes_the_same_files(tmp_path: Path, path: Path, expected: dict[str, bytes], scheme: str) -> None:
    pair_files([str(path)], f"{scheme}{tmp_path / 'out'}", PairingRules(), options=on_ray())
    assert snapshot(tmp_path / "out") == expected


@pytest.mark.usefixtures("cluster")
def test_a_worker_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, path: Path, expected: dict[str, bytes]
) -> None:
    killed = 0
    for files in moments(len(expected), MOMENTS, "worker"):
        output = tmp_path / f"killed-at-{files}"
        with killing(busy_workers, lambda at=files, folder=output: count_files(folder) >= at, files) as victims:
            pair_files([str(path)], str(output), PairingRules(), options=on_ray())
        killed += len(victims)
        assert snapshot(output) == expected
    assert killed > MOMENTS // 2


def test_a_command_killed_at_any_moment_is_completed_by_the_next_one(
    tmp_path: Path, path: Path, expected: dict[str, bytes], cluster: str
) -> None:
    options = {**OPTIONS, "engine": "ray", "address": cluster}
    most = run_counting_files(command(path, tmp_path / "whole", options), tmp_path / "whole")
    assert snapshot(tmp_path / "whole") == expected
    killed = 0
    for files in moments(most, MOMENTS, "command"):
        output = tmp_path / f"killed-at-{files}"
        killed += run_and_kill(
            command(path, output, options), lambda at=files, folder=output: count_files(folder) >= at
        )
        # On the machine of the killed one: what it has left is completed by any engine.
        pair_files([str(path)], str(output), PairingRules(), options=on_ray())
        assert snapshot(output) == expected
    assert killed


@pytest.mark.usefixtures("cluster")
def test_errors_of_tasks_are_those_of_the_local_engine(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "response": "r", "score": 1.0}\n' + "not JSON\n" * 10)
    with pytest.raises(InputError, match="10 of 11 rows cannot be read"):
        pair_files([str(path)], str(tmp_path / "out"), PairingRules(), options=on_ray())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        pair_files([str(path)], str(tmp_path / "file" / "out"), PairingRules(), options=on_ray())


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    import subprocess
    import sys

    text = (
        "from nat_dpo_pipeline.pairing.ray_engine import RayEngine\n"
        "from nat_dpo_pipeline.errors import ConfigurationError\n"
        "try:\n    next(RayEngine('no-address', 1, 0).run([]))\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path("src").absolute())}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("no Ray cluster answers at 'no-address'")
    assert (done.stdout.count("\n"), done.stderr) == (1, "")

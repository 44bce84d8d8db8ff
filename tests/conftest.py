import asyncio
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

import authlib.deprecate  # noqa: F401 - when imported it resets warning filters; so before those of the tests are set
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.recordings import Recordings

from tests.own_time import OwnTimeLoop

# NAT reads this when it is imported.
os.environ.setdefault("NAT_TELEMETRY_ENABLED", "false")

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


# The comparisons need NVIDIA's own package, which lives in an environment of its own: see `make compat`.
collect_ignore = [] if _is_installed("nvidia-nat-nemo-customizer") else ["compat"]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked with `own_time` in a loop that does not go by the clock of the machine."""
    return {"loop": OwnTimeLoop if item.get_closest_marker("own_time") else asyncio.new_event_loop}


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> "Recordings":
    from tests.recordings import record  # imports NAT

    return record(tmp_path_factory.mktemp("recordings"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz", type=int, default=20, help="how often tests/test_damaged_files.py damages each file")


# What a whole file shares takes seconds to start: a cluster, a browser, commands that make mistakes.
_ON_ONE_WORKER = (
    "tests/report/test_page_in_browser.py",
    "tests/pairing/test_ray.py",
    "tests/test_commands.py",
    "tests/test_generate_on_ray.py",
)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist is not installed beside NVIDIA's package
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give out tests one by one, but those of some files together.

    `--dist loadgroup` does the same; that of pytest-xdist 3.8 does nothing where pytest is 9.2 or later.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, _ = nodeid.partition("::")
            return file if file in _ON_ONE_WORKER else nodeid

    return Scheduling(config, log)

"""The Ray cluster that work is given to: one that runs already, or one on this machine for as long as it is needed."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from nat_dpo_pipeline.errors import ConfigurationError

_SECONDS_TO_ANSWER = 10.0
# Ray reads these when it is imported, and says much; what matters of it comes as an exception.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Connect this process, and disconnect it at the end; without an address a cluster of `workers` CPUs is started.

    A process that is connected already stays so. Raises ConfigurationError when Ray is not installed, or when nothing
    answers at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError("the engine ray needs Ray: pip install 'nat-dpo-pipeline[ray]'") from error
    if ray.is_initialized():
        yield
        return
    if address is not None:
        _check(address)
    own = {"num_cpus": workers, "include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "no Ray cluster could be started" if address is None else f"no Ray cluster answers at {address!r}"
        raise ConfigurationError(f"{where}: {str(error).partition(chr(10))[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Ray itself takes minutes to find out that nobody is there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConfigurationError(f"no Ray cluster answers at {address!r}: {error}") from error

"""The Ray cluster that work is given to: one that runs already, or one on this machine for as long as it is needed."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from nat_dpo_pipeline.errors import ConfigurationError

_SECONDS_TO_ANSWER = 10.0


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Connect this process, and disconnect it at the end; without an address a cluster of `workers` CPUs is started.

    Raises ConfigurationError when Ray is not installed, or when nothing answers at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError("the engine ray needs Ray: pip install 'nat-dpo-pipeline[ray]'") from error
    if address is not None:
        _check(address)
    # Ray says much, to standard output too; what matters of it comes as an exception.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    own = {"num_cpus": workers, "include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "no cluster could be started" if address is None else f"no Ray cluster answers at {address!r}"
        raise ConfigurationError(f"{where}: {' '.join(str(error).split())}") from error
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

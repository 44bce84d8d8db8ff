"""What back ends can be told; light, so that configurations can import it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How a job is waited for, in seconds.

    It is asked for every `poll_interval`; where asking fails, after twice as long each time, up to `longest_pause`, no
    longer than `unreachable` altogether and no more often than `max_failures` in a row. A job that has not ended after
    `timeout` is cancelled. None is no limit.
    """

    poll_interval: float = 10.0
    timeout: float | None = None
    unreachable: float = 900.0
    longest_pause: float = 60.0
    max_failures: int | None = None

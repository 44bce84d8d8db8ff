"""Waiting for a training job, whatever trains it."""

import asyncio
import logging
from collections.abc import Callable

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.backend import Backend, Job, JobStatus, StatusUnknown
from nat_dpo_pipeline.trainers.settings import Patience

logger = logging.getLogger(__name__)

_SECONDS_TO_CANCEL = 60.0
_PATIENT = Patience()


async def wait(
    backend: Backend,
    job: Job,
    patience: Patience = _PATIENT,
    *,
    on_status: Callable[[JobStatus], None] = lambda _status: None,
) -> JobStatus:
    """The last status of the job, once it has ended; `on_status` is told each one.

    A job that is not waited for to its end, because the time is up or because the waiting is cancelled, is cancelled;
    in the latter case CancelledError says what came of that.

    Raises TrainingError when the time is up, and StatusUnknown when the back end could not be asked for too long: then
    the job is left alone, as it may well go on.
    """
    limit = asyncio.timeout(patience.timeout)
    try:
        async with limit:
            return await _ended(backend, job, patience, on_status)
    except TimeoutError as error:
        if not limit.expired():
            raise
        said = await _cancelled(backend, job)
        raise TrainingError(f"job {job.id} was not done after {patience.timeout:g} s and {said}") from error
    except asyncio.CancelledError:
        said = await asyncio.shield(_cancelled(backend, job))
        logger.warning("job %s %s", job.id, said)
        raise asyncio.CancelledError(f"job {job.id} {said}") from None


async def _ended(backend: Backend, job: Job, patience: Patience, on_status: Callable[[JobStatus], None]) -> JobStatus:
    loop = asyncio.get_running_loop()
    pause, failures = patience.poll_interval, 0
    failing_since: float | None = None
    while True:
        try:
            status = await backend.status(job)
        except StatusUnknown as error:
            failing_since = loop.time() if failing_since is None else failing_since
            failing_for, failures = loop.time() - failing_since, failures + 1
            if failing_for >= patience.unreachable or failures == patience.max_failures:
                raise StatusUnknown(
                    f"job {job.id} could not be asked for {failing_for:.0f} s, and may still be going on: {error}"
                ) from error
            pause = min(2 * pause, max(patience.longest_pause, patience.poll_interval))
        else:
            pause, failing_since, failures = patience.poll_interval, None, 0
            on_status(status)
            if status.state.is_final:
                return status
        await asyncio.sleep(pause)


async def _cancelled(backend: Backend, job: Job) -> str:
    """Ask for its end, and say what came of that."""
    try:
        async with asyncio.timeout(_SECONDS_TO_CANCEL):
            await backend.cancel(job)
    except (ConfigurationError, TrainingError, TimeoutError) as error:
        return f"could not be cancelled: {str(error) or 'no answer'}; it may still be going on"
    return "was cancelled"

"""DPO jobs behind OpenAI's fine-tuning API, at OpenAI, Azure and whoever speaks it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import openai
from openai import AsyncOpenAI

from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.generation.openai_model import certificates
from nat_dpo_pipeline.generation.servers import Address, address_of, error_text, quiet_request_logs, quoted
from nat_dpo_pipeline.trainers.backend import Job, JobStatus, StatusUnknown, TrainingData
from nat_dpo_pipeline.trainers.openai.replies import RUN_KEY, is_of_run, state_of, status_of
from nat_dpo_pipeline.trainers.openai.rows import RowFiles, write_row_files
from nat_dpo_pipeline.trainers.openai.settings import OpenAISettings

logger = logging.getLogger(__name__)
T = TypeVar("T")

_OPENAI_URL = "https://api.openai.com/"
_NO_KEY_NEEDED = "not-needed"
_JOBS_A_PAGE = 100
_MOST_PAGES = 10
_EVENTS_LOOKED_AT = 50
# No such route, or not for this method.
_NO_ROUTE = frozenset({404, 405, 501})
# Whether the server acted on such a request is not certain.
_CONFLICTING = frozenset({408, 409})
# A body that is not JSON comes through the client as it is.
_FAILURES = (openai.OpenAIError, json.JSONDecodeError)
_FILE_KEYS = {SplitName.TRAIN: "training_file", SplitName.VALIDATION: "validation_file"}
_ADVICE = {
    401: "check its api_key",
    403: "the key, or the account, may not fine-tune there",
    404: "check its model and base_url",
    429: "the account's limit is reached or its credit spent",
}


@dataclass(frozen=True, slots=True)
class _Submission:
    """What a job is created from: the ids of its files by side, and what is known of their rows."""

    run_id: str
    files: Mapping[SplitName, str]
    written: RowFiles
    seed: int


@dataclass(frozen=True, slots=True)
class _Server:
    """Where jobs go, and what went wrong there in words."""

    address: Address
    key: str = field(repr=False)
    timeout: float

    @property
    def is_openai(self) -> bool:
        return self.address.url.startswith(_OPENAI_URL)

    def __str__(self) -> str:
        return f"the fine-tuning API at {self.address.url}"

    def quoted(self, said: str) -> str:
        return quoted(said, [self.key, *self.address.secrets])

    def told(self, error: Exception, doing: str) -> str:
        if isinstance(error, openai.APIStatusError):
            advice = _ADVICE.get(error.status_code)
            said = self.quoted(error_text(error.body, error.message))
            return f"{self} answered {error.status_code} when {doing}: {said}" + (f" ({advice})" if advice else "")
        if isinstance(error, openai.APITimeoutError):
            return f"{self} did not answer within {self.timeout:g} s when {doing}"
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            said = self.quoted(str(cause) or type(cause).__name__)
            return f"{self} cannot be reached: {said} (check its base_url and the network)"
        said = self.quoted(str(error))
        return f"{self} answered with what cannot be read when {doing}: {said} (check its base_url)"

    @contextmanager
    def translating(self, doing: str, may_pass: type[TrainingError] = TrainingError) -> Iterator[None]:
        """Failures as TrainingError; as `may_pass` those that may not happen again."""
        try:
            yield
        except _FAILURES as error:
            kind = may_pass if _may_pass(error) else TrainingError
            raise kind(self.told(error, doing)) from error


@dataclass(frozen=True, slots=True)
class OpenAIPauses:
    """In seconds. A file is looked at every `file_poll`, and given up after `file_wait`. A job that may have been
    created although the reply got lost is looked for after each of `looks`.
    """

    file_poll: float = 2.0
    file_wait: float = 1800.0
    looks: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0, 20.0)


_PAUSES = OpenAIPauses()


class OpenAIBackend:
    """Trains with a fine-tuning job of method `dpo`. Each call connects anew: between two looks at a job a connection
    would be closed anyway, and so nothing is left open.
    """

    name = "openai"

    def __init__(self, settings: OpenAISettings, pauses: OpenAIPauses = _PAUSES) -> None:
        self._settings = settings
        self._pauses = pauses

    async def check(self) -> None:
        """Whether there is a key that may look at jobs, and at OpenAI itself whether there is such a model.

        A server that has neither a list of jobs nor one of models is taken for a wrong address.
        """
        async with self._connected() as client:
            with self._server.translating("asked for its jobs"):
                jobs = await _unless_missing(_page(client.fine_tuning.jobs.list(limit=1)))
                models = None if jobs is not None else await _unless_missing(_page(client.models.list()))
            if not hasattr(jobs if jobs is not None else models, "data"):
                raise ConfigurationError(f"{self._server} has no list of jobs or models: check its base_url")
            await self._check_model(client)

    async def submit(self, data: TrainingData) -> Job:
        """Upload the rows that the API takes and create the job, or find the one of this run. Never creates two.

        Raises TrainingError. Files are deleted again when it is certain that no job reads them.
        """
        async with self._connected() as client:
            with TemporaryDirectory(prefix="nat-dpo-", ignore_cleanup_errors=True) as folder:
                min_rows = self._settings.min_rows
                written = await asyncio.to_thread(write_row_files, data.splits, Path(folder), min_rows=min_rows)
                if written.refused:
                    logger.warning("left out of what is trained on: %s", listed(written.refused))
                if (known := await self._known(client, data.run_id)) is not None:
                    logger.warning("job %s of run %s is there already: no other is created", known.id, data.run_id)
                    return known
                files = await self._uploaded(client, written, data.run_id)
            return await self._started(client, _Submission(data.run_id, files, written, data.seed))

    async def status(self, job: Job) -> JobStatus:
        """With metrics and progress of the newest event that tells them, and the checkpoints of an ended job."""
        doing = f"asked for job {job.id}"
        async with self._connected() as client:
            jobs = client.with_options(max_retries=0).fine_tuning.jobs  # whoever waits for the job asks again
            with self._server.translating(doing, may_pass=StatusUnknown):
                found = await jobs.retrieve(job.id)
            state = state_of(found)
            if state is None:
                raise StatusUnknown(f"{self._server} answered with something that is no job when {doing}")
            events = await _listed(jobs.list_events(job.id, limit=_EVENTS_LOOKED_AT))
            checkpoints = await _listed(jobs.checkpoints.list(job.id)) if state.is_final else ()
        status = status_of(found, events, checkpoints)
        return replace(status, message=status.message and self._server.quoted(status.message))

    async def cancel(self, job: Job) -> None:
        async with self._connected() as client:
            await self._cancel(client, job.id)

    async def resume(self, job: Job) -> None:
        """OpenAI has no way to go on with a job that ended."""
        raise TrainingError(f"job {job.id} has ended and cannot go on: submit a new one with nat finetune")

    async def cleanup(self, job: Job) -> None:
        """Delete the files of an ended job, if that is wanted."""
        if not self._settings.delete_files or not (await self.status(job)).state.is_final:
            return
        files = [job.facts.get(key) for key in _FILE_KEYS.values()]
        async with self._connected() as client:
            await self._delete(client, [file for file in files if isinstance(file, str)])

    @cached_property
    def _server(self) -> _Server:
        settings = self._settings
        server = _Server(address_of(settings.address, "fine-tuning"), settings.key, settings.request_timeout)
        if not (server.key.isascii() and server.key.isprintable()):
            raise ConfigurationError("api_key (or OPENAI_API_KEY) holds characters that no key has")
        if not server.key and server.is_openai:
            raise ConfigurationError(f"{server} needs a key: set OPENAI_API_KEY or api_key")
        return server

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncOpenAI]:
        server = self._server
        quiet_request_logs()
        async with AsyncOpenAI(
            base_url=server.address.url,
            api_key=server.key or _NO_KEY_NEEDED,
            timeout=server.timeout,
            default_headers=dict(server.address.login),
            default_query=dict(server.address.query),
            http_client=openai.DefaultAsyncHttpxClient(verify=certificates()),
        ) as client:
            yield client

    async def _check_model(self, client: AsyncOpenAI) -> None:
        model = self._settings.model
        with self._server.translating(f"asked for model {model!r}"):
            known = await _unless_missing(client.models.retrieve(model))
        if known is None and self._server.is_openai:
            raise ConfigurationError(f"{self._server} knows no model {model!r}: check its model")
        if known is None:
            logger.info("%s does not say whether it can train model %r", self._server, model)

    async def _known(self, client: AsyncOpenAI, run_id: str) -> Job | None:
        with self._server.translating("asked for its jobs"):
            found = await _unless_missing(_job_of_run(client, run_id))
        return None if found is None else self._job(found, run_id)

    async def _uploaded(self, client: AsyncOpenAI, written: RowFiles, run_id: str) -> dict[SplitName, str]:
        files: dict[SplitName, str] = {}
        try:
            for side, path in written.paths.items():
                files[side] = await self._upload(client, path, f"{run_id}-{path.name}")
            for side, file in files.items():
                await self._wait_for_file(client, file, side)
        except BaseException:
            await self._delete(client, files.values())
            raise
        return files

    async def _upload(self, client: AsyncOpenAI, path: Path, name: str) -> str:
        """Streams the file; its id."""
        with self._server.translating(f"sent {path.name}"), await asyncio.to_thread(path.open, "rb") as file:
            sent = await client.files.create(file=(name, file), purpose="fine-tune")
        if (file_id := _id_of(sent)) is None:
            raise TrainingError(f"{self._server} answered with something that is no file when sent {path.name}")
        return file_id

    async def _wait_for_file(self, client: AsyncOpenAI, file: str, side: SplitName) -> None:
        pauses = self._pauses
        with self._server.translating(f"asked for the {side} file {file}"):
            try:
                done = await client.files.wait_for_processing(
                    file, poll_interval=pauses.file_poll, max_wait_seconds=pauses.file_wait
                )
            except RuntimeError as error:
                message = f"{self._server} did not process the {side} file within {pauses.file_wait:g} s"
                raise TrainingError(message) from error
        if done.status != "processed":
            reason = self._server.quoted(done.status_details or "no reason given")
            raise TrainingError(f"{self._server} cannot use the {side} file: {reason}")

    async def _started(self, client: AsyncOpenAI, submission: _Submission) -> Job:
        """The created job. When this is cancelled meanwhile, the job is too."""
        creating = asyncio.ensure_future(self._create(client, submission))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            logger.warning("interrupted while the job was being created: finding out whether it was, to cancel it")
            try:
                job = await creating
                await self._cancel(client, job.id)
            except TrainingError as error:
                logger.warning("%s", error)
            else:
                logger.warning("job %s was cancelled", job.id)
            raise

    async def _create(self, client: AsyncOpenAI, submission: _Submission) -> Job:
        # The client's own retries would create a second job, which is paid for too.
        jobs = client.with_options(max_retries=0).fine_tuning.jobs
        made: object = None
        try:
            made = await jobs.create(**_request(self._settings, submission))
            doubt = f"{self._server} answered with something that is no job when sent one"
        except _FAILURES as error:
            doubt = self._server.told(error, "sent a job")
            if _is_refusal(error):
                await self._delete(client, submission.files.values())
                raise TrainingError(doubt) from error
        if _id_of(made) is None:
            made = await self._sought(client, submission, doubt)
        return self._job(made, submission.run_id, _facts(submission))

    async def _sought(self, client: AsyncOpenAI, submission: _Submission, doubt: str) -> object:
        """The job that may have been created although the reply does not say so."""
        logger.warning("%s: looking for the job of run %s, which may have been created", doubt, submission.run_id)
        has_looked = False
        for pause in self._pauses.looks:
            await asyncio.sleep(pause)
            try:
                found = await _job_of_run(client, submission.run_id, submission.files[SplitName.TRAIN])
            except _FAILURES:
                continue
            has_looked = True
            if found is not None:
                return found
        looked = "no job of this run is listed there" if has_looked else "its jobs could not be listed"
        raise TrainingError(
            f"{doubt}; {looked}, and it was not sent again, as a second job would be paid for too: before you start "
            f"again look there for one with {RUN_KEY} {submission.run_id} in its metadata"
        )

    async def _cancel(self, client: AsyncOpenAI, job_id: str) -> None:
        with self._server.translating(f"asked to cancel job {job_id}"):
            try:
                await client.fine_tuning.jobs.cancel(job_id)
            except (openai.BadRequestError, openai.ConflictError):
                state = state_of(await client.fine_tuning.jobs.retrieve(job_id))
                if state is None or not state.is_final:
                    raise

    async def _delete(self, client: AsyncOpenAI, files: Iterable[str]) -> None:
        for file in files:
            try:
                await client.files.delete(file)
            except openai.NotFoundError:
                pass
            except _FAILURES as error:
                logger.warning("%s", self._server.told(error, f"asked to delete file {file}"))

    def _job(self, found: object, run_id: str, facts: Mapping[str, object] | None = None) -> Job:
        known = {"base_url": self._server.address.url, "model": self._settings.model}
        files = {key: getattr(found, key, None) for key in _FILE_KEYS.values()}
        return Job(self.name, _id_of(found) or "", run_id, {**known, **files, **(facts or {})})


def _request(settings: OpenAISettings, submission: _Submission) -> dict[str, Any]:
    method = {"type": "dpo", "dpo": {"hyperparameters": settings.hyperparameters()}}
    request: dict[str, Any] = {
        "model": settings.model,
        "method": method,
        "seed": submission.seed,
        "metadata": {RUN_KEY: submission.run_id},
        "extra_body": settings.extra_body,
    }
    files = {key: submission.files[side] for side, key in _FILE_KEYS.items() if side in submission.files}
    return request | files | ({"suffix": settings.suffix} if settings.suffix else {})


def _facts(submission: _Submission) -> dict[str, object]:
    files = {key: submission.files.get(side) for side, key in _FILE_KEYS.items()}
    rows = {side.value: count for side, count in submission.written.rows.items()}
    refused = {str(reason): count for reason, count in submission.written.refused.items()}
    return {**files, "rows": rows, "refused": refused}


def _id_of(found: object) -> str | None:
    value = getattr(found, "id", None)
    return value if isinstance(value, str) and value else None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500 or error.status_code == 429 or error.status_code in _CONFLICTING
    return True


def _is_refusal(error: Exception) -> bool:
    """Whether it is certain that the server did not do what it was asked for."""
    return (
        isinstance(error, openai.APIStatusError) and error.status_code < 500 and error.status_code not in _CONFLICTING
    )


async def _page(asking: Awaitable[T]) -> T:
    """A page of a list: the client fails with an error of its own on one that is text."""
    try:
        return await asking
    except AttributeError as error:
        raise openai.OpenAIError("a list that is not JSON") from error


async def _unless_missing(asking: Awaitable[T]) -> T | None:
    """None from a server that has no such route."""
    try:
        return await asking
    except openai.APIStatusError as error:
        if error.status_code not in _NO_ROUTE:
            raise
        return None


async def _listed(asking: Awaitable[Any]) -> Sequence[object]:
    """The first page of what is nice to know."""
    try:
        page = await _page(asking)
    except _FAILURES:
        return ()
    found = getattr(page, "data", None)
    return found if isinstance(found, list) else ()


async def _job_of_run(client: AsyncOpenAI, run_id: str, training_file: str | None = None) -> object | None:
    """Among the newest jobs, which come first."""
    page = await _page(client.fine_tuning.jobs.list(limit=_JOBS_A_PAGE))
    for _ in range(_MOST_PAGES):
        jobs: Sequence[object] = getattr(page, "data", None) or ()
        for job in jobs:
            if _id_of(job) is not None and is_of_run(job, run_id, training_file):
                return job
        if not page.has_next_page():
            break
        page = await _page(page.get_next_page())
    return None

"""The back end over NVIDIA's NeMo Customizer: its job, and the deployment of what it trained."""

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

from nat_dpo_pipeline.core.json_values import mapping, objects
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.files import check_writable
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import ConfigurationError, OutputError, TrainingError
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, StatusUnknown, TrainingData
from nat_dpo_pipeline.trainers.nemo.datastore import RepoFile, upload
from nat_dpo_pipeline.trainers.nemo.deployment import Deployment, as_name
from nat_dpo_pipeline.trainers.nemo.http import AS_USUAL, TRIES, Json, Nemo, Requests, Service, connected, path_of
from nat_dpo_pipeline.trainers.nemo.rows import REPO_PATHS, usable, write_files
from nat_dpo_pipeline.trainers.nemo.settings import NemoSettings
from nat_dpo_pipeline.trainers.nemo.status import job_status

logger = logging.getLogger(__name__)

_JOBS = "/v1/customization/jobs"
_CONFIGS = "/v1/customization/configs"
_NAMESPACES = "/v1/namespaces"
_DATASTORE_NAMESPACES = "/v1/datastore/namespaces"
_PAGE_SIZE = 100
_EXISTS = (409, 422)  # as NVIDIA's adapter: the datastore says 422 too
_OUTPUT_MODEL = "output_model"


class NemoCustomizerBackend:
    """Trains in NeMo Customizer. A job is known by its id alone, so any process can go on with it."""

    name = "nemo-customizer"

    def __init__(self, settings: NemoSettings, requests: Requests = AS_USUAL) -> None:
        self.settings = settings
        self._requests = requests
        self._deploying_since: dict[str, float] = {}

    async def check(self) -> None:
        """Look for the customization configuration, then for the namespaces, and make those that are missing."""
        if folder := self.settings.dataset_output_dir:
            try:
                check_writable(folder)
            except OutputError as error:
                raise ConfigurationError(f"dataset_output_dir: {error}") from error
        async with connected(self.settings, self._requests) as nemo:
            await _check_config(nemo.entities, self.settings.customization_config)
            missing = await _missing_namespaces(nemo, self.settings.namespace)
            if missing and not self.settings.create_namespace_if_missing:
                where = " and ".join(str(service.host) for service in missing)
                raise ConfigurationError(
                    f"there is no namespace {self.settings.namespace!r} in {where}: create it, or set "
                    "create_namespace_if_missing: true"
                )
            for service in missing:
                await _make_namespace(nemo, service, self.settings.namespace)

    async def submit(self, data: TrainingData) -> Job:
        """Upload a dataset under a name of its own and start the job. Raises as Service does, and OutputError."""
        name = f"{self.settings.dataset_name}-{as_name(data.run_id)}-{uuid4().hex[:8]}"
        async with connected(self.settings, self._requests) as nemo:
            await self._upload(nemo, name, data)
            body = job_body(self.settings, name, data)
            answer = await self._started(nemo.entities, body)
        facts = {
            _OUTPUT_MODEL: answer.get(_OUTPUT_MODEL) or body[_OUTPUT_MODEL],
            "dataset_name": name,
            "namespace": self.settings.namespace,
            "name": body["name"],
        }
        return Job(self.name, str(answer["id"]), data.run_id, facts)

    async def status(self, job: Job) -> JobStatus:
        """Of a job that trained: how its deployment stands, which the first look at it starts if one is configured."""
        async with connected(self.settings, self._requests) as nemo:
            answer = await nemo.entities.get(f"{_JOBS}{path_of(job.id)}/status", repeat=False)
            status = job_status(answer.body)
            if status.state is not JobState.SUCCEEDED:
                return status
            model = await _output_model(nemo.entities, job)
            trained = replace(status, message=f"trained {model or 'no model that has a name'}", result=model)
            deployment = self._deployment(job)
            return trained if deployment is None else await self._deployed(nemo.entities, deployment, trained)

    async def cancel(self, job: Job) -> None:
        """A deployment that is not ready is taken back too."""
        async with connected(self.settings, self._requests) as nemo:
            path = f"{_JOBS}{path_of(job.id)}"
            try:
                await nemo.entities.post(f"{path}/cancel", {})
            except TrainingError:
                status = job_status((await nemo.entities.get(f"{path}/status")).body)
                if not status.state.is_final:
                    raise
            if deployment := self._deployment(job):
                await deployment.stop(nemo.entities)

    async def resume(self, job: Job) -> None:
        """NeMo Customizer has no way to go on with a job that ended."""
        raise TrainingError(f"job {job.id} has ended and cannot go on: submit a new one with nat finetune")

    async def cleanup(self, job: Job) -> None:
        """Nothing is left behind but the dataset, which says what a model was trained on."""

    async def _upload(self, nemo: Nemo, name: str, data: TrainingData) -> None:
        namespace = self.settings.namespace
        with _folder(self.settings.dataset_output_dir, name) as folder:
            files = await asyncio.to_thread(_write, folder, data, self.settings)
            await upload(nemo.datastore, namespace, name, files, f"Preference pairs of run {data.run_id}")
        dataset = {
            "name": name,
            "namespace": namespace,
            "files_url": f"hf://datasets/{namespace}/{name}",
            "description": f"Preference pairs of run {data.run_id}",
        }
        # That it exists is what a repeated request is told: the name is a new one.
        await nemo.entities.post("/v1/datasets", dataset, accept=(409,))

    async def _started(self, entities: Service, body: Json) -> Json:
        """Start the job; one that starts while the waiting for it is cancelled is cancelled too."""
        starting = asyncio.create_task(_start(entities, body, self._requests.retry_pause))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(TrainingError, ConfigurationError):
                answer = await starting
                await entities.post(f"{_JOBS}{path_of(str(answer['id']))}/cancel", {})
            raise

    def _deployment(self, job: Job) -> Deployment | None:
        settings = self.settings
        return Deployment(settings.deployment, settings.namespace, job.id) if settings.deployment else None

    async def _deployed(self, entities: Service, deployment: Deployment, trained: JobStatus) -> JobStatus:
        if trained.result is None:
            return replace(trained, state=JobState.FAILED, message="the job names no model that could be deployed")
        try:
            status = await deployment.status(entities)
            if status is None:
                await deployment.start(entities, trained.result)
                status = JobStatus(JobState.RUNNING, f"deployment {deployment.full_name} is created")
        except (StatusUnknown, ConfigurationError):
            raise
        except TrainingError as error:
            status = JobStatus(JobState.FAILED, str(error))
        if status.state is JobState.RUNNING and (seconds := self._overdue(deployment)):
            status = JobStatus(JobState.FAILED, f"{status.message}; it was not ready after {seconds:g} s")
        message = status.message
        if status.state is JobState.FAILED:
            message = f"{trained.result} is trained but not deployed: {message}"
        return replace(trained, state=status.state, message=message)

    def _overdue(self, deployment: Deployment) -> float | None:
        """The time limit, if that has passed since this process first saw the deployment not ready."""
        now, limit = asyncio.get_running_loop().time(), self.settings.deployment_timeout_seconds
        return limit if now - self._deploying_since.setdefault(deployment.job_id, now) >= limit else None


def job_body(settings: NemoSettings, name: str, data: TrainingData) -> dict[str, object]:
    """The body of POST /v1/customization/jobs; job, dataset and model have one name, which is new for each job."""
    return {
        "name": name,
        "namespace": settings.namespace,
        "description": settings.description or f"Run {data.run_id} of nat_dpo_pipeline",
        "config": settings.customization_config,
        "dataset": {"name": name, "namespace": settings.namespace},
        "hyperparameters": {**settings.hyperparameters.to_json(), "seed": data.seed},
        _OUTPUT_MODEL: settings.output_model or f"{settings.namespace}/{name}",
    }


async def _start(entities: Service, body: Json, pause: float) -> Json:
    """Start the job, once: before a request that may have started it is sent again, the job is looked for by name."""
    name, problem = str(body["name"]), ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(pause * 2 ** (attempt - 1))
        try:
            answer = await entities.post(_JOBS, body, accept=(409,) if attempt else (), repeat=False)
            if answer.status != 409:
                return _with_id(answer.body, entities)
        except StatusUnknown as error:
            problem = str(error)
        try:
            if found := await _job_named(entities, name):
                return _with_id(found, entities)
        except StatusUnknown as error:
            raise TrainingError(
                f"job {name!r} may have been started, look for it before you start it again: {error}"
            ) from error
    raise TrainingError(f"job {name!r} could not be started: {problem}")


def _with_id(body: Json, entities: Service) -> Json:
    if not body.get("id"):
        raise TrainingError(f"{entities.host} started a job and did not say its id")
    return body


async def _job_named(entities: Service, name: str) -> Json | None:
    async for job in _listed(entities, _JOBS):
        if job.get("name") == name:
            return job
    return None


async def _listed(entities: Service, path: str) -> AsyncIterator[Json]:
    """The entries of all pages, newest first."""
    page, pages = 1, 1
    while page <= pages:
        query = {"page": str(page), "page_size": str(_PAGE_SIZE), "sort": "-created_at"}
        body = (await entities.get(path, query=query)).body
        for entry in objects(body.get("data")):
            yield entry
        total = mapping(body.get("pagination")).get("total_pages")
        page, pages = page + 1, total if isinstance(total, int) else 1


async def _check_config(entities: Service, config: str) -> None:
    namespace, _, name = config.partition("/")
    if name and (await entities.get(f"{_CONFIGS}{path_of(namespace, name)}", accept=(404,))).status != 404:
        return
    there_are = [f"{entry.get('namespace')}/{entry.get('name')}" async for entry in _listed(entities, _CONFIGS)]
    if config not in there_are:
        near = get_close_matches(config, there_are) or there_are[:5]
        known = f"there are {', '.join(near)}" if near else "there is none at all"
        raise ConfigurationError(f"{entities.host} has no customization_config {config!r}; {known}")


async def _missing_namespaces(nemo: Nemo, namespace: str) -> list[Service]:
    there = {
        nemo.entities: await nemo.entities.get(f"{_NAMESPACES}{path_of(namespace)}", accept=(404,)),
        nemo.datastore: await nemo.datastore.get(f"{_DATASTORE_NAMESPACES}{path_of(namespace)}", accept=(404,)),
    }
    return [service for service, answer in there.items() if answer.status == 404]


async def _make_namespace(nemo: Nemo, service: Service, namespace: str) -> None:
    if service is nemo.entities:
        body = {"id": namespace, "description": "Made by nat_dpo_pipeline"}
        await service.post(_NAMESPACES, body, accept=(409,))
    else:
        form = urlencode({"namespace": namespace}).encode()
        await service.post_text(_DATASTORE_NAMESPACES, form, "application/x-www-form-urlencoded", accept=_EXISTS)
    logger.info("made namespace %s in %s", namespace, service.host)


async def _output_model(entities: Service, job: Job) -> str | None:
    """Where the reference does not say it, the job does: whoever saved the reference may have known less."""
    known = job.facts.get(_OUTPUT_MODEL)
    if not known:
        known = (await entities.get(f"{_JOBS}{path_of(job.id)}", repeat=False)).body.get(_OUTPUT_MODEL)
    return str(known) if known else None


@contextmanager
def _folder(kept_in: Path | None, name: str) -> Iterator[Path]:
    """Where the files of a dataset go: a folder of its own in `kept_in`, or one that goes again. Raises OutputError."""
    if kept_in is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        check_writable(kept_in / name)
        yield kept_in / name


def _write(folder: Path, data: TrainingData, settings: NemoSettings) -> list[RepoFile]:
    splits, left_out, given = {}, Counter[str](), 0
    for side, rows in data.splits.items():
        given += len(rows)
        splits[side], reasons = usable(rows)
        left_out += reasons
    files, invalid = write_files(
        folder,
        splits,
        training_type=settings.hyperparameters.training_type,
        full_history=settings.use_full_message_history,
    )
    left_out.update(invalid)
    if left_out:
        logger.warning("left out of the dataset: %s", listed(left_out))
    if SplitName.TRAIN not in files:
        raise TrainingError(f"none of the {given} pairs can be trained on: {listed(left_out)}")
    return [RepoFile(folder / file.path, REPO_PATHS[side], file.size, file.sha256) for side, file in files.items()]

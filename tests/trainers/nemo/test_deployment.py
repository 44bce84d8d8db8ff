from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.testing.server import Response
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, StatusUnknown, TrainingData
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from nat_dpo_pipeline.trainers.nemo.deployment import as_name
from nat_dpo_pipeline.trainers.settings import Patience
from nat_dpo_pipeline.trainers.waiting import wait
from tests.servers.nemo import NemoService

MakeBackend = Callable[..., NemoCustomizerBackend]
MakeData = Callable[..., TrainingData]
IMAGE = {"image_name": "nvcr.io/nim/m", "image_tag": "1.2", "gpu": 2, "description": "served"}
NIM: dict[str, Any] = {"deploy_on_completion": True, "deployment_config": IMAGE}
NAME = "ns/nat-deployment-cust-1"
QUICK = Patience(poll_interval=0.002)


@pytest.fixture
def backend(nemo: NemoService, make_backend: MakeBackend) -> NemoCustomizerBackend:
    nemo.namespaces.add("ns")
    nemo.datastore_namespaces.add("ns")
    return make_backend(**NIM)


@pytest.fixture
async def job(backend: NemoCustomizerBackend, make_data: MakeData) -> Job:
    return await backend.submit(make_data())


async def test_a_model_is_deployed_when_it_is_ready_and_not_before(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job
) -> None:
    nemo.deployment_statuses = [{"status": "pending"}, {"status": "unknown"}, {"status": "ready"}]
    told: list[JobStatus] = []
    status = await wait(backend, job, QUICK, on_status=told.append)
    assert [(one.state, one.message) for one in told] == [
        (JobState.RUNNING, f"deployment {NAME} is created"),
        (JobState.RUNNING, f"deployment {NAME} is pending"),
        (JobState.RUNNING, f"deployment {NAME} is unknown"),
        (JobState.SUCCEEDED, f"deployment {NAME} is ready"),
    ]
    assert status.result == job.facts["output_model"]
    assert nemo.deployment_configs == {
        "ns/nat-deploy-config-cust-1": {
            "name": "nat-deploy-config-cust-1",
            "namespace": "ns",
            "description": "served",
            "model": job.facts["output_model"],
            "nim_deployment": {"image_name": "nvcr.io/nim/m", "image_tag": "1.2", "gpu": 2},
        }
    }
    assert nemo.deployments[NAME] == {
        "name": "nat-deployment-cust-1",
        "namespace": "ns",
        "description": "served",
        "config": "ns/nat-deploy-config-cust-1",
    }


async def test_nothing_is_deployed_before_the_training_has_ended_well(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job
) -> None:
    nemo.statuses = [{"status": "running"}, {"status": "failed"}]
    assert (await wait(backend, job, QUICK)).state is JobState.FAILED
    assert nemo.deployments == {}


async def test_nothing_is_deployed_unless_asked(nemo: NemoService, make_backend: MakeBackend, job: Job) -> None:
    assert (await make_backend().status(job)).message == f"trained {job.facts['output_model']}"
    assert nemo.deployments == {}


@pytest.mark.parametrize("status", ["failed", "error", "cancelled"])
async def test_a_deployment_that_ends_otherwise_has_failed(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job, status: str
) -> None:
    nemo.deployment_statuses = [{"status": status, "description": "no GPU"}]
    ended = await wait(backend, job, QUICK)
    assert ended.state is JobState.FAILED
    model = job.facts["output_model"]
    assert ended.message == f"{model} is trained but not deployed: deployment {NAME} is {status}: no GPU"
    assert ended.result == model


async def test_a_deployment_that_is_not_ready_in_time_has_failed(
    nemo: NemoService, make_backend: MakeBackend, job: Job
) -> None:
    nemo.deployment_statuses = [{"status": "pending"}]
    ended = await wait(make_backend(**NIM, deployment_timeout_seconds=0.02), job, QUICK)
    assert ended.state is JobState.FAILED
    assert str(ended.message).endswith(f"deployment {NAME} is pending; it was not ready after 0.02 s")


async def test_a_service_that_names_no_model_is_told_which_one_to_make(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.added_to_jobs = {"output_model": None}
    job = await backend.submit(make_data())
    assert (await wait(backend, job, QUICK)).state is JobState.SUCCEEDED
    assert nemo.deployment_configs["ns/nat-deploy-config-cust-1"]["model"] == job.facts["output_model"]


async def test_a_model_without_a_name_is_not_called_deployed(
    nemo: NemoService, backend: NemoCustomizerBackend, make_data: MakeData
) -> None:
    nemo.added_to_jobs = {"output_model": None}
    job = replace(await backend.submit(make_data()), facts={})
    ended = await wait(backend, job, QUICK)
    assert (ended.state, ended.message) == (JobState.FAILED, "the job names no model that could be deployed")


async def test_another_process_goes_on_with_a_saved_job(
    nemo: NemoService, backend: NemoCustomizerBackend, make_backend: MakeBackend, job: Job
) -> None:
    nemo.deployment_statuses = [{"status": "pending"}, {"status": "pending"}, {"status": "ready"}]
    await backend.status(job)
    saved = Job(job.backend, job.id, job.run_id, dict(job.facts))
    assert (await wait(make_backend(**NIM), saved, QUICK)).state is JobState.SUCCEEDED
    assert len(nemo.asked("POST", "/model-deployments")) == 1


async def test_a_deployment_is_found_among_many(nemo: NemoService, backend: NemoCustomizerBackend, job: Job) -> None:
    nemo.page_size = 1
    nemo.deployments = {f"ns/other-{n}": {"name": f"other-{n}", "namespace": "ns"} for n in range(3)}
    assert (await wait(backend, job, QUICK)).state is JobState.SUCCEEDED


async def test_a_deployment_that_exists_is_not_mistaken_for_ours(
    nemo: NemoService, make_backend: MakeBackend, job: Job
) -> None:
    nemo.deployments["ns/mine"] = {"name": "mine", "namespace": "ns", "config": "ns/of-last-week"}
    named = make_backend(deploy_on_completion=True, deployment_config={**IMAGE, "deployment_name": "mine"})
    ended = await wait(named, job, QUICK)
    assert ended.state is JobState.FAILED
    assert "deployment ns/mine exists and serves something else" in str(ended.message)
    await named.cancel(job)
    assert "ns/mine" in nemo.deployments


async def test_the_configuration_of_a_deployment_may_come_back_whole(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job
) -> None:
    await backend.status(job)
    nemo.deployments[NAME]["config"] = {"namespace": "ns", "name": "nat-deploy-config-cust-1"}
    assert (await backend.status(job)).state is JobState.SUCCEEDED


async def test_what_two_processes_start_at_once_is_one_deployment(
    nemo: NemoService, backend: NemoCustomizerBackend, make_backend: MakeBackend, job: Job
) -> None:
    nemo.trouble("GET", "/nat-deployment-cust-1", Response(404), times=2)
    for one in (backend, make_backend(**NIM)):
        assert (await one.status(job)).state is JobState.RUNNING
    assert (await backend.status(job)).state is JobState.SUCCEEDED


async def test_a_refused_deployment_has_failed_and_a_bad_moment_has_not(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job
) -> None:
    nemo.trouble("GET", "/nat-deployment-cust-1", Response(503))
    with pytest.raises(StatusUnknown):
        await backend.status(job)
    nemo.trouble("POST", "/v1/deployment/configs", Response(403))
    with pytest.raises(ConfigurationError):
        await backend.status(job)
    nemo.trouble("POST", "/v1/deployment/configs", Response(422, {"detail": "no such image"}))
    ended = await backend.status(job)
    assert ended.state is JobState.FAILED
    assert "no such image" in str(ended.message)


async def test_cancelling_takes_a_deployment_back_that_is_not_ready(
    nemo: NemoService, backend: NemoCustomizerBackend, job: Job
) -> None:
    await backend.cancel(job)
    await backend.status(job)
    await backend.cancel(job)
    assert NAME in nemo.deployments, "it is ready"
    nemo.deployment_statuses = [{"status": "pending"}]
    await backend.cancel(job)
    assert nemo.deployments == {}


@pytest.mark.parametrize(
    ("text", "name"), [("cust-Ab3", "cust-ab3"), ("dpo_1.x", "dpo-1-x"), ("--a__b--", "a-b"), ("é1", "1")]
)
def test_a_name_is_one_that_kubernetes_takes(text: str, name: str) -> None:
    assert as_name(text) == name

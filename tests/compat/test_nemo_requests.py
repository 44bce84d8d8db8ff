"""Against one and the same server our adapter asks for what NVIDIA's asks for, and NVIDIA's clients understand it."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from huggingface_hub import HfApi
from nat.data_models.finetuning import (
    DPOItem,
    FinetuneConfig,
    OpenAIMessage,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryCollection,
)
from nat.finetuning.interfaces.trainer_adapter import TrainerAdapter
from nat.plugins.customizer.dpo.config import NeMoCustomizerTrainerAdapterConfig as TheirConfig
from nat.plugins.customizer.dpo.trainer_adapter import NeMoCustomizerTrainerAdapter as TheirAdapter
from nemo_microservices import NeMoMicroservices

from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning_config import NeMoCustomizerTrainerAdapterConfig as OurConfig
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from tests.servers.nemo import CONFIG, NemoService, serving_nemo

Json = dict[str, Any]
FILES = ("training/training_file.jsonl", "validation/validation_file.jsonl")
PROMPTS: list[list[OpenAIMessage] | str] = [
    "Why?",
    [OpenAIMessage(role="system", content="Be brief."), OpenAIMessage(role="user", content="Why tea?")],
    *(f"What is {number}?" for number in range(8)),
]


# NVIDIA's adapter and clients close no connection; the collector finds them, here rather than in a later test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def nemo() -> Iterator[NemoService]:
    with serving_nemo() as service:
        yield service


def _ours(settings: Json) -> TrainerAdapter:
    config = OurConfig(**settings)
    return BackendTrainerAdapter(config, NemoCustomizerBackend(config))


def _theirs(settings: Json) -> TrainerAdapter:
    # Without a token theirs sends an empty header, which no client accepts.
    return TheirAdapter(TheirConfig(**{**settings, "hf_token": "any"}))


async def _trained(make: Callable[[Json], TrainerAdapter], nemo: NemoService, **settings: Any) -> TrainingStatusEnum:
    given = {
        "entity_host": nemo.url,
        "datastore_host": nemo.url,
        "namespace": "ns",
        "customization_config": CONFIG,
        "poll_interval_seconds": 0.01,
        **settings,
    }
    adapter = make(given)
    pairs = [
        Trajectory(
            episode=[DPOItem(prompt=prompt, chosen_response=f"good {number}", rejected_response=f"bad {number}")],
            reward=1.0,
        )
        for number, prompt in enumerate(PROMPTS)
    ]
    with TemporaryDirectory() as folder:
        await adapter.initialize(FinetuneConfig(output_dir=Path(folder)))
        ref = await adapter.submit(TrajectoryCollection(trajectories=[pairs], run_id="run-1"))
        status = await adapter.wait_until_complete(ref)
    return status.status


def _rows(nemo: NemoService) -> list[Json]:
    ((repo, files),) = nemo.repos.items()
    assert sorted(files) == list(FILES)
    return sorted((row for file in FILES for row in nemo.rows(repo, file)), key=lambda row: str(row["chosen_response"]))


@pytest.mark.parametrize("full_history", [True, False])
async def test_rows_job_and_deployment_are_nvidias_and_more(full_history: bool) -> None:
    seen: list[NemoService] = []
    for make in (_ours, _theirs):
        with serving_nemo() as nemo:
            status = await _trained(make, nemo, use_full_message_history=full_history, hyperparameters={"epochs": 5})
            assert status is TrainingStatusEnum.COMPLETED
            seen.append(nemo)
    our, their = seen
    assert _rows(our) == _rows(their)
    assert (our.namespaces, our.datastore_namespaces) == (their.namespaces, their.datastore_namespaces)
    (our_job,), (their_job,) = ([one.json for one in nemo.asked("POST", "/customization/jobs")] for nemo in seen)
    assert our_job["config"] == their_job["config"]
    assert our_job["dataset"].keys() == their_job["dataset"].keys()
    assert our_job["hyperparameters"] == {**their_job["hyperparameters"], "seed": 0}
    (our_dataset,), (their_dataset,) = (nemo.datasets.values() for nemo in seen)
    assert our_dataset.keys() == their_dataset.keys()


async def test_a_deployment_is_asked_for_as_nvidias_adapter_does() -> None:
    seen: list[NemoService] = []
    # Theirs deploys nothing unless the service names a model of its own accord.
    for make, names in ((_ours, {}), (_theirs, {"output_model": "ns/model"})):
        with serving_nemo() as nemo:
            nemo.added_to_jobs = names
            await _trained(make, nemo, deploy_on_completion=True)
            seen.append(nemo)
    (our_config,), (their_config,) = (nemo.deployment_configs.values() for nemo in seen)
    (our_deployment,), (their_deployment,) = (nemo.deployments.values() for nemo in seen)
    assert our_config.keys() == their_config.keys()
    assert our_config["nim_deployment"] == their_config["nim_deployment"]
    assert our_deployment.keys() == their_deployment.keys()


async def test_nvidias_client_reads_what_the_server_says_of_our_job(nemo: NemoService) -> None:
    """So the server that the tests go by speaks the routes of the real one."""
    await _trained(_ours, nemo, deploy_on_completion=True)
    client = NeMoMicroservices(base_url=nemo.url)
    (job,) = client.customization.jobs.list().data
    assert job.id == "cust-1"
    assert client.customization.jobs.retrieve("cust-1").output_model == job.output_model
    assert client.customization.jobs.status("cust-1").status == "completed"
    assert client.namespaces.retrieve("ns").id == "ns"
    (config,) = client.customization.configs.list().data
    assert f"{config.namespace}/{config.name}" == CONFIG
    assert client.customization.configs.retrieve(config.name, namespace=config.namespace).name == config.name
    (deployment,) = client.deployment.model_deployments.list().data
    assert (
        client.deployment.model_deployments.retrieve(deployment.name, namespace="ns").status_details.status == "ready"
    )
    client.deployment.model_deployments.delete(deployment.name, namespace="ns")
    assert nemo.deployments == {}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of httpx, about huggingface_hub
@pytest.mark.parametrize("stored_apart", [False, True])
async def test_huggingface_hub_and_ours_upload_the_same(
    nemo: NemoService, stored_apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    nemo.stored_apart = stored_apart
    await _trained(_ours, nemo)
    nemo.forget_objects()
    ((ours, files),) = nemo.repos.items()
    api = HfApi(endpoint=f"{nemo.url}/v1/hf", token=False)
    api.create_repo("ns/theirs", repo_type="dataset")
    for path, content in files.items():
        (tmp_path / "file").write_bytes(content)
        with (tmp_path / "file").open("rb") as file:  # with a path it would ask for Xet, which a data store has not
            api.upload_file(path_or_fileobj=file, path_in_repo=path, repo_id="ns/theirs", repo_type="dataset")
    assert len(nemo.asked("POST", "/info/lfs/objects/batch")) == (3 if stored_apart else 0)
    assert nemo.repos["ns/theirs"] == nemo.repos[ours]

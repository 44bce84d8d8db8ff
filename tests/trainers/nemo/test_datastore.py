import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.errors import TrainingError
from nat_dpo_pipeline.testing.server import Response
from nat_dpo_pipeline.trainers.nemo.datastore import RepoFile, upload
from nat_dpo_pipeline.trainers.nemo.http import Requests, Service, connected
from nat_dpo_pipeline.trainers.nemo.settings import NemoSettings
from tests.servers.nemo import NemoService

BATCH = "/info/lfs/objects/batch"


@pytest.fixture
async def datastore(nemo: NemoService) -> AsyncIterator[Service]:
    nemo.datastore_namespaces.add("ns")
    nemo.stored_apart = True
    settings = NemoSettings(entity_host=nemo.url, datastore_host=nemo.url, namespace="ns", customization_config="c")
    async with connected(settings, Requests(retry_pause=0.001)) as both:
        yield both.datastore


@pytest.fixture
def file(tmp_path: Path) -> RepoFile:
    content = b'{"prompt": "Why?"}\n' * 100_000
    (tmp_path / "file.jsonl").write_bytes(content)
    return RepoFile(tmp_path / "file.jsonl", "training/file.jsonl", len(content), hashlib.sha256(content).hexdigest())


async def test_a_large_file_arrives_whole_with_what_the_server_asked_for(
    nemo: NemoService, datastore: Service, file: RepoFile
) -> None:
    await upload(datastore, "ns", "name", [file], "summary")
    assert nemo.repos["ns/name"] == {"training/file.jsonl": file.local.read_bytes()}
    (asked,) = nemo.asked("POST", BATCH)
    assert asked.json["transfers"] == ["basic"]
    assert len(nemo.asked("POST", "/lfs-verify")) == 1
    assert nemo.asked("GET", "/xet-write-token/main") == []


async def test_a_file_that_the_server_has_is_not_sent_again(
    nemo: NemoService, datastore: Service, file: RepoFile
) -> None:
    for name in ("one", "two"):
        await upload(datastore, "ns", name, [file], "summary")
    assert len(nemo.asked("PUT", file.sha256)) == 1
    assert nemo.repos["ns/one"] == nemo.repos["ns/two"]


async def test_a_file_is_sent_from_its_start_when_it_is_sent_again(
    nemo: NemoService, datastore: Service, file: RepoFile
) -> None:
    nemo.trouble("PUT", file.sha256, Response(503), times=2)
    await upload(datastore, "ns", "name", [file], "summary")
    assert nemo.repos["ns/name"]["training/file.jsonl"] == file.local.read_bytes()


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([], "it does not say why"),
        ([{"error": None}], "it does not say why"),
        ([{"error": {"code": 413, "message": "too large"}}], "too large"),
        ([{"error": {"code": 413}}], "413"),
    ],
)
async def test_a_file_that_the_server_does_not_take_is_told(
    nemo: NemoService, datastore: Service, file: RepoFile, objects: list[dict[str, Any]], says: str
) -> None:
    told = {"objects": [{"oid": file.sha256, **one} for one in objects]}
    nemo.trouble("POST", BATCH, Response(200, told))
    with pytest.raises(TrainingError, match=rf"does not take training/file\.jsonl: {says}"):
        await upload(datastore, "ns", "name", [file], "summary")
    assert nemo.commits == []


async def test_a_way_of_uploading_that_is_not_known_is_told(
    nemo: NemoService, datastore: Service, file: RepoFile
) -> None:
    nemo.trouble(
        "POST", "/preupload/main", Response(200, {"files": [{"path": "training/file.jsonl", "uploadMode": "xet"}]})
    )
    with pytest.raises(TrainingError, match=r"wants training/file\.jsonl uploaded in a way that is not known.*'xet'"):
        await upload(datastore, "ns", "name", [file], "summary")

"""Upload to NeMo Data Store, which speaks the Hugging Face hub's commit API and Git LFS.

Git LFS: github.com/git-lfs/git-lfs, docs/api/batch.md. Only the basic transfer is offered, which every server must
know; multipart transfer is for files of many gigabytes.
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from nat_dpo_pipeline.core.json_values import objects
from nat_dpo_pipeline.errors import TrainingError
from nat_dpo_pipeline.trainers.nemo.http import Json, Service, path_of

_HUB = "/v1/hf"
_BRANCH = "main"
_SAMPLE_BYTES = 512  # as huggingface_hub: by these the server decides how a file is uploaded
_LFS = "application/vnd.git-lfs+json"


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file on disk and its place in a repository; `sha256` is in hexadecimal."""

    local: Path
    path: str
    size: int
    sha256: str


async def upload(datastore: Service, namespace: str, name: str, files: Sequence[RepoFile], summary: str) -> None:
    """Make a dataset repository of these files, all in one commit. Raises as Service does."""
    body = {"name": name, "organization": namespace, "type": "dataset"}
    # That it exists is what a repeated request is told: the name is a new one.
    await datastore.post(f"{_HUB}/api/repos/create", body, accept=(409,))
    repo = path_of("datasets", namespace, name)
    stored_apart = await _stored_apart(datastore, repo, files)
    if large := [file for file in files if file.path in stored_apart]:
        await _upload_large(datastore, repo, large)
    commit = await asyncio.to_thread(_commit, files, stored_apart, summary)
    await datastore.post_text(f"{_HUB}/api{repo}/commit/{_BRANCH}", commit, "application/x-ndjson")


async def _stored_apart(datastore: Service, repo: str, files: Sequence[RepoFile]) -> set[str]:
    """The paths of the files that the server wants by Git LFS."""
    samples = await asyncio.to_thread(lambda: [_base64(file.local, _SAMPLE_BYTES) for file in files])
    asked = [
        {"path": file.path, "sample": sample, "size": file.size} for file, sample in zip(files, samples, strict=True)
    ]
    answer = await datastore.post(f"{_HUB}/api{repo}/preupload/{_BRANCH}", {"files": asked})
    modes = {entry.get("path"): entry.get("uploadMode") for entry in objects(answer.body.get("files"))}
    unknown = [(file.path, modes.get(file.path)) for file in files if modes.get(file.path) not in ("regular", "lfs")]
    if unknown:
        path, mode = unknown[0]
        raise TrainingError(f"{datastore.host} wants {path} uploaded in a way that is not known here: {mode!r}")
    return {file.path for file in files if modes[file.path] == "lfs"}


async def _upload_large(datastore: Service, repo: str, files: Sequence[RepoFile]) -> None:
    body = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": file.sha256, "size": file.size} for file in files],
        "hash_algo": "sha256",
        "ref": {"name": _BRANCH},
    }
    answer = await datastore.post_text(
        f"{_HUB}{repo}.git/info/lfs/objects/batch", orjson.dumps(body), _LFS, headers={"Accept": _LFS}
    )
    told = {entry.get("oid"): entry for entry in objects(answer.body.get("objects"))}
    for file in files:
        entry = told.get(file.sha256)
        if entry is None or "error" in entry:
            raise TrainingError(f"{datastore.host} does not take {file.path}: {_why(entry)}")
        # Without actions the server has the content already.
        if isinstance(actions := entry.get("actions"), Mapping):
            await _upload_object(datastore, file, actions)


def _why(entry: Json | None) -> object:
    error = entry and entry.get("error")
    return (error.get("message") or error.get("code")) if isinstance(error, Mapping) else "it does not say why"


async def _upload_object(datastore: Service, file: RepoFile, actions: Json) -> None:
    if action := _action(actions.get("upload")):
        await datastore.put_file(action.href, file.local, action.headers)
    if action := _action(actions.get("verify")):
        body = orjson.dumps({"oid": file.sha256, "size": file.size})
        await datastore.post_text(action.href, body, _LFS, headers={"Accept": _LFS, **action.headers})


@dataclass(frozen=True, slots=True)
class _Action:
    href: str
    headers: Mapping[str, str]


def _action(told: object) -> _Action | None:
    if not isinstance(told, Mapping) or not isinstance(href := told.get("href"), str):
        return None
    return _Action(href, {str(name): str(value) for name, value in (told.get("header") or {}).items()})


def _commit(files: Sequence[RepoFile], stored_apart: set[str], summary: str) -> bytes:
    """The commit as lines of JSON: https://huggingface.co/docs/hub/api, POST /api/{type}s/{repo}/commit/{revision}."""
    lines: list[Json] = [{"key": "header", "value": {"summary": summary, "description": ""}}]
    for file in files:
        if file.path in stored_apart:
            pointer = {"path": file.path, "algo": "sha256", "oid": file.sha256, "size": file.size}
            lines.append({"key": "lfsFile", "value": pointer})
        else:
            content = {"content": _base64(file.local), "path": file.path, "encoding": "base64"}
            lines.append({"key": "file", "value": content})
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def _base64(file: Path, size: int = -1) -> str:
    with file.open("rb") as stream:
        return b64encode(stream.read(size)).decode()

"""NeMo Microservices and NeMo Data Store on this machine: their routes, as nemo-microservices 1.5 and huggingface_hub
call them, with jobs and deployments that go as a test says.

    with serving_nemo() as nemo:
        nemo.url
"""

import hashlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs

import orjson
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from nat_dpo_pipeline.testing.faults import Fault
from nat_dpo_pipeline.testing.messages import Request, Response, asgi_answer
from nat_dpo_pipeline.testing.server import LoopbackServer, serving

Json = dict[str, Any]
CONFIG = "meta/llama-3.2-1b-instruct@v1.0.0+A100"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; `authorization` is that header."""

    method: str
    path: str
    content: bytes
    authorization: str | None

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass
class Trouble:
    """What becomes of the next `times` requests of a route, in the place of the answer.

    `afterwards`: the request is carried out all the same, and only the answer is lost.
    """

    method: str
    path: str
    what: Fault | Response
    times: int
    afterwards: bool = False

    def meets(self, request: Request) -> bool:
        return self.times > 0 and request.method == self.method and request.path.partition("?")[0].endswith(self.path)


@dataclass
class NemoService:
    """`statuses` are what a job says of itself, one a look, the last one for ever; so are `deployment_statuses`.

    `stored_apart`: files are wanted by Git LFS. `added_to_jobs` are fields that the service fills in, over those that
    were asked for.
    """

    url: str = ""
    configs: tuple[str, ...] = (CONFIG,)
    statuses: list[Json] = field(default_factory=lambda: [{"status": "completed", "percentage_done": 100.0}])
    deployment_statuses: list[Json] = field(default_factory=lambda: [{"status": "ready", "description": "up"}])
    stored_apart: bool = False
    added_to_jobs: Json = field(default_factory=dict)
    page_size: int = 100
    requests: list[Asked] = field(default_factory=list)
    namespaces: set[str] = field(default_factory=set)
    datastore_namespaces: set[str] = field(default_factory=set)
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    datasets: dict[str, Json] = field(default_factory=dict)
    jobs: dict[str, Json] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    deployment_configs: dict[str, Json] = field(default_factory=dict)
    deployments: dict[str, Json] = field(default_factory=dict)
    _objects: dict[str, bytes] = field(default_factory=dict)
    _troubles: list[Trouble] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._app = asgi_answer(Starlette(routes=list(_routes(self))))

    def trouble(
        self, method: str, path: str, what: Fault | Response, times: int = 1, *, afterwards: bool = False
    ) -> None:
        """What becomes of the next requests whose path ends so; see Trouble."""
        self._troubles.append(Trouble(method, path, what, times, afterwards))

    def fault(self, request: Request) -> Fault | None:
        """For LoopbackServer, which asks this first: what goes wrong on the line."""
        path = request.path.partition("?")[0]
        self.requests.append(Asked(request.method, path, request.content, request.headers.get("authorization")))
        for trouble in self._troubles:
            if isinstance(trouble.what, Fault) and trouble.meets(request):
                trouble.times -= 1
                return trouble.what
        return None

    async def answer(self, request: Request) -> Response:
        """For LoopbackServer."""
        for trouble in self._troubles:
            if isinstance(trouble.what, Response) and trouble.meets(request):
                trouble.times -= 1
                if trouble.afterwards:
                    await self._carried_out(request)
                return trouble.what
        return await self._carried_out(request)

    async def _carried_out(self, request: Request) -> Response:
        response = self._app(request)
        return await response if isawaitable(response) else response

    def asked(self, method: str, path: str) -> list[Asked]:
        """The requests whose path ends so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(path)]

    def rows(self, repo: str, path: str) -> list[Json]:
        """A file of JSON lines in a repository."""
        return [orjson.loads(line) for line in self.repos[repo][path].splitlines()]

    # Entities

    def make_namespace(self, body: Json) -> JSONResponse:
        return _made_once(self.namespaces, body["id"], {"id": body["id"]})

    def namespace(self, name: str) -> JSONResponse:
        return _found({"id": name} if name in self.namespaces else None)

    def make_dataset(self, body: Json) -> JSONResponse:
        return _added(self.datasets, body)

    def config(self, namespace: str, name: str) -> JSONResponse:
        full = f"{namespace}/{name}"
        return _found({"namespace": namespace, "name": name} if full in self.configs else None)

    def list_configs(self, page: int) -> JSONResponse:
        split = (config.partition("/") for config in self.configs)
        return self._page([{"namespace": namespace, "name": name} for namespace, _, name in split], page)

    # Jobs

    def make_job(self, body: Json) -> JSONResponse:
        dataset = f"{body['dataset']['namespace']}/{body['dataset']['name']}"
        if dataset not in self.datasets:
            return JSONResponse({"detail": f"dataset {dataset} is not registered"}, 422)
        if body.get("name") and any(job.get("name") == body["name"] for job in self.jobs.values()):
            return JSONResponse({"detail": f"job {body['name']} exists"}, 409)
        job_id = f"cust-{len(self.jobs) + 1}"
        self.jobs[job_id] = {"output_model": None, **body, **self.added_to_jobs, "id": job_id, "status": "created"}
        return JSONResponse(self.jobs[job_id])

    def job(self, job_id: str) -> JSONResponse:
        return _found(self.jobs.get(job_id))

    def list_jobs(self, page: int) -> JSONResponse:
        return self._page([*reversed(self.jobs.values())], page)

    def job_status(self, job_id: str) -> JSONResponse:
        if job_id not in self.jobs:
            return _found(None)
        if job_id in self.cancelled:
            return JSONResponse({"status": "cancelled"})
        return JSONResponse(_next(self.statuses))

    def cancel_job(self, job_id: str) -> JSONResponse:
        if self.statuses[0]["status"] in ("completed", "failed", "cancelled", "ready"):
            return JSONResponse({"detail": "the job has ended"}, 400)
        self.cancelled.append(job_id)
        return JSONResponse({"id": job_id})

    # Deployments

    def make_deployment_config(self, body: Json) -> JSONResponse:
        return _added(self.deployment_configs, body)

    def make_deployment(self, body: Json) -> JSONResponse:
        return _added(self.deployments, body)

    def deployment(self, namespace: str, name: str) -> JSONResponse:
        known = self.deployments.get(f"{namespace}/{name}")
        return _found(known and {**known, "status_details": _next(self.deployment_statuses)})

    def list_deployments(self, page: int) -> JSONResponse:
        details = _next(self.deployment_statuses)
        return self._page([{"status_details": details, **one} for one in self.deployments.values()], page)

    def remove_deployment(self, namespace: str, name: str) -> JSONResponse:
        return _found(self.deployments.pop(f"{namespace}/{name}", None))

    # Data store

    def make_datastore_namespace(self, form: bytes) -> JSONResponse:
        (name,) = parse_qs(form.decode())["namespace"]
        return _made_once(self.datastore_namespaces, name, {"namespace": name})

    def datastore_namespace(self, name: str) -> JSONResponse:
        return _found({"namespace": name} if name in self.datastore_namespaces else None)

    def make_repo(self, body: Json) -> JSONResponse:
        name = f"{body['organization']}/{body['name']}"
        if body["organization"] not in self.datastore_namespaces:
            return JSONResponse({"error": f"there is no namespace {body['organization']}"}, 404)
        url = {"url": f"{self.url}/v1/hf/datasets/{name}"}
        if name in self.repos:
            return JSONResponse(url, 409)
        self.repos[name] = {}
        return JSONResponse(url)

    def preupload(self, body: Json) -> JSONResponse:
        mode = "lfs" if self.stored_apart else "regular"
        files = [{"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None} for one in body["files"]]
        return JSONResponse({"files": files})

    def lfs_batch(self, body: Json) -> JSONResponse:
        return JSONResponse({"transfer": "basic", "objects": [self._told(one) for one in body["objects"]]})

    def _told(self, one: Json) -> Json:
        if one["oid"] in self._objects:
            return one
        upload = {"href": f"{self.url}/lfs/{one['oid']}", "header": {"X-Ticket": "7"}}
        return {**one, "actions": {"upload": upload, "verify": {"href": f"{self.url}/lfs-verify", "header": {}}}}

    def forget_objects(self) -> None:
        """Want the content of every large file again."""
        self._objects.clear()

    def put_object(self, oid: str, content: bytes) -> JSONResponse:
        if hashlib.sha256(content).hexdigest() != oid:
            return JSONResponse({"message": "the content is another one"}, 422)
        self._objects[oid] = content
        return JSONResponse({})

    def verify_object(self, body: Json) -> JSONResponse:
        is_there = len(self._objects.get(body["oid"], b"")) == body["size"]
        return JSONResponse({}, 200 if is_there else 404)

    def commit(self, repo: str, lines: bytes) -> JSONResponse:
        if repo not in self.repos:
            return _found(None)
        changes = {}
        for line in map(orjson.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changes[value["path"]] = self._objects[value["oid"]]
        self.repos[repo] |= changes
        self.commits.append((repo, sorted(changes)))
        oid = f"{len(self.commits):040x}"
        url = f"{self.url}/v1/hf/datasets/{repo}/commit/{oid}"
        return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def _page(self, entries: list[Json], page: int) -> JSONResponse:
        size = self.page_size
        pages = max(-(-len(entries) // size), 1)
        pagination = {"page": page, "page_size": size, "total_pages": pages, "total_results": len(entries)}
        shown = entries[(page - 1) * size : page * size]
        return JSONResponse({"object": "list", "data": shown, "pagination": pagination})


@contextmanager
def serving_nemo(latency: Callable[[Request], float] | None = None) -> Iterator[NemoService]:
    """Both services at one address, while they run in a thread of their own; `latency` as for LoopbackServer."""
    nemo = NemoService()
    with serving(LoopbackServer(nemo.answer, fault=nemo.fault, latency=latency)) as url:
        nemo.url = url.removesuffix("/v1")
        yield nemo


def _next(statuses: list[Json]) -> Json:
    return statuses.pop(0) if len(statuses) > 1 else statuses[0]


def _found(entity: Json | None) -> JSONResponse:
    return JSONResponse({"detail": "not found"}, 404) if entity is None else JSONResponse(entity)


def _made_once(there_are: set[str], name: str, entity: Json) -> JSONResponse:
    if name in there_are:
        return JSONResponse({"detail": f"{name} exists"}, 409)
    there_are.add(name)
    return JSONResponse(entity)


def _added(there_are: dict[str, Json], entity: Json) -> JSONResponse:
    name = f"{entity['namespace']}/{entity['name']}"
    if name in there_are:
        return JSONResponse({"detail": f"{name} exists"}, 409)
    there_are[name] = entity
    return JSONResponse(entity)


def _routes(nemo: NemoService) -> Iterable[Route]:
    def route(method: str, path: str, answer: Callable[[HttpRequest, bytes], JSONResponse]) -> Route:
        async def endpoint(request: HttpRequest) -> JSONResponse:
            return answer(request, await request.body())

        return Route(path, endpoint, methods=[method])

    def with_json(method: str, path: str, answer: Callable[[Json], JSONResponse]) -> Route:
        return route(method, path, lambda _, content: answer(orjson.loads(content)))

    def named(method: str, path: str, answer: Callable[..., JSONResponse]) -> Route:
        return route(method, path, lambda request, _: answer(**request.path_params))

    def paged(path: str, answer: Callable[[int], JSONResponse]) -> Route:
        return route("GET", path, lambda request, _: answer(int(request.query_params.get("page", "1"))))

    deployments, repo = "/v1/deployment/model-deployments", "{namespace}/{name}"
    yield with_json("POST", "/v1/namespaces", nemo.make_namespace)
    yield named("GET", "/v1/namespaces/{name}", nemo.namespace)
    yield with_json("POST", "/v1/datasets", nemo.make_dataset)
    yield paged("/v1/customization/configs", nemo.list_configs)
    yield named("GET", f"/v1/customization/configs/{repo}", nemo.config)
    yield with_json("POST", "/v1/customization/jobs", nemo.make_job)
    yield paged("/v1/customization/jobs", nemo.list_jobs)
    yield named("GET", "/v1/customization/jobs/{job_id}", nemo.job)
    yield named("GET", "/v1/customization/jobs/{job_id}/status", nemo.job_status)
    yield named("POST", "/v1/customization/jobs/{job_id}/cancel", nemo.cancel_job)
    yield with_json("POST", "/v1/deployment/configs", nemo.make_deployment_config)
    yield with_json("POST", deployments, nemo.make_deployment)
    yield paged(deployments, nemo.list_deployments)
    yield named("GET", f"{deployments}/{repo}", nemo.deployment)
    yield named("DELETE", f"{deployments}/{repo}", nemo.remove_deployment)
    yield route("POST", "/v1/datastore/namespaces", lambda _, content: nemo.make_datastore_namespace(content))
    yield named("GET", "/v1/datastore/namespaces/{name}", nemo.datastore_namespace)
    yield with_json("POST", "/v1/hf/api/repos/create", nemo.make_repo)
    yield with_json("POST", f"/v1/hf/api/datasets/{repo}/preupload/main", nemo.preupload)
    yield with_json("POST", "/v1/hf/datasets/{namespace}/{name}.git/info/lfs/objects/batch", nemo.lfs_batch)
    yield with_json("POST", "/lfs-verify", nemo.verify_object)
    yield route("PUT", "/lfs/{oid}", lambda request, content: nemo.put_object(request.path_params["oid"], content))
    yield route(
        "POST",
        f"/v1/hf/api/datasets/{repo}/commit/main",
        lambda request, content: nemo.commit("/".join(request.path_params.values()), content),
    )

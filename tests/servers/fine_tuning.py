"""A fine-tuning API as OpenAI's, on this machine, that records what it is asked and fails where it is told to."""

import json
import socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "sk-loopback"
FINAL = ("succeeded", "failed", "cancelled")


class After(Enum):
    """What goes wrong once the request has been carried out."""

    ERROR_500 = auto()
    SILENCE = auto()
    LOST_CONNECTION = auto()
    PAGE = auto()


#: Instead of an answer: a status, or what happens after all has been done.
Fault = int | After


class FineTuningServer:
    """Its jobs take the next of `states` each time that they are asked for, and stay in the last.

    `faults` holds by method and path, as in `POST /fine_tuning/jobs`, what goes wrong in the next requests, and
    `faults_after_creation` in those once a job was created, which `hidden_looks` do not show and which as many others
    follow as `others_after_creation` says. `missing` are paths that there are not.
    """

    def __init__(self) -> None:
        self.url = ""
        self.start_over()

    def start_over(self) -> None:
        """Forget all, and fail in nothing."""
        self.requests: list[str] = []
        self.queries: list[str] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        self.states = ["validating_files", "queued", "running", "succeeded"]
        self.events: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.job_error: dict[str, Any] | None = None
        self.file_states = ["uploaded", "processed"]
        self.file_details: str | None = None
        self.models = ["gpt-4.1-mini-2025-04-14"]
        self.missing: set[str] = set()
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.faults_after_creation: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.hidden_looks = 0
        self.others_after_creation = 0
        self.on_create: Callable[[], object] = lambda: None
        self.keeps_metadata = True
        self.says_when_refusing = "Incorrect API key provided: {key}"

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self._handled(self._list_models)),
                Route("/v1/models/{name:path}", self._handled(self._get_model)),
                Route("/v1/files", self._handled(self._add_file), methods=["POST"]),
                Route("/v1/files/{name}", self._handled(self._file), methods=["GET", "DELETE"]),
                Route("/v1/fine_tuning/jobs", self._handled(self._jobs), methods=["GET", "POST"]),
                Route("/v1/fine_tuning/jobs/{name}", self._handled(self._get_job)),
                Route("/v1/fine_tuning/jobs/{name}/events", self._handled(self._list_events)),
                Route("/v1/fine_tuning/jobs/{name}/checkpoints", self._handled(self._list_checkpoints)),
                Route("/v1/fine_tuning/jobs/{name}/cancel", self._handled(self._cancel), methods=["POST"]),
            ]
        )

    def asked(self, call: str) -> int:
        """How many requests there were of this method and path."""
        return self.requests.count(call)

    def rows(self, place: int) -> list[dict[str, Any]]:
        """The rows of the file that was uploaded at this place."""
        return [json.loads(line) for line in list(self.files.values())[place]["content"].splitlines()]

    def add_job(self, **values: Any) -> str:
        """A job that somebody created before."""
        name = f"ftjob-{len(self.jobs)}"
        job = {"id": name, "object": "fine_tuning.job", "status": self.states[0], "created_at": 0, "error": None}
        self.jobs[name] = job | {"fine_tuned_model": None, "trained_tokens": None, "seen": 0, "metadata": {}} | values
        return name

    def _handled(self, answer: Any) -> Any:
        async def handle(request: Request) -> Response:
            path = request.url.path.removeprefix("/v1")
            call = f"{request.method} {path}"
            self.requests.append(call)
            self.queries.append(request.url.query)
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            if path in self.missing:
                return _refusal(404, f"Invalid URL ({call})")
            if key != KEY:
                return _refusal(401, self.says_when_refusing.format(key=key))
            faults = self.faults_after_creation[call] if self.created else ()
            faults = faults or self.faults[call]
            fault = faults.popleft() if faults else None
            if isinstance(fault, int):
                return _refusal(fault, f"the server says {fault}")
            response = await answer(request)
            return response if fault is None else await _bent(request, fault)

        return handle

    async def _list_models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _get_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = name in self.models
        return JSONResponse({"id": name, "object": "model"}) if known else _refusal(404, f"no model {name}")

    async def _add_file(self, request: Request) -> Response:
        async with request.form() as form:
            upload = form["file"]
            if isinstance(upload, str):
                return _refusal(400, "file is not an upload")
            content = await upload.read()
            values = {"filename": upload.filename, "purpose": form["purpose"], "content": content, "seen": 0}
        name = f"file-{len(self.files)}"
        self.files[name] = values
        return JSONResponse(self._file_object(name))

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.files:
            return _refusal(404, f"no file {name}")
        if request.method == "DELETE":
            self.deleted.append(name)
            return JSONResponse({"id": name, "object": "file", "deleted": True})
        self.files[name]["seen"] += 1
        return JSONResponse(self._file_object(name))

    def _file_object(self, name: str) -> dict[str, Any]:
        file = self.files[name]
        status = self.file_states[min(file["seen"], len(self.file_states) - 1)]
        facts = {"id": name, "object": "file", "bytes": len(file["content"]), "created_at": 0, "status": status}
        return facts | {key: file[key] for key in ("filename", "purpose")} | {"status_details": self.file_details}

    async def _jobs(self, request: Request) -> Response:
        if request.method == "POST":
            body = await request.json()
            self.created.append(body)
            metadata = body.get("metadata") if self.keeps_metadata else None
            kept = {key: body.get(key) for key in ("model", "training_file", "validation_file", "seed")}
            name = self.add_job(**kept, metadata=metadata)
            for _ in range(self.others_after_creation):
                self.add_job()
            self.on_create()
            return JSONResponse(self.jobs[name])
        if self.hidden_looks > 0 and self.created:
            self.hidden_looks -= 1
            return JSONResponse({"object": "list", "data": [], "has_more": False})
        newest_first = list(reversed(self.jobs.values()))
        names = [job["id"] for job in newest_first]
        start = names.index(request.query_params["after"]) + 1 if "after" in request.query_params else 0
        end = start + min(int(request.query_params.get("limit", 20)), 100)
        page = {"object": "list", "data": newest_first[start:end], "has_more": end < len(names)}
        return JSONResponse(page)

    async def _get_job(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["name"])
        if job is None:
            return _refusal(404, "no such job")
        if job["status"] not in FINAL:
            job["status"] = self.states[min(job["seen"], len(self.states) - 1)]
            job["seen"] += 1
        if job["status"] == "succeeded":
            job |= {"fine_tuned_model": f"ft:{job.get('model')}:mine", "trained_tokens": 1234}
        if job["status"] == "failed":
            job["error"] = self.job_error
        return JSONResponse(job)

    async def _list_events(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.events, "has_more": False})

    async def _list_checkpoints(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self.checkpoints, "has_more": False})

    async def _cancel(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["name"])
        if job is None:
            return _refusal(404, "no such job")
        if job["status"] in FINAL:
            return _refusal(400, f"Job has already completed: {job['id']}")
        job["status"] = "cancelled"
        return JSONResponse(job)


def metrics_event(step: int, steps: int | None, **numbers: float) -> dict[str, Any]:
    """An event that tells how far the training is."""
    data = {"step": step, "total_steps": steps, **numbers}
    facts = {"id": f"ftevent-{step}", "object": "fine_tuning.job.event", "created_at": step, "level": "info"}
    return facts | {"message": f"Step {step}/{steps}", "type": "metrics", "data": data}


def message_event(text: str) -> dict[str, Any]:
    """An event that only says something."""
    facts = {"id": "ftevent", "object": "fine_tuning.job.event", "created_at": 0, "level": "info"}
    return facts | {"message": text, "type": "message", "data": None}


@contextmanager
def serving(server: FineTuningServer) -> Iterator[FineTuningServer]:
    """The server at its `url`, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(server.app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        running = uvicorn.Server(config)
        thread = Thread(target=running.run, args=([listener],))
        thread.start()
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join()


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)


async def _bent(request: Request, fault: After) -> Response:
    if fault is After.ERROR_500:
        return _refusal(500, "The server had an error while processing your request")
    if fault is After.PAGE:
        return HTMLResponse("<html>Sign in</html>")
    if fault is After.SILENCE:
        await _hung_up(request)
    return StreamingResponse(_cut_off(), headers={"content-length": "100"}, media_type="application/json")


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cut_off() -> AsyncIterator[bytes]:
    yield b"{"
    raise ConnectionError

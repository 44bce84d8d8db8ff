"""HTTP to NeMo Microservices: one host each, errors in words.

NVIDIA's client (nemo-microservices) and huggingface_hub would be 30 MB for a dozen routes, and bring what has to be
kept out here: requests that block a thread without a time limit, the token of another service from the user's home, and
a second attempt at starting a job.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.strict import secret_text
from nat_dpo_pipeline.trainers.backend import StatusUnknown
from nat_dpo_pipeline.trainers.nemo.settings import NemoSettings

TRIES = 4
_LONGEST_REASON = 300
_MAY_PASS = frozenset({408, 425, 429, *range(500, 600)})
_NO_ACCESS = frozenset({401, 403})
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Requests:
    """Seconds that a request may take, and until one without an answer is repeated, twice as long each time."""

    timeout: float = 60.0
    retry_pause: float = 0.5


AS_USUAL = Requests()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said: its status, and the JSON of its body, empty where that is no object."""

    status: int
    body: Json


@dataclass(frozen=True, slots=True)
class Host:
    """An address, and how one shows who one is there. `setting` is where a user would mend that."""

    name: str
    url: URL
    authorization: str
    secrets: tuple[str, ...]
    setting: str

    @classmethod
    def of(cls, name: str, address: str, token: str, setting: str) -> "Host":
        """Raises ConfigurationError when the address is none; a login in it is used where there is no token."""
        try:
            url = URL(address.rstrip("/"))
            is_address = url.scheme in ("http", "https") and bool(url.host)
        except ValueError:
            is_address = False
        if not is_address:
            told = address.rpartition("@")[2]
            raise ConfigurationError(f"the address of {name} must be like https://host, got {told!r}")
        authorization = f"Bearer {token}" if token else ""
        if not token and url.user:
            login = f"{url.user}:{url.password or ''}"
            authorization = f"Basic {b64encode(login.encode()).decode()}"
        secrets = tuple(secret for secret in (token, url.password or "", authorization) if secret)
        return cls(name, url.with_user(None), authorization, secrets, setting)

    def __str__(self) -> str:
        return f"{self.name} at {self.url}"

    def headers_for(self, url: URL) -> dict[str, str]:
        """Another origin, which a service may name as the place to upload to, is not told who we are."""
        return {"Authorization": self.authorization} if self.authorization and url.origin() == self.url.origin() else {}

    def without_secrets(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


class Service:
    """Asks one host. Every method raises

    - StatusUnknown when there was no answer, or one that may be another soon, also after asking again;
    - ConfigurationError when access is refused, and TrainingError for any other refusal that is not in `accept`.
    """

    def __init__(self, session: aiohttp.ClientSession, host: Host, requests: Requests) -> None:
        self.host = host
        self._session = session
        self._pause = requests.retry_pause
        self._seconds = requests.timeout

    async def get(
        self, path: str, *, accept: Collection[int] = (), query: Mapping[str, str] | None = None, repeat: bool = True
    ) -> Answer:
        return await self._asked("GET", self._at(path).with_query(query), accept, repeat=repeat)

    async def delete(self, path: str, *, accept: Collection[int] = ()) -> Answer:
        return await self._asked("DELETE", self._at(path), accept)

    async def post(self, path: str, body: Json, *, accept: Collection[int] = (), repeat: bool = True) -> Answer:
        return await self.post_text(path, orjson.dumps(body), "application/json", accept=accept, repeat=repeat)

    async def post_text(
        self,
        path: str,
        text: bytes,
        content_type: str,
        *,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
        repeat: bool = True,
    ) -> Answer:
        """`path` may be a whole address, as a service gives it."""
        sent = {"Content-Type": content_type, **(headers or {})}
        return await self._asked("POST", self._at(path), accept, repeat=repeat, data=text, headers=sent)

    async def put_file(self, address: str, file: Path, headers: Mapping[str, str]) -> Answer:
        """The file is read as it is sent."""
        sent = {"Content-Type": "application/octet-stream", **headers}
        return await self._asked("PUT", self._at(address), (), file=file, headers=sent)

    def _at(self, path: str) -> URL:
        return URL(path if "://" in path else f"{self.host.url}{path}", encoded=True)

    async def _asked(
        self,
        method: str,
        url: URL,
        accept: Collection[int],
        *,
        repeat: bool = True,
        data: bytes | None = None,
        file: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        asked = f"{method} {url.path}"
        sent = {**self.host.headers_for(url), **(headers or {})}
        for attempt in range(TRIES if repeat else 1):
            if attempt:
                await asyncio.sleep(self._pause * 2 ** (attempt - 1))
            try:
                status, text = await self._sent(method, url, data, file, sent)
                if status not in _MAY_PASS or status in accept:
                    return self._answer(asked, status, text, accept)
                problem = f"{asked} was answered with {status}{self._reason(text)}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = f"{asked} got no answer: {str(error) or f'none within {self._seconds:g} s'}"
            except ValueError:
                problem = f"{asked} was answered with something that is not JSON"
        raise StatusUnknown(f"{self.host}: {self.host.without_secrets(problem)}")

    async def _sent(
        self, method: str, url: URL, data: bytes | None, file: Path | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        # How long a file takes depends on its size; that of an answer does not.
        limit = aiohttp.ClientTimeout(total=None if file else self._seconds, sock_read=self._seconds, sock_connect=30)
        stream = await asyncio.to_thread(file.open, "rb") if file else None
        try:
            async with self._session.request(
                method, url, data=stream or data, headers=headers, timeout=limit
            ) as response:
                return response.status, await response.read()
        finally:
            if stream is not None:
                stream.close()

    def _answer(self, asked: str, status: int, text: bytes, accept: Collection[int]) -> Answer:
        if status < 300 or status in accept:
            return Answer(status, _object(text, lenient=status >= 300 or not text))
        said = self.host.without_secrets(f"{asked} was refused with {status}{self._reason(text)}")
        if status in _NO_ACCESS:
            raise ConfigurationError(f"{self.host}: {said}; check {self.host.setting}")
        raise TrainingError(f"{self.host}: {said}")

    def _reason(self, text: bytes) -> str:
        reason = " ".join(_said(text).split())[:_LONGEST_REASON]
        return f": {reason}" if reason else ""


def _object(text: bytes, *, lenient: bool) -> Json:
    """Raises ValueError for what is not JSON, such as the page of a proxy."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        if lenient:
            return {}
        raise
    return value if isinstance(value, dict) else {}


def _said(text: bytes) -> str:
    """What an error body says; pages of a proxy say nothing."""
    body: Any = _object(text, lenient=True)
    for name in ("detail", "message", "error"):
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if value:
            return value if isinstance(value, str) else orjson.dumps(value).decode()
    return ""


@dataclass(frozen=True, slots=True)
class Nemo:
    """The two hosts of NeMo Microservices."""

    entities: Service
    datastore: Service


@asynccontextmanager
async def connected(settings: NemoSettings, requests: Requests = AS_USUAL) -> AsyncIterator[Nemo]:
    """Both hosts, for as long as something is asked of them: nothing stays open between two looks at a job."""
    entities = Host.of("NeMo Microservices", settings.entity_host, secret_text(settings.access_token), "access_token")
    datastore = Host.of("NeMo Data Store", settings.datastore_host, secret_text(settings.hf_token), "hf_token")
    async with aiohttp.ClientSession(trust_env=True) as session:
        yield Nemo(Service(session, entities, requests), Service(session, datastore, requests))


def path_of(*parts: str) -> str:
    """A path with each part quoted: names hold `@` and `+`."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)

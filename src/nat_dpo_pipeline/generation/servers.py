"""What is known of a server that speaks OpenAI's API: its address, as users write it, and what it says of an error.

Both may hold secrets, which stay out of messages. Nothing here imports `openai`.
"""

import logging
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from nat_dpo_pipeline.core.printable import printable
from nat_dpo_pipeline.errors import ConfigurationError

_LONGEST_QUOTE = 300
# Servers without keys are given `x`, `none` or `EMPTY`, which are parts of words.
_SHORTEST_SECRET = 8
_LEFT = "x-ratelimit-remaining-"


@dataclass(frozen=True, slots=True)
class Address:
    """A base_url in its parts: without its query, which goes behind the route and may hold a key, and without user and
    password, which aiohttp does not take beside a key and which go into a header.
    """

    url: str
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    login: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> list[str]:
        return [*(header.removeprefix("Basic ") for header in self.login.values()), *self.query.values()]


def address_of(base_url: str, whose: str) -> Address:
    """The address in `base_url`. Raises ConfigurationError, that of `whose`, for what is none."""
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError(f"{whose}: base_url must be like https://host/v1, got {base_url.rpartition('@')[2]!r}")
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    query = dict(parse_qsl(parts.query))
    if parts.username is None:
        return Address(url, query)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Address(url, query, {"Authorization": f"Basic {b64encode(login.encode()).decode()}"})


def error_in(body: object) -> object:
    """The error in a body: OpenAI has it under `error`, Google that in a list, others have nothing around it."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body.get("error", body) if isinstance(body, dict) else body


def error_text(body: object, otherwise: str) -> str:
    """What an error body says."""
    error = error_in(body)
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    if isinstance(message, list):
        message = "; ".join(map(_problem, message))
    return str(message or otherwise)


def _problem(one: object) -> str:
    """FastAPI says where something is wrong and what, and repeats the whole input."""
    if not (isinstance(one, dict) and "msg" in one):
        return str(one)
    place = one.get("loc")
    return f"{'.'.join(map(str, place))}: {one['msg']}" if isinstance(place, list) else str(one["msg"])


def quoted(said: str, secrets: Iterable[str]) -> str:
    """In one line: some servers repeat the key that they refuse, and some send a whole page."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            said = said.replace(secret, "***")
    return printable(" ".join(said.split()))[:_LONGEST_QUOTE]


def allowed_by(headers: Mapping[str, str]) -> str:
    """Return what a reply's headers say that the server allows, in words; empty when they say nothing."""
    found = (
        f"{headers[prefix + 'x-ratelimit-limit-' + what]} {what}, {headers.get(prefix + _LEFT + what, '?')} left"
        for what in ("requests", "tokens")
        for prefix in ("", "llm_provider-")  # the latter for the server behind a LiteLLM proxy
        if f"{prefix}x-ratelimit-limit-{what}" in headers
    )
    return printable("; ".join(found))[:_LONGEST_QUOTE]


def quiet_request_logs() -> None:
    """Both HTTP libraries of `openai` log a line per request at INFO, thousands in a run; a level that the user set
    stays.
    """
    for name in ("httpx", "httpx2"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)

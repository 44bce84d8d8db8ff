"""Limits and retries, with a model that is told how to fail, and with a real server that fails at random."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from nat_dpo_pipeline.core.candidates import Candidate, Message
from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import ChatReply, ModelSettings, OpenAIChatModel, Usage
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.preference import PreferenceRecipe, read_request
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode

ASKED = [Message("user", "Hello?")]


class Model:
    """Answers after `seconds`, unless `failure(number of the call)` gives an error; keeps what a test wants to know."""

    name = "model"

    def __init__(self, failure: Callable[[int], ModelError | None], *, seconds: float = 0.0, tokens: int = 0) -> None:
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self._failure = failure
        self._seconds = seconds
        self._tokens = tokens

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply:  # noqa: ARG002
        self.calls += 1
        number = self.calls
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self._seconds)
            if error := self._failure(number):
                raise error
        finally:
            self.under_way -= 1
        return ChatReply("hi", "stop", self.name, Usage(0, self._tokens), {})


def limited(model: Model, **limits: float) -> LimitedModel:
    return LimitedModel(model, Limits(**{"first_pause_seconds": 0.001, **limits}))  # type: ignore[arg-type]


def never(_: int) -> None:
    return None


async def test_a_transient_failure_is_tried_again() -> None:
    model = Model(lambda number: ModelError("busy", transient=True) if number in (2, 3, 4) else None)
    asked = limited(model, max_retries=3)

    await asked.complete(ASKED)
    reply = await asked.complete(ASKED)

    assert reply.text == "hi"
    assert model.calls == 5


async def test_retries_end() -> None:
    model = Model(lambda number: ModelError("busy", transient=True) if number > 1 else None)
    asked = limited(model, max_retries=3)
    await asked.complete(ASKED)

    with pytest.raises(ModelError, match="busy"):
        await asked.complete(ASKED)

    assert model.calls == 1 + 4


async def test_a_model_that_never_answered_is_given_up_early() -> None:
    model = Model(lambda _: ModelError("cannot be reached", transient=True))

    with pytest.raises(ModelError):
        await limited(model, max_retries=100).complete(ASKED)

    assert model.calls == 3


async def test_a_refused_request_is_not_repeated() -> None:
    model = Model(lambda _: ModelError("bad request"))

    with pytest.raises(ModelError):
        await limited(model).complete(ASKED)

    assert model.calls == 1


async def test_a_fatal_error_ends_the_model_for_every_caller() -> None:
    model = Model(lambda _: ModelError("wrong key", fatal=True), seconds=0.001)
    asked = limited(model, max_concurrency=2)

    results = await asyncio.gather(*(asked.complete(ASKED) for _ in range(50)), return_exceptions=True)

    assert all(isinstance(result, ModelError) and result.fatal for result in results)
    assert model.calls <= 2


async def test_a_429_holds_back_every_caller_and_costs_no_retry() -> None:
    over = time.monotonic() + 0.3
    model = Model(
        lambda _: ModelError("slow down", throttled=True, retry_after=0.1) if time.monotonic() < over else None,
        seconds=0.002,
    )
    asked = limited(model, max_concurrency=20, max_retries=0)

    replies = await asyncio.gather(*(asked.complete(ASKED) for _ in range(100)))

    assert len(replies) == 100
    # Twenty calls were under way at the first 429; without the common pause each would have come back at once.
    assert model.calls <= 100 + 20 + 20


async def test_a_429_for_ever_ends_with_the_time() -> None:
    model = Model(lambda _: ModelError("slow down", throttled=True, retry_after=0.05))
    started = time.monotonic()

    with pytest.raises(ModelError, match="slow down"):
        await limited(model, max_wait_seconds=0.3).complete(ASKED)

    assert model.calls < 10
    assert time.monotonic() - started < 5


async def test_no_more_calls_are_under_way_than_allowed() -> None:
    model = Model(never, seconds=0.002)
    asked = limited(model, max_concurrency=3)

    await asyncio.gather(*(asked.complete(ASKED) for _ in range(40)))

    assert model.most_under_way == 3


async def test_concurrency_shrinks_on_server_errors_and_grows_back() -> None:
    model = Model(lambda number: ModelError("overloaded", transient=True) if number in (9, 10) else None, seconds=0.002)
    asked = limited(model, max_concurrency=8)
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(8)))

    model.most_under_way = 0
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(2)))
    model.most_under_way = 0
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(4)))
    shrunk = model.most_under_way
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(200)))

    assert shrunk <= 4
    assert model.most_under_way == 8


async def test_requests_keep_their_pace() -> None:
    model = Model(never)
    asked = limited(model, requests_per_minute=1200)
    started = time.monotonic()

    await asyncio.gather(*(asked.complete(ASKED) for _ in range(6)))

    assert time.monotonic() - started >= 5 * 60 / 1200 * 0.95


async def test_tokens_keep_their_pace() -> None:
    model = Model(never, tokens=2000)
    asked = limited(model, tokens_per_minute=60_000, max_concurrency=1)
    started = time.monotonic()

    for _ in range(7):
        await asked.complete(ASKED)

    # Ten seconds' worth may go at once; the six calls before the last one owed 12,000 tokens.
    assert time.monotonic() - started >= (6 * 2000 - 10_000) / 1000 * 0.9


@pytest.mark.parametrize("limits", [{"max_concurrency": 0}, {"requests_per_minute": -1}, {"max_retries": -1}])
def test_limits_that_allow_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Limits(**limits)


class FaultyApp:
    """The demo model behind a server that fails at random, three times in ten, in every way that may pass."""

    def __init__(self, app: ASGIApp, *, seed: int) -> None:
        self.faults = 0
        self._app = app
        self._draw = random.Random(seed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draw.random() >= 0.3:
            await self._app(scope, receive, send)
            return
        self.faults += 1
        fault = self._draw.choice(["429", "429 with time", "500", "502", "truncated", "hang", "reset", "html"])
        await self._fail(fault, send)

    async def _fail(self, fault: str, send: Send) -> None:
        if fault == "hang":
            await asyncio.sleep(0.6)
        if fault == "reset":
            raise ConnectionResetError("the server closes the connection without a reply")
        status = int(fault[:3]) if fault[:3].isdigit() else 200
        headers = [(b"retry-after", b"0.01")] if fault == "429 with time" else []
        body = {"truncated": b'{"choices": [{"mess', "html": b"<html>sign in</html>"}.get(fault, b"{}")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def served(app: ASGIApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()


@pytest.fixture
def faulty_app() -> FaultyApp:
    return FaultyApp(create_app(), seed=3)


@pytest.fixture
def faulty_url(faulty_app: FaultyApp) -> Iterator[str]:
    yield from served(faulty_app)


async def collected(base_url: str, app: ASGIApp | None = None) -> tuple[list[Candidate], GenerationRecord]:
    async with AsyncExitStack() as stack:

        def asked(name: str) -> LimitedModel:
            settings = ModelSettings(
                name, f"demo/stdlib-{name}", base_url, "key", timeout_seconds=0.5 if app is None else 30, max_retries=0
            )
            model = OpenAIChatModel(settings, app)
            stack.push_async_callback(model.aclose)
            return LimitedModel(model, Limits(first_pause_seconds=0.01, max_retries=30))

        writer = asked("writer")
        recipe = PreferenceRecipe(
            writer=writer,
            responder=writer,
            scorer=RewardModelScorer(asked("reward"), weights_named("helpfulness")),
            settings=RecipeSettings(3, 4, 3, responses=ResponseMode.INDEPENDENT, seed=2),
            max_concurrency=16,
        )
        record = GenerationRecord()
        found = [one async for turn in recipe.turns(read_request("Data structures"), record) for one in turn]
    return found, record


async def test_transient_faults_change_nothing_in_what_is_collected(faulty_app: FaultyApp, faulty_url: str) -> None:
    undisturbed, _ = await collected("http://demo.invalid/v1", create_app())
    disturbed, record = await collected(faulty_url)

    assert faulty_app.faults > 10
    assert disturbed == undisturbed
    assert record.failures == []


async def test_a_cool_down_that_is_longer_than_the_time_ends_every_caller() -> None:
    model = Model(lambda _: ModelError("come back tomorrow", throttled=True, retry_after=86_400), seconds=0.01)
    asked = limited(model, max_concurrency=2, max_wait_seconds=1)

    results = await asyncio.wait_for(
        asyncio.gather(*(asked.complete(ASKED) for _ in range(6)), return_exceptions=True), timeout=10
    )

    assert all(isinstance(result, ModelError) for result in results)
    assert model.calls <= 2


async def test_nothing_is_sent_into_a_cool_down_whatever_the_pace() -> None:
    sent: list[float] = []

    def failure(number: int) -> ModelError | None:
        sent.append(time.monotonic())
        return ModelError("slow down", throttled=True, retry_after=0.5) if number == 1 else None

    asked = limited(Model(failure), requests_per_minute=1200, max_concurrency=8)
    await asyncio.gather(*(asked.complete(ASKED) for _ in range(5)))

    assert sent[1] - sent[0] >= 0.45

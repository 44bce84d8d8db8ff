import asyncio
import gc
import json
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import ChatReply, ModelSettings, OpenAIChatModel, Usage, read_reply

KEY = "sk-very-secret-0123456789"
ASKED = [Message("system", "Be brief."), Message("user", "Why?")]
BODY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "vendor/model-001",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Because.\u2028"}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}
Answer = Callable[[], Response | Awaitable[Response]]


@dataclass
class Loopback:
    """A server on this machine; a test says what it answers and sees what it was asked."""

    base_url: str
    answer: Answer = lambda: JSONResponse(BODY)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body()))
        self.headers.append(dict(request.headers))
        answer = self.answer()
        return answer if isinstance(answer, Response) else await answer

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(
            name="my_llm", model="vendor/model", base_url=self.base_url, api_key=KEY, max_retries=0, timeout_seconds=10
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    listener = socket.create_server(("127.0.0.1", 0))
    loopback = Loopback(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    app = Starlette(routes=[Route("/v1/chat/completions", loopback.handle, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield loopback
    server.should_exit = True
    thread.join(timeout=5)
    listener.close()


@pytest.fixture
def server(running: Loopback) -> Loopback:
    running.answer = lambda: JSONResponse(BODY)
    running.bodies.clear()
    running.headers.clear()
    return running


async def _ask(settings: ModelSettings, *, seed: int | None = None) -> ChatReply:
    model = OpenAIChatModel(settings)
    try:
        return await model.complete(ASKED, seed=seed)
    finally:
        await model.aclose()


async def _failure(settings: ModelSettings) -> ModelError:
    with pytest.raises(ModelError) as error:
        await _ask(settings)
    assert KEY not in str(error.value)
    assert KEY not in repr(error.value)
    assert "'my_llm' (vendor/model at http://127.0.0.1:" in str(error.value)
    return error.value


async def test_a_reply_is_its_text_model_usage_and_whole_body(server: Loopback) -> None:
    reply = await _ask(server.settings)
    assert reply.text == "Because.\u2028"
    assert (reply.finish_reason, reply.model, reply.usage) == ("stop", "vendor/model-001", Usage(11, 3))
    assert reply.body == BODY


async def test_messages_and_key_arrive_and_unset_parameters_are_left_to_the_server(server: Loopback) -> None:
    await _ask(server.settings)
    assert server.bodies == [
        {
            "model": "vendor/model",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_parameters_arrive_also_those_outside_the_openai_api(server: Loopback) -> None:
    settings = replace(
        server.settings,
        temperature=0.0,
        top_p=0.7,
        max_tokens=1024,
        seed=5,
        extra_body={"top_k": 40, "nested": {"a": [1]}},
    )
    await _ask(settings)
    sent = server.bodies[0]
    assert {name: sent[name] for name in ("temperature", "top_p", "max_tokens", "seed", "top_k", "nested")} == {
        "temperature": 0.0,
        "top_p": 0.7,
        "max_tokens": 1024,
        "seed": 5,
        "top_k": 40,
        "nested": {"a": [1]},
    }


@pytest.mark.parametrize(("of_model", "of_call", "sent"), [(5, None, 5), (5, 0, 0), (None, 7, 7), (0, None, 0)])
async def test_the_seed_of_a_call_goes_before_that_of_the_model(
    server: Loopback, of_model: int | None, of_call: int | None, sent: int
) -> None:
    await _ask(replace(server.settings, seed=of_model), seed=of_call)
    assert server.bodies[0]["seed"] == sent


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "api_key"), (402, "credit"), (403, "api_key"), (404, "model_name")]
)
async def test_an_error_that_no_further_call_escapes_is_fatal(server: Loopback, status: int, advice: str) -> None:
    server.answer = lambda: JSONResponse({"error": {"message": "go away"}}, status)
    error = await _failure(server.settings)
    assert error.fatal
    assert f"answered {status}: go away" in str(error)
    assert advice in str(error)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_request_is_not_fatal_and_not_repeated(server: Loopback, status: int) -> None:
    server.answer = lambda: JSONResponse({"error": {"message": "context is\n  4096 tokens"}}, status)
    error = await _failure(replace(server.settings, max_retries=2))
    assert not error.fatal
    assert f"answered {status}: context is 4096 tokens (the request was refused)" in str(error)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "plain text"}, "plain text"),
        ({"detail": "from FastAPI"}, "from FastAPI"),
        ({"detail": [{"loc": ["body"], "msg": "too long"}]}, "too long"),
        ({"message": "bare"}, "bare"),
        ({"error": None}, "Error code: 400"),
        ({"error": {"code": 7}}, "Error code: 400"),
        (["odd"], "odd"),
        ("text", "text"),
        (None, "Error code: 400"),
    ],
)
async def test_what_the_server_said_is_passed_on_in_whatever_form(server: Loopback, body: object, said: str) -> None:
    server.answer = lambda: JSONResponse(body, 400)
    assert said in str(await _failure(server.settings))


async def test_a_long_page_of_an_error_is_cut(server: Loopback) -> None:
    server.answer = lambda: Response("<html>" + "x" * 5000, 502, media_type="text/html")
    error = await _failure(server.settings)
    assert "answered 502: <html>xxx" in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_busy_or_broken_server_is_asked_again_then_given_up(server: Loopback, status: int) -> None:
    server.answer = lambda: JSONResponse({"error": {"message": "later"}}, status, headers={"retry-after-ms": "1"})
    error = await _failure(replace(server.settings, max_retries=2))
    assert not error.fatal
    assert f"answered {status}: later" in str(error)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("status", "transient", "throttled"),
    [(400, False, False), (401, False, False), (408, True, False), (429, True, True), (503, True, False)],
)
async def test_an_error_says_whether_the_same_call_may_succeed_later(
    server: Loopback, status: int, transient: bool, throttled: bool
) -> None:
    server.answer = lambda: JSONResponse({}, status)
    error = await _failure(server.settings)
    assert (error.transient, error.throttled) == (transient, throttled)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("soon", None), ("", None), (None, None)]
)
async def test_the_seconds_of_retry_after_are_passed_on(
    server: Loopback, header: str | None, seconds: float | None
) -> None:
    server.answer = lambda: JSONResponse({}, 429, headers={} if header is None else {"retry-after": header})
    assert (await _failure(server.settings)).retry_after == seconds


@pytest.mark.parametrize(("minutes", "least", "most"), [(10, 500.0, 600.0), (-10, 0.0, 0.0)])
async def test_the_date_of_retry_after_is_passed_on_as_seconds_from_now(
    server: Loopback, minutes: int, least: float, most: float
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    server.answer = lambda: JSONResponse({}, 429, headers={"retry-after": date})
    seconds = (await _failure(server.settings)).retry_after
    assert seconds is not None
    assert least <= seconds <= most


async def test_a_call_that_succeeds_the_second_time_is_a_reply(server: Loopback) -> None:
    def answer() -> Response:
        busy = len(server.bodies) == 1
        return JSONResponse({}, 429, headers={"retry-after-ms": "1"}) if busy else JSONResponse(BODY)

    server.answer = answer
    assert (await _ask(replace(server.settings, max_retries=1))).text == "Because.\u2028"
    assert len(server.bodies) == 2


async def test_a_server_that_is_not_there_is_named_with_its_base_url(server: Loopback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        base_url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    error = await _failure(replace(server.settings, base_url=base_url))
    assert not error.fatal
    assert "cannot be reached" in str(error)
    assert base_url in str(error)


async def test_a_reply_that_does_not_come_in_time_is_an_error_that_names_the_limit(server: Loopback) -> None:
    async def late() -> Response:
        await asyncio.sleep(0.5)
        return JSONResponse(BODY)

    server.answer = late
    error = await _failure(replace(server.settings, timeout_seconds=0.05))
    assert not error.fatal
    assert "did not answer within 0.05 s" in str(error)


@pytest.mark.parametrize("content", [b"", b"<html>hello</html>", b'{"choices": [', b"\xff\xfe\x00"])
@pytest.mark.parametrize("media_type", ["application/json", "text/html"])
async def test_a_body_that_is_not_json_is_a_model_error(server: Loopback, content: bytes, media_type: str) -> None:
    server.answer = lambda: Response(content, media_type=media_type)
    error = await _failure(server.settings)
    assert not error.fatal
    assert "not JSON" in str(error)


@pytest.mark.parametrize("body", [[], [1], "text", 3, None, {}, {"choices": []}, {"choices": None}])
async def test_a_body_without_a_choice_may_have_one_the_next_time(server: Loopback, body: object) -> None:
    server.answer = lambda: JSONResponse(body)
    error = await _failure(server.settings)
    assert error.transient
    assert "without a choice" in str(error)


async def test_an_error_that_comes_with_status_200_is_passed_on(server: Loopback) -> None:
    server.answer = lambda: JSONResponse({"error": {"message": f"upstream overloaded, key {KEY}"}})
    error = await _failure(server.settings)
    assert error.transient
    assert "upstream overloaded, key ***" in str(error)


async def test_a_choice_that_is_none_is_an_empty_reply_for_the_parsers_to_refuse(server: Loopback) -> None:
    server.answer = lambda: JSONResponse({"choices": [3]})
    reply = await _ask(server.settings)
    assert (reply.text, reply.finish_reason, reply.model, reply.usage) == ("", None, "vendor/model", Usage())


@pytest.mark.parametrize("reason", [None, 3, ["stop"]])
def test_a_finish_reason_that_is_no_text_is_none(reason: object) -> None:
    assert read_reply({"choices": [{"finish_reason": reason, "message": {"content": "a"}}]}, "m").finish_reason is None


def test_a_model_says_what_determines_its_reply_and_not_its_key(server: Loopback) -> None:
    model = OpenAIChatModel(replace(server.settings, temperature=0.5))
    identity = model.identity(ASKED, seed=3)
    assert KEY not in repr(identity)
    assert identity != model.identity(ASKED, seed=4)
    assert identity != OpenAIChatModel(replace(server.settings, temperature=0.6)).identity(ASKED, seed=3)
    assert identity != OpenAIChatModel(replace(server.settings, base_url="http://other/v1")).identity(ASKED, seed=3)


async def test_the_body_of_the_hosted_reward_model_survives_whole(server: Loopback) -> None:
    body = {
        "model": None,
        "object": None,
        "created": None,
        "choices": [
            {
                "finish_reason": "length",
                "logprobs": {"content": [{"token": "helpfulness", "logprob": 4.1}]},
                "message": [{"role": "assistant", "content": "helpfulness:4.1"}],
            }
        ],
    }
    server.answer = lambda: JSONResponse(body)
    reply = await _ask(server.settings)
    assert (reply.text, reply.finish_reason, reply.model) == ("", "length", "vendor/model")
    assert reply.body == body


@pytest.mark.parametrize(
    "usage", [None, {}, [], {"prompt_tokens": None}, {"prompt_tokens": "x"}, {"completion_tokens": [1]}]
)
def test_tokens_that_were_not_counted_are_none(usage: object) -> None:
    assert read_reply({**BODY, "usage": usage}, "m").usage == Usage(0, 0)


@pytest.mark.parametrize(
    "message", [None, {}, {"content": None}, {"content": [{"type": "text", "text": "a"}]}, "text", []]
)
def test_a_message_without_text_is_empty(message: object) -> None:
    assert read_reply({"choices": [{"message": message}]}, "m").text == ""


def test_the_key_is_not_in_the_repr_of_the_settings(server: Loopback) -> None:
    assert KEY not in repr(server.settings)
    assert KEY not in str(server.settings)
    assert "vendor/model" in repr(server.settings)


async def test_the_key_is_not_in_the_log(server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await _ask(server.settings)
    server.answer = lambda: JSONResponse({}, 401)
    await _failure(server.settings)
    assert KEY not in caplog.text


async def test_a_request_is_not_logged_line_by_line(server: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await _ask(server.settings)
    assert "HTTP Request" not in caplog.text


async def test_a_level_that_the_user_set_stays(server: Loopback) -> None:
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpx2")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.DEBUG)
        await _ask(server.settings)
        assert {logging.getLogger(name).level for name in levels} == {logging.DEBUG}
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


async def test_calls_run_side_by_side(server: Loopback) -> None:
    model = OpenAIChatModel(server.settings)
    replies = await asyncio.gather(*(model.complete(ASKED, seed=seed) for seed in range(8)))
    await model.aclose()
    assert [reply.text for reply in replies] == ["Because.\u2028"] * 8
    assert sorted(body["seed"] for body in server.bodies) == list(range(8))


async def test_an_app_answers_in_this_process(server: Loopback) -> None:
    app = Starlette(routes=[Route("/v1/chat/completions", server.handle, methods=["POST"])])
    model = OpenAIChatModel(replace(server.settings, base_url="http://nowhere.invalid/v1"), app)
    reply = await model.complete(ASKED, seed=1)
    await model.aclose()
    assert (model.name, reply.text, server.bodies[0]["seed"]) == ("my_llm", "Because.\u2028", 1)


async def test_a_closed_model_leaves_no_open_sockets(server: Loopback, recwarn: pytest.WarningsRecorder) -> None:
    await _ask(server.settings)
    gc.collect()
    assert [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []


async def test_a_key_that_the_server_repeats_is_not_in_the_message(server: Loopback) -> None:
    server.answer = lambda: JSONResponse({"error": {"message": f"Incorrect API key: Bearer {KEY}"}}, 401)
    error = await _failure(server.settings)
    assert KEY not in str(error)
    assert "Bearer ***" in str(error)


async def test_credentials_in_an_address_are_not_in_the_message() -> None:
    settings = ModelSettings("my_llm", "vendor/model", "http://user:hunter2@127.0.0.1:9/v1", KEY, max_retries=0)
    error = await _failure(settings)
    assert "hunter2" not in str(error)
    assert "127.0.0.1:9" in str(error)


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "soon", ""])
async def test_a_retry_after_that_says_nothing_is_none(server: Loopback, value: str) -> None:
    server.answer = lambda: JSONResponse({}, 429, headers={"retry-after": value})
    assert (await _failure(server.settings)).retry_after is None


@pytest.mark.parametrize(("value", "seconds"), [("1.5", 1.5), ("-3", 0.0), ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0)])
async def test_a_retry_after_is_seconds_or_a_date(server: Loopback, value: str, seconds: float) -> None:
    server.answer = lambda: JSONResponse({}, 429, headers={"retry-after": value})
    assert (await _failure(server.settings)).retry_after == seconds


async def test_a_message_that_is_not_unicode_is_not_sent_and_not_repeated(server: Loopback) -> None:
    model = OpenAIChatModel(server.settings)
    async with aclosing(model):
        with pytest.raises(ModelError, match="cannot be sent") as error:
            await model.complete([Message("user", "\ud800")])
    assert not error.value.transient

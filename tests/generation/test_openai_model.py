import asyncio
import gc
import logging
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.replies import ChatReply, Usage, read_reply
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.testing.server import Fault, LoopbackServer, Request, Response

KEY = "sk-very-secret-0123456789"
ASKED = Call((Message("system", "Be brief."), Message("user", "Why?")))
BODY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "vendor/model-001",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Because.\u2028"}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}


@dataclass
class Script:
    """What the server answers, and what it was asked."""

    response: Response = field(default_factory=lambda: Response(body=BODY))
    asked: list[Request] = field(default_factory=list)
    fault: Fault | None = None

    def answer(self, request: Request) -> Response:
        self.asked.append(request)
        return self.response

    def sent(self) -> list[dict[str, object]]:
        return [request.json for request in self.asked]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def settings(script: Script, make_server: Callable[..., LoopbackServer]) -> ModelSettings:
    server = make_server(script.answer, fault=lambda _: script.fault)
    return ModelSettings("my_llm", "vendor/model", server.url, KEY)


async def _ask(settings: ModelSettings, call: Call = ASKED) -> ChatReply:
    async with aclosing(OpenAIChatModel(settings)) as model:
        return await model.complete(call)


async def _failure(settings: ModelSettings, call: Call = ASKED) -> ModelError:
    with pytest.raises(ModelError) as error:
        await _ask(settings, call)
    assert KEY not in str(error.value)
    assert KEY not in repr(error.value)
    assert "'my_llm' (vendor/model at http://127.0.0.1:" in str(error.value)
    return error.value


def _kinds(error: ModelError) -> set[str]:
    return {kind for kind in ("fatal", "transient", "throttled") if getattr(error, kind)}


async def test_a_reply_is_its_text_model_usage_and_whole_body(settings: ModelSettings) -> None:
    reply = await _ask(settings)
    assert reply.text == "Because.\u2028"
    assert (reply.finish_reason, reply.llm, reply.model) == ("stop", "my_llm", "vendor/model-001")
    assert reply.usage == Usage(11, 3)
    assert reply.body == BODY
    assert not reply.refused


async def test_messages_and_key_arrive_and_unset_parameters_are_left_to_the_server(
    settings: ModelSettings, script: Script
) -> None:
    await _ask(settings)
    assert script.sent() == [
        {
            "model": "vendor/model",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        }
    ]
    assert script.asked[0].path == "/v1/chat/completions"
    assert script.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_parameters_arrive_also_those_outside_the_openai_api(settings: ModelSettings, script: Script) -> None:
    sampling = Sampling(
        temperature=0.0, top_p=0.7, max_tokens=1024, seed=5, extra_body={"top_k": 40, "nested": {"a": [1]}}
    )
    await _ask(replace(settings, sampling=sampling))
    sent = script.sent()[0]
    assert {name: sent[name] for name in sent if name not in ("model", "messages")} == {
        "temperature": 0.0,
        "top_p": 0.7,
        "max_tokens": 1024,
        "seed": 5,
        "top_k": 40,
        "nested": {"a": [1]},
    }


@pytest.mark.parametrize(("of_model", "of_call", "sent"), [(5, None, 5), (5, 0, 0), (None, 7, 7), (0, None, 0)])
async def test_the_sampling_of_a_call_goes_before_that_of_the_model(
    settings: ModelSettings, script: Script, of_model: int | None, of_call: int | None, sent: int
) -> None:
    of_models = Sampling(seed=of_model, temperature=0.5)
    await _ask(replace(settings, sampling=of_models), replace(ASKED, sampling=Sampling(seed=of_call)))
    assert script.sent()[0]["seed"] == sent
    assert script.sent()[0]["temperature"] == 0.5


async def test_the_extra_body_of_a_model_gives_way_to_a_call_and_goes_before_its_own_parameters(
    settings: ModelSettings, script: Script
) -> None:
    of_model = Sampling(max_tokens=10, temperature=0.1, extra_body={"max_tokens": 20, "temperature": 0.2, "top_k": 1})
    of_call = Sampling(temperature=0.3, extra_body={"top_k": 2})
    await _ask(replace(settings, sampling=of_model), replace(ASKED, sampling=of_call))
    sent = script.sent()[0]
    assert (sent["max_tokens"], sent["temperature"], sent["top_k"]) == (20, 0.3, 2)


async def test_the_limit_of_tokens_is_renamed_where_the_model_wants_it(
    make_server: Callable[..., LoopbackServer], settings: ModelSettings
) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refused = {"error": {"message": said, "param": "max_tokens", "code": "unsupported_parameter"}}
    asked: list[set[str]] = []

    def answer(request: Request) -> Response:
        asked.append({"max_tokens", "max_completion_tokens"} & request.json.keys())
        return Response(400, refused) if "max_tokens" in request.json else Response(body=BODY)

    limited = replace(settings, base_url=make_server(answer).url, sampling=Sampling(max_tokens=7))
    async with aclosing(OpenAIChatModel(limited)) as model:
        before = model.identity(ASKED)
        replies = [await model.complete(ASKED) for _ in range(2)]
        assert model.identity(ASKED) == before
    assert asked == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]
    assert [reply.retries for reply in replies] == [1, 0]


async def test_a_limit_of_tokens_that_is_too_large_is_not_renamed(settings: ModelSettings, script: Script) -> None:
    # The words of vLLM 0.32.
    said = (
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 256 tokens."
    )
    script.response = Response(400, {"error": {"message": said, "type": "BadRequestError", "code": 400}})
    await _failure(replace(settings, sampling=Sampling(max_tokens=5000)))
    assert ["max_tokens" in body for body in script.sent()] == [True]


@pytest.mark.parametrize(
    "said",
    [
        "Unsupported parameter: 'top_k' is not supported with this model.",
        "'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
    ],
)
async def test_any_other_refused_parameter_is_the_users_to_change(
    make_server: Callable[..., LoopbackServer], settings: ModelSettings, said: str
) -> None:
    server = make_server(lambda _: Response(400, {"error": {"message": said}}))
    sampling = Sampling(temperature=0.2, max_tokens=9000)
    await _failure(replace(settings, base_url=server.url, sampling=sampling))
    assert len(server.requests) == 1


async def test_how_long_a_model_thinks_is_said_by_the_model_or_the_call(
    settings: ModelSettings, script: Script
) -> None:
    thinking = replace(settings, sampling=Sampling(reasoning_effort="low"))
    await _ask(thinking)
    await _ask(thinking, replace(ASKED, sampling=Sampling(reasoning_effort="high")))
    assert [sent["reasoning_effort"] for sent in script.sent()] == ["low", "high"]


async def test_a_seed_of_the_model_counts_up_with_the_samples_and_is_no_part_of_what_they_are_known_by(
    settings: ModelSettings, script: Script
) -> None:
    seeded = replace(settings, sampling=Sampling(seed=5))
    calls = [replace(ASKED, sample=sample) for sample in range(3)]
    async with aclosing(OpenAIChatModel(seeded)) as model:
        for call in (*calls, replace(ASKED, sample=3, sampling=Sampling(seed=40))):
            await model.complete(call)
        assert {str(model.identity(call)["body"]) for call in calls} == {str(model.identity(ASKED)["body"])}
    assert [sent["seed"] for sent in script.sent()] == [5, 6, 7, 40]


# What a server says beside its reply.


@pytest.mark.parametrize(
    ("usage", "header", "cost"),
    [
        ({"prompt_tokens": 1}, "0.00125", 0.00125),
        (None, "0.5", 0.5),
        ({"cost": 0.25}, "0.5", 0.25),
        ({"cost": 0.25}, None, 0.25),
        ({}, "nan", None),
        ({}, "-1", None),
        ({}, "None", None),
        ({"cost": "much"}, None, None),
        ({}, None, None),
    ],
)
async def test_a_cost_is_in_the_usage_or_in_a_header_and_stays_with_the_reply(
    settings: ModelSettings, script: Script, usage: object, header: str | None, cost: float | None
) -> None:
    headers = {} if header is None else {"x-litellm-response-cost": header}
    script.response = Response(body={**BODY, "usage": usage}, headers=headers)
    reply = await _ask(settings)
    assert reply.usage.cost == cost
    assert read_reply(reply.body, "my_llm").usage.cost == cost


async def test_what_a_server_allows_is_logged_once(
    settings: ModelSettings, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.response = Response(
        body=BODY,
        headers={
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "llm_provider-x-ratelimit-limit-tokens": "30000",
        },
    )
    with caplog.at_level(logging.INFO, "nat_dpo_pipeline.generation.openai_model"):
        async with aclosing(OpenAIChatModel(settings)) as model:
            for _ in range(2):
                await model.complete(ASKED)
    (record,) = caplog.records
    assert "'my_llm'" in record.message
    assert "allows 500 requests, 499 left; 30000 tokens, ? left" in record.message


@pytest.mark.parametrize("route", [Route.POOLING, Route.CLASSIFY])
async def test_a_scalar_reward_model_is_asked_beside_v1_and_without_sampling(
    settings: ModelSettings, script: Script, route: Route
) -> None:
    script.response = Response(body={"data": [{"data": [0.5]}]})
    call = replace(ASKED, route=route, sampling=Sampling(seed=3))
    reply = await _ask(replace(settings, sampling=Sampling(temperature=0.5)), call)
    assert reply.body == {"data": [{"data": [0.5]}]}
    assert script.asked[0].path == f"/{route}"
    assert set(script.sent()[0]) == {"model", "messages", "use_activation", "activation", "softmax"}


async def test_what_determines_a_reply_is_its_identity(settings: ModelSettings) -> None:
    async with (
        aclosing(OpenAIChatModel(settings)) as model,
        aclosing(OpenAIChatModel(replace(settings, base_url=settings.base_url.replace("//", "//me:pass@")))) as same,
    ):
        seeded = replace(ASKED, sampling=Sampling(seed=1))
        others = [seeded, replace(ASKED, sample=1), replace(ASKED, run=1), replace(ASKED, route=Route.POOLING)]
        assert model.identity(ASKED) == same.identity(replace(ASKED, place=4))
        assert [model.identity(call) == model.identity(ASKED) for call in others] == [False] * 4
        assert KEY not in str(model.identity(ASKED))


@pytest.mark.parametrize(
    ("fault", "kinds", "said"),
    [
        (Fault.TOO_MANY_REQUESTS, {"transient", "throttled"}, "answered 429: Too many requests"),
        (Fault.RETRY_AFTER, {"transient", "throttled"}, "answered 429: Too many requests"),
        (Fault.RETRY_AFTER_MS, {"transient", "throttled"}, "answered 429: Too many requests"),
        (Fault.RETRY_AFTER_OF_PROVIDER, {"transient", "throttled"}, "answered 429: Too many requests"),
        (
            Fault.RETRY_IN_BODY,
            {"transient", "throttled"},
            "answered 429: You exceeded your current quota. Please retry",
        ),
        (Fault.BUSY, {"transient", "throttled"}, "answered 503: Try later"),
        (Fault.PLAIN_SERVER_ERROR, {"transient"}, "answered 500: Internal Server Error (the server failed)"),
        (Fault.ERROR_AS_ANSWER, {"transient"}, "The upstream is overloaded"),
        (Fault.NULL_CHOICES, {"transient"}, "answered without choices"),
        (Fault.SERVER_ERROR, {"transient"}, "answered 500: The server had an error (the server failed)"),
        (Fault.BAD_GATEWAY, {"transient"}, "answered 502: <html>"),
        (Fault.UNAUTHORIZED, {"fatal"}, "answered 401: Incorrect API key provided: *** (check its api_key"),
        (Fault.WRONG_CONTENT_TYPE, {"transient"}, "something that is not JSON"),
        (Fault.TRUNCATED_JSON, {"transient"}, "something that is not JSON"),
        (Fault.EMPTY_CHOICES, {"transient"}, "answered without choices"),
        (Fault.RESET, {"transient"}, "cannot be reached: [Errno 104] Connection reset by peer"),
    ],
)
async def test_a_fault_is_a_model_error_that_says_whether_it_may_pass(
    settings: ModelSettings, script: Script, fault: Fault, kinds: set[str], said: str
) -> None:
    script.fault = fault
    error = await _failure(settings)
    assert _kinds(error) == kinds
    assert said in str(error)
    has_a_delay = fault.startswith("retry") or fault is Fault.BUSY
    assert error.retry_after == (0.05 if has_a_delay else None)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.SLOW_DRIP])
async def test_a_reply_that_does_not_come_in_time_is_an_error_that_names_the_limit(
    settings: ModelSettings, script: Script, fault: Fault
) -> None:
    script.fault = fault
    error = await _failure(replace(settings, timeout_seconds=0.2))
    assert _kinds(error) == {"transient"}
    assert "did not answer within 0.2 s" in str(error)


async def test_a_list_of_one_message_is_read_like_the_message(settings: ModelSettings, script: Script) -> None:
    script.fault = Fault.MESSAGE_AS_LIST
    reply = await _ask(settings)
    assert reply.text == BODY["choices"][0]["message"]["content"]  # type: ignore[index]
    assert reply.body["choices"][0]["message"] == [BODY["choices"][0]["message"]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("status", "kinds", "advice"),
    [
        (400, set(), "the request was refused"),
        (401, {"fatal"}, "api_key"),
        (402, set(), "credit"),
        (403, set(), "api_key"),
        (404, set(), "model_name"),
        (408, {"transient"}, "refused"),
        (409, {"transient"}, "refused"),
        (413, set(), "this request alone"),
        (422, set(), "the request was refused"),
        (429, {"transient", "throttled"}, "refused"),
        (500, {"transient"}, "the server failed"),
        (503, {"transient"}, "the server failed"),
    ],
)
async def test_a_status_says_whether_another_or_the_same_call_may_succeed(
    settings: ModelSettings, script: Script, status: int, kinds: set[str], advice: str
) -> None:
    script.response = Response(status, {"error": {"message": "no\n  way"}})
    error = await _failure(settings)
    assert _kinds(error) == kinds
    assert f"answered {status}: no way" in str(error)
    assert advice in str(error)
    assert len(script.asked) == 1


@pytest.mark.parametrize("route", [Route.CHAT, Route.POOLING])
async def test_a_404_names_the_address_that_was_asked_without_its_query(
    settings: ModelSettings, script: Script, route: Route
) -> None:
    script.response = Response(404, {"detail": "Not Found"})
    settings = replace(settings, base_url=f"{settings.base_url}?api-key=planted-key")
    error = await _failure(settings, replace(ASKED, route=route))
    is_chat = route is Route.CHAT
    path = "v1/chat/completions)" if is_chat else "pooling; behind LiteLLM the base_url ends with /vllm)"
    assert f"asked was {settings.base_url.partition('/v1')[0]}/{path}" in str(error)


async def test_a_parameter_that_is_refused_is_named(settings: ModelSettings, script: Script) -> None:
    script.response = Response(400, {"error": {"message": "Unsupported parameter", "param": "max_tokens"}})
    assert "change or remove 'max_tokens'" in str(await _failure(settings))


@pytest.mark.parametrize("place", ["code", "type"])
@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
async def test_spent_credit_is_fatal_although_it_comes_with_429(
    settings: ModelSettings, script: Script, place: str, code: str
) -> None:
    script.response = Response(429, {"error": {"message": "You exceeded your quota", place: code}})
    error = await _failure(settings)
    assert _kinds(error) == {"fatal"}
    assert "credit" in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "plain text"}', "plain text"),
        (b'{"detail": "from FastAPI"}', "from FastAPI"),
        (b'{"detail": [{"loc": ["body"], "msg": "too long"}]}', "too long"),
        (b'{"message": "bare"}', "bare"),
        (b'{"error": null}', "Error code: 400"),
        (b'{"error": {"code": 7}}', "Error code: 400"),
        (b'["odd"]', "odd"),
        (b'"text"', "text"),
        (b"null", "Error code: 400"),
    ],
)
async def test_what_the_server_said_is_passed_on_in_whatever_form(
    settings: ModelSettings, script: Script, body: bytes, said: str
) -> None:
    script.response = Response(400, body)
    assert said in str(await _failure(settings))


async def test_a_long_page_of_an_error_is_cut_and_no_part_of_the_key_stays(
    settings: ModelSettings, script: Script
) -> None:
    page = b"<html>" + b"x" * 284 + KEY.encode() + b"x" * 5000
    script.response = Response(502, page, {"content-type": "text/html"})
    error = await _failure(settings)
    assert "answered 502: <html>xxx" in str(error)
    assert "sk-" not in str(error)
    assert len(str(error)) < 500


async def test_a_delay_that_the_server_asks_for_is_in_the_error(settings: ModelSettings, script: Script) -> None:
    script.response = Response(429, {}, {"llm_provider-retry-after": "7"})
    assert (await _failure(settings)).retry_after == 7.0
    # Google's own form: a list, and the delay in it.
    script.response = Response(429, b'[{"error": {"message": "exceeded your current quota. Please retry in 6.1s."}}]')
    error = await _failure(settings)
    assert error.retry_after == 6.1
    assert "answered 429: exceeded your current quota. Please retry in 6.1s. (" in str(error)


async def test_a_server_that_is_not_there_is_named_with_its_base_url(settings: ModelSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        base_url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    error = await _failure(replace(settings, base_url=base_url))
    assert _kinds(error) == {"transient"}
    assert "cannot be reached: Cannot connect" in str(error)
    assert base_url in str(error)


async def test_a_key_in_what_the_transport_says_is_masked(settings: ModelSettings) -> None:
    # The transport names the host, so here the key is part of it.
    model = OpenAIChatModel(replace(settings, base_url="http://planted-key.invalid/v1", api_key="planted-key"))
    async with aclosing(model):
        with pytest.raises(ModelError, match=r"host \*\*\*\.invalid:80"):
            await model.complete(ASKED)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "another protocol", "half a body", "a bad chunk", "not compressed", "a long header"],
)
async def test_a_reply_that_is_not_http_is_a_model_error(settings: ModelSettings, raw: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        error = await _failure(replace(settings, base_url=base_url))
    assert _kinds(error) == {"transient"}
    assert "cannot be reached" in str(error)


@pytest.mark.parametrize("content", [b"", b'{"choices": [', b"\xff\xfe\x00", b"[" * 100_000])
@pytest.mark.parametrize("media_type", ["application/json", "text/html"])
async def test_a_body_that_is_not_json_is_a_model_error(
    settings: ModelSettings, script: Script, content: bytes, media_type: str
) -> None:
    script.response = Response(200, content, {"content-type": media_type})
    error = await _failure(settings)
    assert _kinds(error) == {"transient"}
    assert "not JSON" in str(error)


@pytest.mark.parametrize("body", [b"[]", b"[1]", b'"text"', b"3", b"null", b"{}", b'{"choices": null}'])
async def test_a_body_without_a_choice_may_have_one_the_next_time(
    settings: ModelSettings, script: Script, body: bytes
) -> None:
    script.response = Response(200, body)
    error = await _failure(settings)
    assert _kinds(error) == {"transient"}
    assert "answered without choices" in str(error)


async def test_an_error_that_comes_with_status_200_is_passed_on(settings: ModelSettings, script: Script) -> None:
    script.response = Response(200, {"error": {"message": f"upstream overloaded, key {KEY}"}})
    error = await _failure(settings)
    assert error.transient
    assert "upstream overloaded, key ***" in str(error)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        ({"code": 429, "message": "slow down"}, {"transient", "throttled"}),
        ({"code": "context_length_exceeded", "message": "too long"}, set()),
        ({"code": "insufficient_quota", "message": "pay"}, {"transient"}),
        ({"code": 402, "message": "Insufficient credits"}, {"fatal"}),
        ({"message": "upstream failed"}, {"transient"}),
    ],
)
async def test_an_error_that_comes_with_status_200_means_what_its_code_says(
    settings: ModelSettings, script: Script, error: dict[str, object], kinds: set[str]
) -> None:
    script.response = Response(200, {"error": error, "choices": []})
    assert _kinds(await _failure(settings)) == kinds


async def test_a_short_key_does_not_maul_what_is_said(settings: ModelSettings, script: Script) -> None:
    script.response = Response(400, {"error": {"message": "Unexpected fields"}})
    with pytest.raises(ModelError, match="Unexpected fields"):
        await _ask(replace(settings, api_key="x"))


@pytest.mark.parametrize(
    ("response", "names"),
    [
        (Response(body={"data": [{"id": "a"}, {"id": "b"}, {"name": "c"}, 3]}), ["a", "b"]),
        (Response(404, {}), []),
        (Response(body=b"<html>"), []),
        (Response(body={"data": None}), []),
        (Response(body=b"[]"), []),
    ],
)
async def test_the_models_of_a_server_are_those_it_lists(
    settings: ModelSettings, script: Script, response: Response, names: list[str]
) -> None:
    script.response = response
    async with aclosing(OpenAIChatModel(settings)) as model:
        assert await model.served() == names
    assert (script.asked[0].method, script.asked[0].path) == ("GET", "/v1/models")


async def test_a_choice_that_is_none_is_an_empty_reply_for_the_parsers_to_refuse(
    settings: ModelSettings, script: Script
) -> None:
    script.response = Response(200, {"choices": [3]})
    reply = await _ask(settings)
    assert (reply.text, reply.finish_reason, reply.model, reply.usage) == ("", None, "vendor/model", Usage())


async def test_a_message_that_is_not_unicode_is_not_sent_and_not_repeated(
    settings: ModelSettings, script: Script
) -> None:
    error = await _failure(settings, Call((Message("user", "\ud800"),)))
    assert _kinds(error) == set()
    assert "cannot be sent" in str(error)
    assert error.unsent
    assert script.asked == []


@pytest.mark.parametrize(
    ("choice", "kinds", "said"),
    [
        ({"finish_reason": "abort"}, {"transient"}, "gave up a reply under way: finish_reason 'abort'"),
        ({"finish_reason": "error", "error": {"code": 502, "message": "Gone"}}, {"transient"}, "answered 502: Gone"),
        ({"error": {"code": 429, "message": "Busy"}}, {"transient", "throttled"}, "answered 429: Busy"),
        ({"error": {"message": "Gone"}}, {"transient"}, "Gone"),
    ],
)
async def test_a_reply_that_was_given_up_under_way_may_be_whole_the_next_time(
    settings: ModelSettings, script: Script, choice: dict[str, object], kinds: set[str], said: str
) -> None:
    script.response = Response(body={**BODY, "choices": [{"message": {"content": "Half an"}, **choice}]})
    with pytest.raises(ModelError, match="my_llm") as error:
        await _ask(settings)
    assert _kinds(error.value) == kinds
    assert said in str(error.value)


def test_the_key_is_not_in_the_repr_of_the_settings(settings: ModelSettings) -> None:
    assert KEY not in repr(settings)
    assert KEY not in str(settings)
    assert "vendor/model" in repr(settings)


async def test_the_key_is_not_in_the_log(
    settings: ModelSettings, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await _ask(settings)
    script.fault = Fault.UNAUTHORIZED
    await _failure(settings)
    assert KEY not in caplog.text


async def test_a_request_is_not_logged_line_by_line(settings: ModelSettings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await _ask(settings)
    assert "HTTP Request" not in caplog.text


async def test_a_level_that_the_user_set_stays(settings: ModelSettings) -> None:
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpx2")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.DEBUG)
        await _ask(settings)
        assert {logging.getLogger(name).level for name in levels} == {logging.DEBUG}
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


async def test_the_transport_lets_256_calls_run_side_by_side(make_server: Callable[..., LoopbackServer]) -> None:
    most = 0
    all_there = asyncio.Event()

    async def answer(_: Request) -> Response:
        nonlocal most
        most += 1
        if most == 256:
            all_there.set()
        await all_there.wait()
        return Response(body=BODY)

    settings = ModelSettings("my_llm", "vendor/model", make_server(answer).url, KEY)
    async with aclosing(OpenAIChatModel(settings)) as model:
        replies = await asyncio.gather(*(model.complete(replace(ASKED, sample=sample)) for sample in range(256)))
    # None was answered before all were there.
    assert most == len(replies) == 256


async def test_an_app_answers_in_this_process() -> None:
    settings = ModelSettings("writer", "demo/stdlib-writer", "http://nowhere.invalid/v1", KEY)
    async with aclosing(OpenAIChatModel(settings, create_app())) as model:
        reply = await model.complete(Call((Message("user", "What does `heapq.nlargest` do?"),)))
        with pytest.raises(ModelError, match="answered 400"):
            await model.complete(Call(()))
    assert "largest elements" in reply.text
    assert model.name == reply.llm == "writer"


@pytest.mark.parametrize("fault", [None, Fault.RESET, Fault.HANG, Fault.SLOW_DRIP, Fault.SERVER_ERROR])
async def test_a_closed_model_leaves_no_session_and_no_socket_open(
    settings: ModelSettings, script: Script, recwarn: pytest.WarningsRecorder, fault: Fault | None
) -> None:
    script.fault = fault
    impatient = replace(settings, timeout_seconds=0.1 if fault else 600)
    await (_ask(impatient) if fault is None else _failure(impatient))
    gc.collect()
    assert [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)] == []


async def test_credentials_in_an_address_are_sent_in_place_of_the_key_and_not_repeated(
    settings: ModelSettings, script: Script
) -> None:
    settings = replace(settings, base_url=settings.base_url.replace("//", "//me:hunter%402@"))
    await _ask(settings)
    assert script.asked[0].headers["authorization"] == "Basic " + b64encode(b"me:hunter@2").decode()
    script.fault = Fault.UNAUTHORIZED
    assert "hunter" not in str(await _failure(settings))


async def test_the_query_of_an_address_goes_behind_the_route_and_is_not_repeated(
    settings: ModelSettings, script: Script
) -> None:
    settings = replace(settings, base_url=f"{settings.base_url}?api-key=hunter%202")
    await _ask(settings)
    assert {request.path for request in script.asked} == {"/v1/chat/completions?api-key=hunter+2"}
    script.fault = Fault.SERVER_ERROR
    assert "hunter" not in str(await _failure(settings))
    async with aclosing(OpenAIChatModel(settings)) as model:
        assert "hunter" not in str(model.identity(ASKED))


@pytest.mark.parametrize(
    "base_url",
    ["", "localhost:8000", "ftp://host/v1", "http:///v1", "http://host:99999/v1", "http://[::1", "me:hunter2@host"],
)
def test_an_address_that_is_none_is_refused(settings: ModelSettings, base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="'my_llm': base_url must be like https://host/v1") as error:
        OpenAIChatModel(replace(settings, base_url=base_url))
    assert "hunter2" not in str(error.value)

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.testing.server import Fault, LoopbackServer, Request, Response, serving
from nat_dpo_pipeline.trainers.backend import StatusUnknown
from nat_dpo_pipeline.trainers.nemo.http import AS_USUAL, TRIES, Host, Requests, Service, connected
from nat_dpo_pipeline.trainers.nemo.settings import NemoSettings
from tests.servers.nemo import NemoService
from tests.waiting import ticking, until

SECRET = "nvapi-very-secret"
QUICK = Requests(retry_pause=0.001)


def _settings(url: str, **tokens: str) -> NemoSettings:
    where = {"entity_host": url, "datastore_host": url, "namespace": "ns", "customization_config": "meta/m@v1"}
    return NemoSettings.model_validate({**where, "access_token": SECRET, **tokens})


@pytest.fixture
async def service(nemo: NemoService) -> AsyncIterator[Service]:
    async with connected(_settings(nemo.url), QUICK) as both:
        yield both.entities


@pytest.mark.parametrize("what", [Response(503), Response(429), Response(408), Fault.WRONG_CONTENT_TYPE])
async def test_what_may_pass_is_asked_again(nemo: NemoService, service: Service, what: Fault | Response) -> None:
    nemo.namespaces.add("ns")
    nemo.trouble("GET", "/v1/namespaces/ns", what, times=TRIES - 1)
    assert (await service.get("/v1/namespaces/ns")).body == {"id": "ns"}
    assert len(nemo.asked("GET", "/v1/namespaces/ns")) == TRIES


@pytest.mark.parametrize("what", [Response(503, {"detail": "no room"}), Fault.RESET, Fault.TRUNCATED_JSON])
async def test_what_does_not_pass_is_told_as_unknown(
    nemo: NemoService, service: Service, what: Fault | Response
) -> None:
    nemo.namespaces.add("ns")
    nemo.trouble("GET", "/v1/namespaces/ns", what, times=100)
    with pytest.raises(StatusUnknown, match=r"NeMo Microservices at http://127.0.0.1:\d+: GET /v1/namespaces/ns "):
        await service.get("/v1/namespaces/ns")
    with pytest.raises(StatusUnknown):
        await service.get("/v1/namespaces/ns", repeat=False)
    if what is not Fault.RESET:  # aiohttp itself asks again when a connection is lost
        assert len(nemo.asked("GET", "/v1/namespaces/ns")) == TRIES + 1


async def test_a_server_that_is_not_there_is_told() -> None:
    async with connected(_settings("http://127.0.0.1:9"), QUICK) as both:
        with pytest.raises(StatusUnknown, match=r"http://127\.0\.0\.1:9: GET /x got no answer: .*"):
            await both.datastore.get("/x")


async def test_a_server_that_is_silent_is_not_waited_for_forever(nemo: NemoService) -> None:
    nemo.trouble("GET", "/x", Fault.HANG)
    async with connected(_settings(nemo.url), Requests(timeout=0.05)) as both:
        with pytest.raises(StatusUnknown, match=r"none within 0\.05 s"):
            await both.entities.get("/x", repeat=False)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_names_its_setting_and_is_not_repeated(
    nemo: NemoService, service: Service, status: int
) -> None:
    nemo.trouble("GET", "/x", Response(status, {"detail": f"bad key {SECRET}"}))
    with pytest.raises(ConfigurationError, match=rf"refused with {status}: bad key \*\*\*; check access_token"):
        await service.get("/x")
    assert len(nemo.requests) == 1


async def test_any_other_refusal_says_what_the_server_said(nemo: NemoService, service: Service) -> None:
    nemo.trouble("POST", "/x", Response(422, {"detail": [{"loc": ["body", "epochs"], "msg": "too many"}]}))
    with pytest.raises(TrainingError, match=r"POST /x was refused with 422: .*too many") as told:
        await service.post("/x", {})
    assert not isinstance(told.value, StatusUnknown)


async def test_a_refusal_that_was_expected_is_an_answer(service: Service) -> None:
    assert (await service.get("/v1/namespaces/none", accept=(404,))).status == 404


async def test_the_token_goes_to_its_host_only(nemo: NemoService, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    seen: list[str | None] = []

    def record(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return Response(body={})

    async with connected(_settings(nemo.url, hf_token="hf-secret")) as both:
        await both.entities.get("/a", accept=(404,))
        await both.datastore.get("/b", accept=(404,))
        with serving(LoopbackServer(record)) as elsewhere:
            await both.datastore.put_file(f"{elsewhere}/upload", file, {})
    assert [one.authorization for one in nemo.requests] == [f"Bearer {SECRET}", "Bearer hf-secret"]
    assert seen == [None]


async def test_without_a_token_there_is_no_header(nemo: NemoService) -> None:
    async with connected(_settings(nemo.url, access_token="")) as both:
        await both.entities.get("/a", accept=(404,))
    assert nemo.requests[0].authorization is None


async def test_a_login_in_the_address_is_used_and_not_told(nemo: NemoService) -> None:
    nemo.trouble("GET", "/x", Response(500), times=TRIES)
    url = nemo.url.replace("http://", "http://me:secret-word@")
    async with connected(_settings(url, access_token=""), QUICK) as both:
        with pytest.raises(StatusUnknown) as told:
            await both.entities.get("/x")
    login = base64.b64encode(b"me:secret-word").decode()
    assert nemo.requests[0].authorization == f"Basic {login}"
    assert "secret-word" not in str(told.value)
    assert SECRET not in repr(_settings(url))


@pytest.mark.parametrize("address", ["nmp.example.com", "ftp://a", "http://", "http://[", "x:y@z"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="must be like https://host"):
        Host.of("NeMo", address, "", "access_token")


async def test_the_event_loop_goes_on_while_a_file_is_sent(tmp_path: Path) -> None:
    """The server does not answer before a coroutine beside the request went on."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2_000_000)

    async def patient(_: Request) -> Response:
        begin = ticks.count
        await until(lambda: ticks.count >= begin + 5)
        return Response(body={})

    async with ticking() as ticks, aiohttp.ClientSession() as session:
        with serving(LoopbackServer(patient)) as url:
            service = Service(session, Host.of("NeMo", url, "", ""), AS_USUAL)
            assert (await service.put_file(f"{url}/upload", file, {})).status == 200

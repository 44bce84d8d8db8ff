"""The whole of the room against a server that fails: models, limits, journal and recipe over HTTP."""

import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, JOURNAL
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode
from nat_dpo_pipeline.generation.turns import Turn
from nat_dpo_pipeline.testing.faults import VALID
from nat_dpo_pipeline.testing.messages import Request as HttpRequest
from nat_dpo_pipeline.testing.messages import content_of
from nat_dpo_pipeline.testing.server import Fault, LoopbackServer, Response, after, asgi_answer, at_random, serving
from tests.commands import started

pytestmark = pytest.mark.runs
Server = Callable[..., LoopbackServer]
LIMITS = Limits(max_concurrency=16, first_pause_seconds=0.01, max_retries=12)
TRANSIENT = sorted(set(Fault) - {Fault.UNAUTHORIZED})
PAIRED = RecipeSettings(n_subtopics=3, n_questions=4, responses=ResponseMode.PAIRED, seed=3)
INDEPENDENT = PAIRED.model_copy(update={"responses": ResponseMode.INDEPENDENT, "n_responses": 3})


@dataclass(frozen=True)
class Outcome:
    turns: list[Turn]
    record: GenerationRecord


@asynccontextmanager
async def _recipe(
    url: str, settings: RecipeSettings, journal: Journal | None = None, timeout_seconds: float = 60.0
) -> AsyncIterator[PreferenceRecipe]:
    opened: list[OpenAIChatModel] = []

    def model(name: str) -> ChatModel:
        model_name = f"demo/stdlib-{name}"
        chat = OpenAIChatModel(ModelSettings(name, model_name, url, "sk-planted", timeout_seconds=timeout_seconds))
        opened.append(chat)
        if journal is None:
            return LimitedModel(chat, LIMITS)
        limited = LimitedModel(RecordedModel(chat, journal, chat.identity), LIMITS)
        return ReplayedModel(limited, journal, chat.identity)

    writer = model("writer")
    try:
        yield PreferenceRecipe(
            writer=writer,
            responders=[writer],
            scorer=RewardModelScorer(model("reward"), weights_named("helpfulness")),
            settings=settings,
        )
    finally:
        for chat in opened:
            await chat.aclose()


async def _outcome(
    url: str, settings: RecipeSettings, journal: Journal | None = None, timeout_seconds: float = 60.0
) -> Outcome:
    record = GenerationRecord()
    async with _recipe(url, settings, journal, timeout_seconds) as recipe:
        return Outcome(await recipe.turns(Request(topic="Data structures"), record), record)


@pytest.mark.parametrize("settings", [PAIRED, INDEPENDENT], ids=["paired", "independent"])
@pytest.mark.parametrize("faults", [*([fault] for fault in TRANSIENT), TRANSIENT], ids=lambda faults: "+".join(faults))
async def test_transient_faults_at_thirty_percent_of_the_calls_change_nothing(
    make_server: Server, settings: RecipeSettings, faults: list[Fault]
) -> None:
    answer = asgi_answer(create_app(seed=1))
    sound = make_server(answer)
    failing = make_server(answer, fault=at_random(0.3, faults, seed=7))

    expected = await _outcome(sound.url, settings)
    # Where nothing but the time-out ends a call it must be short; on a slow machine it may then end a sound one too.
    never_ends = not {Fault.HANG, Fault.SLOW_DRIP}.isdisjoint(faults)
    found = await _outcome(failing.url, settings, timeout_seconds=1.0 if never_ends else 60.0)

    assert found.turns == expected.turns
    assert found.record.counts == expected.record.counts
    assert found.record.failures == expected.record.failures
    spoilt = [one for one in failing.requests if one.fault is not None]
    assert len(spoilt) > 0.1 * len(sound.requests)
    retries = sum(used.retries for used in found.record.usage.values())
    failed = len([one for one in spoilt if one.fault not in VALID])
    assert retries >= failed if never_ends else retries == failed
    # All that reached the server is on record; a call that was given up before it was sent is, too.
    asked = sum(used.requests for used in found.record.usage.values())
    assert asked >= len(failing.requests)
    assert asked - retries <= failing.answered


@pytest.mark.parametrize("count", [1, 5, 20, 60])
async def test_a_key_that_ends_keeps_what_was_collected_and_the_next_run_goes_on(
    make_server: Server, tmp_path: Path, count: int
) -> None:
    answer = asgi_answer(create_app(seed=1))
    sound = make_server(answer)
    expected = await _outcome(sound.url, INDEPENDENT)
    calls = len(sound.requests)
    failing = [after(count, Fault.UNAUTHORIZED)]
    # One server, so that the second run is asked of the same address.
    server = make_server(answer, fault=lambda request: failing[0](request))

    with closing(Journal(tmp_path / "journal")) as journal:
        stopped = await _outcome(server.url, INDEPENDENT, journal)
    assert stopped.record.stopped is not None
    assert "answered 401" in stopped.record.stopped
    assert "sk-planted" not in stopped.record.stopped
    told = [failure for failure in stopped.record.failures if "401" in failure.detail]
    assert len(told) <= 2, "one for each model that ended"
    by_id = {turn.turn_id: turn for turn in expected.turns}
    for turn in stopped.turns:
        assert [one for one in turn.candidates if one not in by_id[turn.turn_id].candidates] == []

    failing[0] = lambda _: None
    before = server.answered
    with closing(Journal(tmp_path / "journal")) as journal:
        resumed = await _outcome(server.url, INDEPENDENT, journal)
    assert resumed.turns == expected.turns
    assert before == count
    assert server.answered - before == calls - count


async def test_a_server_that_never_answers_is_given_up_with_one_clear_message(make_server: Server) -> None:
    server = make_server(asgi_answer(create_app(seed=1)), fault=lambda _: Fault.RESET)
    outcome = await _outcome(server.url, PAIRED)
    assert outcome.turns == []
    (failure,) = outcome.record.failures
    assert "cannot be reached" in failure.detail
    assert len(server.requests) == 3


async def test_a_run_in_which_a_pool_stood_in_is_replayed_as_it_was(make_server: Server, tmp_path: Path) -> None:
    ends: list[bool] = [True]
    answer = asgi_answer(create_app(seed=1))
    frail = make_server(answer, fault=lambda request: Fault.UNAUTHORIZED if ends[0] and request.number > 4 else None)
    sound = make_server(answer)
    first = await _pooled(frail.url, sound.url, tmp_path / "journal")
    assert first.record.stood_in_for.keys() == {"frail"}
    assert first.record.stopped is None

    ends[0] = False
    before = frail.answered + sound.answered
    again = await _pooled(frail.url, sound.url, tmp_path / "journal")
    assert again.turns == first.turns
    assert frail.answered + sound.answered == before


async def test_a_member_that_is_down_is_passed_over_soon(make_server: Server, tmp_path: Path) -> None:
    answer = asgi_answer(create_app(seed=1))
    down = make_server(answer, fault=lambda request: Fault.SERVER_ERROR if request.number > 4 else None)
    sound = make_server(answer)
    outcome = await _pooled(down.url, sound.url, tmp_path / "journal")
    assert len(outcome.turns) == 12
    assert outcome.record.lost == 0
    # Ten failures tell that it is down; those that were under way with them come on top.
    assert len(down.requests) <= 4 + 10 + 2 * LIMITS.max_concurrency


async def _pooled(frail: str, sound: str, journal_path: Path) -> Outcome:
    record = GenerationRecord()
    async with AsyncExitStack() as stack:
        journal = stack.enter_context(closing(Journal(journal_path)))

        def model(name: str, url: str, model_name: str = "demo/stdlib-writer") -> ChatModel:
            chat = OpenAIChatModel(ModelSettings(name, model_name, url, "sk-planted"))
            stack.push_async_callback(chat.aclose)
            limited = LimitedModel(RecordedModel(chat, journal, chat.identity), LIMITS)
            return ReplayedModel(limited, journal, chat.identity)

        recipe = PreferenceRecipe(
            writer=model("writer", sound),
            responders=[ModelPool([model("frail", frail), model("sound", sound)])],
            scorer=RewardModelScorer(model("reward", sound, "demo/stdlib-reward"), weights_named("helpfulness")),
            settings=INDEPENDENT,
        )
        return Outcome(await recipe.turns(Request(topic="Data structures"), record), record)


_SCRIPT = Path(__file__).with_name("run_to_be_killed.py")
KILLS = 20
REQUESTS_BEFORE_A_KILL = 9


class Legs:
    """A run that is killed while the server handles certain of its requests, and started again each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.received = 0
        self._process: int | None = None
        self._kill_at: int | None = None

    def received_one(self, _: HttpRequest) -> float:
        self.received += 1
        if self.received == self._kill_at and self._process is not None:
            os.kill(self._process, signal.SIGKILL)
        return 0.001

    def go(self, url: str, requests: int | None, *, afresh: bool = False) -> int:
        """The exit code of a leg that is killed at its request number `requests`."""
        self._kill_at = None if requests is None else self.received + requests
        with started(Path(), _SCRIPT, url, self.folder, afresh=afresh) as running:
            self._process = running.process.pid
            return running.process.wait()

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads((self.folder / MANIFEST_NAME).read_bytes())["counts"]
        return counts

    def on_record(self) -> set[str]:
        """The replies in the journal, by the ids that the server gave them."""
        with closing(sqlite3.connect(self.folder / JOURNAL)) as database:
            return {json.loads(body)["id"] for (body,) in database.execute("SELECT body FROM replies")}


def _answering_with_an_id() -> Callable[[HttpRequest], Awaitable[Response]]:
    demo = asgi_answer(create_app(seed=1))

    async def answer(request: HttpRequest) -> Response:
        found = demo(request)
        assert not isinstance(found, Response)
        response = await found
        return replace(response, body=json.dumps({**json.loads(content_of(response)), "id": request.number}).encode())

    return answer


def test_a_run_over_all_faults_that_is_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    sound, failing = Legs(tmp_path / "sound"), Legs(tmp_path / "failing")
    with serving(LoopbackServer(_answering_with_an_id(), latency=sound.received_one)) as url:
        assert sound.go(url, None, afresh=True) == 0

    server = LoopbackServer(
        _answering_with_an_id(), fault=at_random(0.3, TRANSIENT, seed=11), latency=failing.received_one
    )
    with serving(server) as url:
        kept: set[str] = set()
        for kill in range(KILLS):
            assert failing.go(url, REQUESTS_BEFORE_A_KILL + kill % 3) == -signal.SIGKILL
            # A call that is paid for again has another id on record.
            assert kept <= failing.on_record()
            kept = failing.on_record()
        assert failing.go(url, None) == 0
        assert kept <= failing.on_record()

    assert (failing.folder / CANDIDATES).read_bytes() == (sound.folder / CANDIDATES).read_bytes()
    assert failing.counts() == sound.counts()
    assert {one.fault for one in server.requests} - {None} == set(TRANSIENT)
    lost = server.answered - len(failing.on_record())
    assert 0 <= lost <= KILLS * 2 * 2  # two models, each with two calls at once

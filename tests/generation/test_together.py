"""Samples of one question in one request, over models that answer in a time of their own, and over a real server."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, Route
from nat_dpo_pipeline.generation.inputs import Request as Input
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord, ModelUsage
from nat_dpo_pipeline.generation.replies import ChatReply, read_samples
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import (
    RecipeSettings,
    ResponseMode,
    Sampling,
    StepSampling,
    StepSamplings,
)
from nat_dpo_pipeline.generation.together import SampledTogether
from nat_dpo_pipeline.testing import ScriptedModel
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response
from tests import own_time

WHY = Call((Message("user", "Why?"),))
Make = Callable[..., LoopbackServer]


@dataclass
class Several:
    """Gives up to `most` choices a request after a second; the first requests meet the errors."""

    most: int = 256
    errors: list[Exception] = field(default_factory=list)
    name: str = "several"
    calls: list[Call] = field(default_factory=list)

    async def complete(self, call: Call) -> ChatReply:
        self.calls.append(call)
        await asyncio.sleep(1)
        if self.errors:
            raise self.errors.pop(0)
        asked = (call.sample, *call.also)[: self.most]
        texts = (f"{call.messages[-1].content} {sample}" for sample in asked)
        return read_samples(completion(*texts), self.name, "m", most=len(asked))

    def sizes(self) -> list[int]:
        return [1 + len(call.also) for call in self.calls]


def _samples(count: int, question: str = "Why?", **values: object) -> list[Call]:
    call = replace(WHY, messages=(Message("user", question),), **values)
    return [replace(call, sample=sample, place=sample) for sample in range(count)]


async def _texts(model: ChatModel, calls: Sequence[Call]) -> list[str]:
    return [reply.text for reply in await asyncio.gather(*map(model.complete, calls))]


def _together(model: ChatModel) -> SampledTogether:
    return SampledTogether(model, lambda _: True)


# What is asked for together.


@pytest.mark.own_time
async def test_samples_that_begin_at_the_same_moment_are_one_request_and_each_has_a_choice() -> None:
    model = Several()
    replies = await asyncio.gather(*map(_together(model).complete, _samples(4)))
    assert [reply.text for reply in replies] == ["Why? 0", "Why? 1", "Why? 2", "Why? 3"]
    assert model.sizes() == [4]
    assert [reply.came_along for reply in replies] == [False, True, True, True]
    assert all(reply.others == () for reply in replies)


@pytest.mark.own_time
@pytest.mark.parametrize(
    "other",
    [
        {"messages": (Message("user", "How?"),)},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(seed=1)},
        {"run": 1},
        {"patient": False},
        {"sample": 0},
    ],
)
async def test_calls_that_differ_in_more_than_their_sample_are_requests_of_their_own(other: dict[str, object]) -> None:
    model = Several()
    await _texts(_together(model), [WHY, replace(WHY, **{"sample": 1, **other})])
    assert model.sizes() == [1, 1]


@pytest.mark.own_time
async def test_a_call_later_is_a_request_of_its_own() -> None:
    model = Several()
    together = _together(model)
    first = asyncio.create_task(together.complete(WHY))
    await asyncio.sleep(0.5)
    await asyncio.gather(first, together.complete(replace(WHY, sample=1)))
    assert model.sizes() == [1, 1]


@pytest.mark.own_time
async def test_what_may_not_be_one_request_is_not() -> None:
    model = Several()
    await _texts(
        SampledTogether(model, lambda call: call.sampling.seed is None), _samples(3, sampling=Sampling(seed=1))
    )
    assert model.sizes() == [1, 1, 1]


# Whether the model gives several.


@pytest.mark.own_time
async def test_a_model_that_gives_one_is_tried_once_and_the_rest_is_asked_for_singly() -> None:
    model = Several(most=1)
    together = _together(model)
    calls = [call for question in ("Why?", "How?", "When?") for call in _samples(4, question)]
    assert await _texts(together, calls) == [
        f"{question} {n}" for question in ("Why?", "How?", "When?") for n in range(4)
    ]
    assert sorted(model.sizes()) == [1] * 11 + [4]
    await _texts(together, _samples(4, "Where?"))
    assert sorted(model.sizes()) == [1] * 15 + [4]


@pytest.mark.own_time
async def test_what_a_model_leaves_out_is_asked_for_singly() -> None:
    model = Several(most=3)
    assert await _texts(_together(model), _samples(5)) == [f"Why? {number}" for number in range(5)]
    assert model.sizes() == [5, 1, 1]


@pytest.mark.own_time
async def test_other_questions_wait_for_the_trial_and_then_go_together() -> None:
    model = Several()
    calls = [call for question in ("Why?", "How?", "When?") for call in _samples(2, question)]
    running = asyncio.gather(*map(_together(model).complete, calls))
    await asyncio.sleep(0.5)
    assert model.sizes() == [2]
    await running
    assert model.sizes() == [2, 2, 2]


@pytest.mark.own_time
async def test_a_trial_that_fails_says_nothing_and_who_waited_for_it_does_not_wait_again() -> None:
    model = Several(errors=[ModelError("down", transient=True)])
    together = _together(model)
    calls = [*_samples(2), *_samples(2, "How?")]
    outcomes = await asyncio.gather(*map(together.complete, calls), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes[:2]] == ["down", "down"]
    assert model.sizes() == [2, 1, 1]
    await _texts(together, _samples(2, "When?"))
    assert model.sizes() == [2, 1, 1, 2]


# What goes wrong.


@pytest.mark.own_time
async def test_an_error_is_that_of_every_sample_and_its_requests_are_counted_once() -> None:
    error = ModelError("the credit is spent", fatal=True)
    limited = LimitedModel(Several(errors=[error]), Limits())
    outcomes = await asyncio.gather(*map(_together(limited).complete, _samples(3)), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, ModelError)]
    assert [(str(one), one.fatal, one.llm, one.requests) for one in errors] == [
        ("the credit is spent", True, "several", 1),
        ("the credit is spent", True, "several", 0),
        ("the credit is spent", True, "several", 0),
    ]
    assert len({id(one) for one in errors}) == 3


@pytest.mark.own_time
async def test_another_member_of_a_pool_takes_over_all_samples_together() -> None:
    broken = Several(errors=[ModelError("gone", fatal=True)], name="broken")
    sound = Several(name="sound")
    pool = ModelPool([_together(broken), _together(sound)])
    calls = [replace(call, place=2 * call.sample) for call in _samples(3)]  # all of them are for the first member
    replies = await asyncio.gather(*map(pool.complete, calls))
    assert {reply.llm for reply in replies} == {"sound"}
    assert (broken.sizes(), sound.sizes()) == ([3], [3])


@pytest.mark.own_time
async def test_members_of_a_pool_take_turns_and_each_has_its_own_samples_in_one_request() -> None:
    members = [Several(name=name) for name in ("a", "b")]
    pool = ModelPool([_together(member) for member in members])
    replies = await asyncio.gather(*map(pool.complete, _samples(4)))
    assert [reply.llm for reply in replies] == ["a", "b", "a", "b"]
    assert [member.sizes() for member in members] == [[2], [2]]


@pytest.mark.own_time
@pytest.mark.parametrize("seconds", [0, 0.5])
async def test_when_the_first_caller_is_cancelled_the_others_ask_for_themselves(seconds: float) -> None:
    model = Several()
    together = _together(model)
    tasks = [asyncio.create_task(together.complete(call)) for call in _samples(3)]
    await asyncio.sleep(seconds)
    tasks[0].cancel()
    replies = await asyncio.wait_for(asyncio.gather(*tasks[1:]), 10)
    assert [reply.text for reply in replies] == ["Why? 1", "Why? 2"]


# Limits.


@pytest.mark.own_time
async def test_several_samples_are_one_request_of_a_minute_and_all_their_tokens() -> None:
    model = Several()
    limited = LimitedModel(model, Limits(max_concurrency=1, requests_per_minute=60))
    together = _together(limited)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for question in range(10):
        await _texts(together, _samples(4, str(question)))
    assert model.sizes() == [4] * 10
    assert loop.time() - began < 11


@pytest.mark.own_time
async def test_several_samples_book_the_tokens_of_all_of_them() -> None:
    class Wordy(Several):
        async def complete(self, call: Call) -> ChatReply:
            self.calls.append(call)
            texts = [f"{call.messages[-1].content} {sample}" for sample in (call.sample, *call.also)]
            body = completion(*texts, prompt_tokens=100, completion_tokens=500 * len(texts))
            return read_samples(body, self.name, "m", most=len(texts))

    model = Wordy()
    together = _together(LimitedModel(model, Limits(tokens_per_minute=6000)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for question in range(10):
        await _texts(together, _samples(4, str(question)))
    assert model.sizes() == [4] * 10
    # 21,000 tokens, of which the bucket of ten seconds holds 1,000.
    assert 195 <= loop.time() - began <= 215


# Over a real server.


@dataclass
class Server:
    """Answers with as many choices as are asked for, up to `most`; `refuses` several with this status."""

    most: int = 256
    refuses: int | None = None
    asked: list[dict[str, object]] = field(default_factory=list)
    given: int = 0

    def answer(self, request: Request) -> Response:
        body = request.json
        self.asked.append(body)
        if body["model"] == "reward":
            return Response(body=completion(str(len(self.asked))))
        wanted = body.get("n", 1)
        if wanted > 1 and self.refuses is not None:
            said = {"message": "n must be between 1 <= value <= 1", "type": "invalid_request_error"}
            return Response(self.refuses, {"error": said})
        texts = [f"{body['messages'][-1]['content']} {self.given + one}" for one in range(min(wanted, self.most))]
        self.given += len(texts)
        return Response(body=completion(*texts, prompt_tokens=7, completion_tokens=10 * len(texts)))

    def sizes(self) -> Counter[object]:
        return Counter(body.get("n", 1) for body in self.asked if body["model"] == "writer")


@dataclass
class Opened:
    """Models over a server, as a run opens them."""

    stack: AsyncExitStack
    url: str
    journal: Journal | None = None

    def __call__(self, name: str, **settings: object) -> ChatModel:
        model = OpenAIChatModel(
            ModelSettings(**{"name": name, "model": name, "base_url": self.url, "api_key": "x", **settings})
        )
        self.stack.push_async_callback(model.aclose)
        recorded = model if self.journal is None else RecordedModel(model, self.journal, model.identity)
        together = SampledTogether(LimitedModel(recorded, Limits(max_concurrency=64)), model.may_be_one_request)
        return together if self.journal is None else ReplayedModel(together, self.journal, model.identity)


async def _run(
    url: str, questions: int, settings: RecipeSettings, path: Path | None = None, models: Sequence[str] = ("writer",)
) -> tuple[GenerationRecord, list[list[str]]]:
    """Run over so many questions: what was counted, and the texts of every turn."""
    async with AsyncExitStack() as stack:
        journal = None if path is None else stack.enter_context(closing(Journal(path)))
        opened = Opened(stack, url, journal)
        pool = ModelPool([opened(name, model="writer") for name in models])
        recipe = PreferenceRecipe(pool, [pool], RewardModelScorer(opened("reward"), {}), settings, workers=64)
        record = GenerationRecord()
        inputs = [Input(messages=(Message("user", f"Question {number}?"),)) for number in range(questions)]
        items = [item async for item in recipe.run(inputs, record)]
    turns = [item.value for item in sorted(items, key=lambda item: item.path)]
    return record, [sorted(candidate.response for candidate in turn.candidates) for turn in turns]


INDEPENDENT = RecipeSettings(responses=ResponseMode.INDEPENDENT, n_responses=4)


def _with(**sampling: object) -> RecipeSettings:
    return INDEPENDENT.model_copy(update={"sampling": StepSamplings(responses=StepSampling(**sampling))})


def _used(record: GenerationRecord) -> ModelUsage:
    return record.usage[("responses", "writer")]


async def test_a_server_that_gives_several_is_asked_once_a_question(make_server: Make) -> None:
    server = Server()
    record, turns = await _run(make_server(server.answer).url, 200, INDEPENDENT)
    assert server.sizes() == {4: 200}
    assert [len(turn) for turn in turns] == [4] * 200
    used = _used(record)
    assert (used.requests, used.retries, used.came_along, used.answered) == (200, 0, 600, 800)
    assert (used.prompt_tokens, used.completion_tokens, used.uncounted) == (200 * 7, 800 * 10, 0)
    assert not record.failures


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_a_server_that_refuses_several_is_tried_once(make_server: Make, status: int) -> None:
    server = Server(refuses=status)
    record, turns = await _run(make_server(server.answer).url, 20, INDEPENDENT)
    assert server.sizes() == {4: 1, 1: 80}
    assert [len(turn) for turn in turns] == [4] * 20
    assert (_used(record).requests, _used(record).retries, record.failures) == (81, 1, [])


async def test_a_server_that_gives_one_without_a_word_is_tried_once_and_nothing_is_lost(make_server: Make) -> None:
    server = Server(most=1)
    record, turns = await _run(make_server(server.answer).url, 20, INDEPENDENT)
    assert server.sizes() == {4: 1, 1: 79}
    assert [len(turn) for turn in turns] == [4] * 20
    assert (_used(record).requests, _used(record).retries, record.failures) == (80, 0, [])


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (INDEPENDENT.model_copy(update={"seed": 1}), {1: 20}),
        (_with(seed=1), {1: 20}),
        (_with(extra_body={"seed": 1}), {1: 20}),
        (_with(temperature=[0.0]), {1: 20}),
        (_with(temperature=[0.2, 0.7, 1.0]), {2: 5, 1: 10}),
        (_with(temperature=[0.0, 0.7]), {2: 5, 1: 10}),
        (_with(temperature=[0.2, 0.7]), {2: 10}),
    ],
)
async def test_samples_that_differ_in_seed_or_temperature_are_not_asked_for_together(
    make_server: Make, settings: RecipeSettings, sizes: dict[int, int]
) -> None:
    server = Server()
    _, turns = await _run(make_server(server.answer).url, 5, settings)
    assert server.sizes() == sizes
    assert [len(turn) for turn in turns] == [4] * 5


async def test_members_of_a_pool_share_the_samples_of_a_question(make_server: Make) -> None:
    server = Server()
    record, _ = await _run(make_server(server.answer).url, 10, INDEPENDENT, models=("a", "b"))
    assert server.sizes() == {2: 20}
    counted = {llm: used.answered for (step, llm), used in record.usage.items() if step == "responses"}
    assert counted == {"a": 20, "b": 20}


async def test_each_sample_is_on_record_as_if_it_had_been_asked_for_alone(make_server: Make, tmp_path: Path) -> None:
    server = Server()
    url = make_server(server.answer).url
    first, turns = await _run(url, 5, INDEPENDENT, tmp_path / "journal")
    server.asked.clear()
    again, same = await _run(url, 5, INDEPENDENT, tmp_path / "journal")
    assert server.asked == []
    assert same == turns
    assert (_used(again).replayed, _used(again).replayed_prompt_tokens) == (20, _used(first).prompt_tokens)
    assert _used(again).replayed_completion_tokens == _used(first).completion_tokens

    # More responses, and a server that gives one at a time: only what is new is asked for.
    server.most = 1
    _, more = await _run(url, 6, INDEPENDENT.model_copy(update={"n_responses": 6}), tmp_path / "journal")
    assert [set(turn) <= set(grown) for turn, grown in zip(turns, more, strict=False)] == [True] * 5
    assert server.sizes().total() == 5 * 2 + 6


async def test_samples_that_are_missing_on_record_are_asked_for_together(make_server: Make, tmp_path: Path) -> None:
    server = Server()
    url = make_server(server.answer).url
    await _run(url, 5, INDEPENDENT.model_copy(update={"n_responses": 2}), tmp_path / "journal")
    await _run(url, 5, INDEPENDENT.model_copy(update={"n_responses": 5}), tmp_path / "journal")
    assert server.sizes() == {2: 5, 3: 5}


async def test_a_choice_that_was_given_up_is_asked_for_again_and_the_others_are_kept(make_server: Make) -> None:
    asked: list[object] = []

    def answer(request: Request) -> Response:
        wanted = request.json.get("n", 1)
        asked.append(wanted)
        body = completion(*(f"text {len(asked)} {number}" for number in range(wanted)))
        if wanted > 1:
            body["choices"][1]["finish_reason"] = "abort"  # type: ignore[index]
        return Response(body=body)

    async with AsyncExitStack() as stack:
        model = Opened(stack, make_server(answer).url)("writer")
        assert await _texts(model, _samples(3)) == ["text 1 0", "text 1 2", "text 2 0"]
    assert asked == [3, 1]


async def test_a_request_for_several_that_takes_too_long_is_made_for_one(make_server: Make) -> None:
    server = Server()
    loopback = make_server(server.answer, latency=lambda request: 60.0 if request.json.get("n") else 0.0)
    async with AsyncExitStack() as stack:
        model = Opened(stack, loopback.url)("writer", timeout_seconds=1.0)
        assert len(set(await _texts(model, _samples(3)))) == 3
    assert server.sizes()[1] == 3


async def test_other_routes_are_never_asked_for_several() -> None:
    async with AsyncExitStack() as stack:
        model = OpenAIChatModel(ModelSettings("m", "m", "http://127.0.0.1:1/v1", "x"))
        stack.push_async_callback(model.aclose)
        assert model.may_be_one_request(WHY)
        assert not model.may_be_one_request(replace(WHY, route=Route.POOLING))


def test_the_shares_of_usage_add_up() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "cost": 0.5,
        "completion_tokens_details": {"reasoning_tokens": 5},
        "is_byok": False,
    }
    first = read_samples({**completion("a", "b", "c"), "usage": usage}, "llm", "m", most=3)
    replies = [first, *first.others]
    assert sum(reply.usage.prompt_tokens for reply in replies) == 10
    assert sum(reply.usage.completion_tokens for reply in replies) == 7
    assert sum(reply.usage.reasoning_tokens for reply in replies) == 5
    assert sum(reply.usage.cost or 0 for reply in replies) == pytest.approx(0.5)
    assert [reply.text for reply in replies] == ["a", "b", "c"]


def test_more_choices_than_were_asked_for_are_not_read() -> None:
    reply = read_samples(completion("a", "b", "c"), "llm", "m", most=1)
    assert (reply.text, reply.others) == ("a", ())


def test_choices_of_which_none_is_whole_are_an_error() -> None:
    body = completion("a", "b")
    for choice in body["choices"]:  # type: ignore[attr-defined]
        choice["finish_reason"] = "abort"
    with pytest.raises(ModelError, match="gave up"):
        read_samples(body, "llm", "m", most=2)


def test_a_model_of_ones_own_that_knows_nothing_of_several_is_asked_singly() -> None:
    model = ScriptedModel(lambda call: f"{call.sample}")
    assert own_time.run(_texts(_together(model), _samples(3))) == ["0", "1", "2"]

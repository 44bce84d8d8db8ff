"""`best_of_n` around functions of real workflows."""

import asyncio
import itertools
import json
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.data_models.finetuning import FinetuneRunConfig
from nat.finetuning.finetuning_runtime import finetuning_main
from nat.plugin_api import Builder, Context
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema
from pydantic import BaseModel

from nat_dpo_pipeline.core.branches import branched
from nat_dpo_pipeline.core.candidates import RefusalReason, group_turns
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.pairs import PairingRules, make_pairs
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.nat_api import (
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TraceMetadata,
)
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response
from tests.plugin.functions import BODIES, STREAMS, Asked, Run, numbered, workflow, wrapped

TEXTS = ["It is so.", "Because of the tides and the moon.", "No idea"]
BEST = TEXTS[1]
LOG = "nat_dpo_pipeline"


@pytest.fixture(autouse=True)
def bodies() -> Iterator[None]:
    async def length(asked: Asked, _: Builder) -> float:
        return float(len(asked.response))

    BODIES["length"] = length
    BODIES["function"] = numbered(TEXTS)
    yield
    BODIES.clear()
    STREAMS.clear()


async def _run(settings: dict[str, Any] | None = None, **sections: Any) -> Run:
    async with workflow(wrapped("function", settings or {}, **sections)) as built:
        return await built.run("Why?")


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING and LOG in one.name]


async def _asked(messages: list[dict[str, str]], reply: str) -> str:
    """A call of a model, as a framework's callback reports it."""
    manager = Context.get().intermediate_step_manager
    start = IntermediateStepPayload(
        event_type=IntermediateStepType.LLM_START,
        name="model",
        data=StreamEventData(input=messages[-1]["content"]),
        metadata=TraceMetadata(chat_inputs=messages),
    )
    manager.push_intermediate_step(start)
    await asyncio.sleep(0)
    data = StreamEventData(input=messages[-1]["content"], output=reply)
    end = {"event_type": IntermediateStepType.LLM_END, "data": data}
    manager.push_intermediate_step(start.model_copy(update=end))
    return reply


async def test_all_results_are_candidates_of_one_turn_and_the_best_is_returned() -> None:
    run = await _run()
    assert run.result == BEST
    candidates = run.decoded().candidates
    assert run.scores() == {text: len(text) for text in TEXTS}
    assert len({one.turn_id for one in candidates}) == 1
    assert [one.prompt for one in candidates] == [(Message("user", "Why?"),)] * 3
    facts = [one.metadata for one in candidates]
    assert [(one["call"], one["returned"]) for one in facts] == [(0, False), (1, True), (2, False)]
    assert {one["function"] for one in facts} == {"<workflow>"}


async def test_they_become_pairs() -> None:
    (turn,) = group_turns((await _run()).decoded().candidates).turns
    pairs = make_pairs([turn], PairingRules()).pairs
    assert len(pairs) == 3
    assert all(pair.chosen.score > pair.rejected.score for pair in pairs)


async def test_the_steps_of_the_calls_have_the_function_as_their_parent() -> None:
    async def function(_: Any, __: Builder) -> str:
        return await _asked([{"role": "user", "content": "Why?"}], random.choice(TEXTS))

    BODIES["function"] = function
    steps = (await _run({"n": 8})).steps
    (outer,) = [
        step
        for step in steps
        if step.event_type is IntermediateStepType.FUNCTION_START and step.function_ancestry.function_name != "scorer"
    ]
    below = [step for step in steps if step.payload.name in ("model", "dpo_candidate_move")]
    assert len(below) == 2 * 8 + 2 * 8
    assert {step.parent_id for step in below} == {outer.payload.UUID}
    assert {step.function_ancestry.function_id for step in below} == {outer.payload.UUID}


async def test_a_function_below_another_one_is_sampled_and_each_call_of_it_is_a_turn() -> None:
    async def outer(value: str, builder: Builder) -> str:
        inner = await builder.get_function("inner")
        return f"{await inner.ainvoke(value)} / {await inner.ainvoke('And?')}"

    BODIES["outer"] = outer
    source = wrapped("outer", {})
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    source["workflow"] = {"_type": "test_body", "body": "outer", "calls": "inner"}
    async with workflow(source) as built:
        run = await built.run("Why?")
    assert run.result == f"{BEST} / {BEST}"
    turns = group_turns(run.decoded().candidates).turns
    assert [turn.prompt for turn in turns] == [(Message("user", "Why?"),), (Message("user", "And?"),)]
    ttc = [step for step in run.steps if step.event_type is IntermediateStepType.TTC_END]
    assert {step.function_ancestry.function_name for step in ttc} == {"inner"}
    assert {step.function_ancestry.parent_name for step in ttc} == {"<workflow>"}


@pytest.mark.own_time
async def test_calls_at_the_same_time_do_not_mix_their_steps() -> None:
    async def function(value: str, _: Builder) -> str:
        await asyncio.sleep(random.random() / 100)
        reply = f"{value} {random.random()}"
        return await _asked(
            [{"role": "system", "content": f"About {value}."}, {"role": "user", "content": value}], reply
        )

    async def outer(_: str, builder: Builder) -> list[str]:
        inner = await builder.get_function("inner")
        return list(await asyncio.gather(*(inner.ainvoke(f"question {number}") for number in range(8))))

    BODIES.update(function=function, outer=outer)
    source = wrapped("outer", {})
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    source["workflow"] = {"_type": "test_body", "body": "outer"}
    async with workflow(source) as built:
        run = await built.run("All")
    turns = group_turns(run.decoded().candidates).turns
    assert len(turns) == 8
    for turn in turns:
        system, user = turn.prompt
        assert isinstance(user, Message)
        assert system == Message("system", f"About {user.content}.")
        assert [one.response.startswith(f"{user.content} ") for one in turn.candidates] == [True] * 3


async def test_one_below_the_other_each_see_what_their_own_calls_asked() -> None:
    async def function(value: str, _: Builder) -> str:
        return await _asked([{"role": "user", "content": f"inner {value}"}], f"{random.random()}")

    async def outer(value: str, builder: Builder) -> str:
        plan = await _asked([{"role": "user", "content": f"outer {value}"}], "plan")
        return f"{plan} {await (await builder.get_function('inner')).ainvoke(value)}"

    BODIES.update(function=function, outer=outer)
    source = wrapped("outer", {"n": 2})
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    async with workflow(source) as built:
        run = await built.run("x")
    turns = group_turns(run.decoded().candidates).turns
    prompts = [turn.prompt for turn in turns]
    assert prompts == [(Message("user", "inner x"),)] * 2 + [(Message("user", "outer x"),)]
    assert [len(turn.candidates) for turn in turns] == [2, 2, 2]


@pytest.mark.parametrize(("returned", "result"), [("best", BEST), ("first", TEXTS[0])])
async def test_what_is_returned(returned: str, result: str) -> None:
    run = await _run({"return": returned})
    assert run.result == result
    assert len(run.scores()) == 3


async def test_a_random_result_is_the_same_for_a_seed() -> None:
    async def drawn(seed: int) -> list[str]:
        BODIES["function"] = numbered(TEXTS)
        async with workflow(wrapped("function", {"return": "random", "seed": seed})) as built:
            return [(await built.run()).result for _ in range(12)]

    first = await drawn(1)
    assert set(first) == set(TEXTS)
    assert first == await drawn(1) != await drawn(2)


class Reply(BaseModel):
    answer: str
    confidence: float = 0.5


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"answer": "so"}, '{"answer":"so"}'),
        (Reply(answer="so"), '{"answer":"so","confidence":0.5}'),
        (42, "42"),
        (["a", "b"], '["a","b"]'),
        (None, "null"),
    ],
)
async def test_what_is_no_text_is_scored_as_text_and_returned_as_it_is(result: object, text: str) -> None:
    BODIES["function"] = numbered([result])
    run = await _run({"n": 2})
    assert run.result is result
    assert run.responses() == [text, text]


async def test_some_calls_fail(caplog: pytest.LogCaptureFixture) -> None:
    BODIES["function"] = numbered([OSError("down"), TEXTS[0], TEXTS[1]])
    run = await _run({"return": "first"})
    assert run.result == TEXTS[0]
    assert set(run.scores()) == set(TEXTS[:2])
    assert _warnings(caplog) == ["best_of_n: a call of the function failed (1 so far): OSError: down"]


async def test_all_calls_fail() -> None:
    first = OSError("the first one")
    BODIES["function"] = numbered([first, ValueError("the second one"), KeyError("third")])
    run = await _run()
    assert run.error is first
    assert run.responses() == []


async def test_a_scorer_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    BODIES["broken"] = numbered([ValueError("no score today")])
    async with workflow(wrapped("function", {}, scorer="broken")) as built:
        runs = [await built.run() for _ in range(5)]
    assert [run.result for run in runs] == [TEXTS[0]] * 5
    assert runs[0].responses() == TEXTS
    decoded = runs[0].decoded()
    assert decoded.candidates == []
    assert [refusal.reason for refusal in decoded.refusals] == [RefusalReason.MISSING_SCORE] * 3
    told = [line for line in _warnings(caplog) if line.startswith("best_of_n: a result was not scored")]
    assert [line.partition(" so far")[0][-3:] for line in told] == [" (1", "(10"]
    assert "no score today" in told[0]


async def test_a_result_that_cannot_be_looked_at_is_still_the_answer() -> None:
    class Closed:
        @property
        def choices(self) -> list[str]:
            raise RuntimeError("closed")

    result = Closed()
    BODIES["function"] = numbered([result])
    run = await _run()
    assert run.result is result
    assert len(run.responses()) == 3


async def test_whatever_goes_wrong_in_scoring_there_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Text(str):
        __hash__ = None  # type: ignore[assignment]

    result = Text("so")
    BODIES["function"] = numbered([result])
    assert (await _run()).result is result
    (line,) = _warnings(caplog)
    assert line.startswith("best_of_n: a turn could not be scored and recorded (1 so far): TypeError: unhashable")


async def test_the_best_is_one_of_those_that_were_scored() -> None:
    async def short_only(asked: Asked, _: Builder) -> float:
        if len(asked.response) > 10:
            raise ValueError("too long")
        return float(len(asked.response))

    BODIES["short_only"] = short_only
    run = await _run(scorer="short_only")
    assert run.result == TEXTS[0]
    assert set(run.scores()) == {TEXTS[0], TEXTS[2]}
    assert run.responses() == TEXTS


async def test_a_scorer_that_cannot_score_any_more_stops_the_sampling(caplog: pytest.LogCaptureFixture) -> None:
    async with LoopbackServer(lambda _: Response(status=401, body={"error": {"message": "bad key"}})) as server:
        source = _over_http(server.url, {"kind": "rating_judge"})
        async with workflow(source) as built:
            runs = [await built.run() for _ in range(3)]
        asked = len(server.requests)
    assert [run.result for run in runs] == TEXTS[:1] + TEXTS[0:2]
    assert [len(run.responses()) for run in runs] == [3, 0, 0]
    assert asked <= 3
    told = [one for one in caplog.records if one.levelno == logging.ERROR and LOG in one.name]
    assert [one.getMessage().partition(":")[0] for one in told] == ["best_of_n"]
    assert "bad key" in told[0].getMessage()


async def test_a_scorer_without_a_key_stops_the_sampling(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    llms = {"judge": {"_type": "openai", "model_name": "judge"}}
    settings = {"scorer": {"kind": "rating_judge", "llm": "judge"}}
    async with workflow(wrapped("function", settings, llms=llms)) as built:
        runs = [await built.run() for _ in range(2)]
    assert [run.result for run in runs] == [TEXTS[0], TEXTS[0]]
    assert [len(run.responses()) for run in runs] == [3, 0]
    assert "llms.judge (judge) has no API key: set OPENAI_API_KEY" in _warnings(caplog)[0]


def _over_http(url: str, scorer: dict[str, Any], **settings: Any) -> dict[str, Any]:
    settings |= {"scorer": {**scorer, "llm": "judge"}}
    llms = {"judge": {"_type": "openai", "base_url": url, "model_name": "judge", "api_key": "secret-key"}}
    return wrapped("function", settings, llms=llms)


def _rated(request: Request) -> Response:
    """Prefers the reply about the moon."""
    rating = 9 if "moon" in request.json["messages"][0]["content"] else 2
    return Response(body=completion(f'{{"rating": {rating}}}', prompt_tokens=900_000, completion_tokens=100_000))


async def test_a_judge_over_http_scores_equal_results_once() -> None:
    BODIES["function"] = numbered([TEXTS[0], BEST, TEXTS[0]])
    async with LoopbackServer(_rated) as server, workflow(_over_http(server.url, {"kind": "rating_judge"})) as built:
        run = await built.run()
        assert len(server.requests) == 2
    assert run.result == BEST
    assert [one.score for one in run.decoded().candidates] == [2.0, 9.0, 2.0]


async def test_a_pairwise_judge_compares_the_results() -> None:
    def longer(request: Request) -> Response:
        text = request.json["messages"][0]["content"]
        first, second = (re.findall(rf"<reply-{name}-\w+>(.*?)</reply", text, re.DOTALL)[-1] for name in "ab")
        return Response(body=completion('{"winner": "A"}' if len(first) > len(second) else '{"winner": "B"}'))

    async with LoopbackServer(longer) as server, workflow(_over_http(server.url, {"kind": "pairwise_judge"})) as built:
        run = await built.run()
        BODIES["function"] = numbered(["the same"])
        same = await built.run()
        assert len(server.requests) == 6
        BODIES["function"] = numbered(["one", "another", "one"])
        two = await built.run()
    assert run.result == BEST
    assert run.scores() == {TEXTS[0]: 0.5, TEXTS[1]: 1.0, TEXTS[2]: 0.0}
    assert same.responses() == ["the same"] * 3
    assert same.scores() == {}
    assert two.scores() == {"one": 0.0, "another": 1.0}


async def test_members_of_an_ensemble_are_on_the_candidates() -> None:
    async def twice(asked: Asked, _: Builder) -> float:
        return 2.0 * len(asked.response)

    BODIES["twice"] = twice
    members = {name: {"kind": "function", "function": name} for name in ("scorer", "twice")}
    settings = {"scorer": {"kind": "ensemble", "members": members}}
    functions = {"twice": {"_type": "test_scorer_body", "body": "twice"}}
    first = (await _run(settings, functions=functions)).decoded().candidates[0]
    assert first.metadata["member_scores"] == {"scorer": len(TEXTS[0]), "twice": 2 * len(TEXTS[0])}
    assert first.metadata["agreement"] == 1.0


async def test_a_scorer_that_is_wrapped_too_is_not_scored_by_itself() -> None:
    source = wrapped("function", {})
    source["functions"]["scorer"]["middleware"] = ["bon"]
    async with workflow(source) as built:
        run = await built.run()
    assert run.result == BEST
    assert run.responses() == TEXTS


@pytest.mark.own_time
async def test_slow_scoring_costs_its_scores_and_not_the_answer() -> None:
    async def slow(asked: Asked, _: Builder) -> float:
        await asyncio.sleep(0 if asked.response == TEXTS[2] else 60)
        return 1.0

    BODIES["slow"] = slow
    run = await _run({"max_scoring_seconds": 0.1}, scorer="slow")
    assert run.result == TEXTS[2]
    assert run.scores() == {TEXTS[2]: 1.0}
    assert run.responses() == TEXTS


def _delayed(*seconds: float) -> None:
    numbers = iter(range(1000))

    async def function(_: Any, __: Builder) -> str:
        number = next(numbers)
        await asyncio.sleep(seconds[number % len(seconds)])
        return TEXTS[number % len(TEXTS)]

    BODIES["function"] = function


@pytest.mark.own_time
async def test_calls_that_take_too_long_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    _delayed(0, 60, 0)
    run = await _run({"max_seconds": 0.1})
    assert set(run.scores()) == {TEXTS[0], TEXTS[2]}
    assert run.result == TEXTS[0]
    assert _warnings(caplog) == ["best_of_n: a call was given up after max_seconds (1 so far)"]


@pytest.mark.own_time
async def test_there_is_an_answer_even_if_all_calls_take_too_long() -> None:
    _delayed(60, 0.3, 60)
    assert (await _run({"max_seconds": 0.05})).result == TEXTS[1]


@pytest.mark.own_time
async def test_the_first_result_is_waited_for_when_it_is_the_one_to_return() -> None:
    _delayed(0.3, 0, 60)
    run = await _run({"max_seconds": 0.05, "return": "first"})
    assert run.result == TEXTS[0]
    assert set(run.scores()) == set(TEXTS[:2])


@pytest.mark.own_time
async def test_so_many_calls_at_once() -> None:
    running, most = 0, 0

    async def function(_: Any, __: Builder) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return f"{random.random()}"

    BODIES["function"] = function
    assert len((await _run({"n": 9, "calls_at_once": 2})).scores()) == 9
    assert most == 2
    await _run({"n": 9})
    assert most == 9


@pytest.mark.own_time
async def test_the_end_of_the_caller_is_the_end_of_all_calls() -> None:
    started, ended = asyncio.Event(), []

    async def function(value: Any, _: Builder) -> str:
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            ended.append(value)
        return "late"

    BODIES["function"] = function
    async with workflow(wrapped("function", {})) as built:
        running = asyncio.create_task(built.run("x"))
        await started.wait()
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert ended == ["x"] * 3


@pytest.mark.own_time
async def test_the_end_of_the_caller_is_the_end_of_scoring() -> None:
    started, ended = asyncio.Event(), []

    async def slow(asked: Asked, _: Builder) -> float:
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            ended.append(asked.response)
        return 1.0

    BODIES["slow"] = slow
    async with workflow(wrapped("function", {"n": 1}, scorer="slow")) as built:
        running = asyncio.create_task(built.run("x"))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert ended == TEXTS[:1]


async def test_a_share_of_calls_is_sampled() -> None:
    async def sampled(rate: float, calls: int) -> list[bool]:
        BODIES["function"] = numbered(TEXTS)
        async with workflow(wrapped("function", {"sample_rate": rate, "seed": 3})) as built:
            return [bool((await built.run()).responses()) for _ in range(calls)]

    assert await sampled(0.0, 5) == [False] * 5
    assert await sampled(1.0, 5) == [True] * 5
    share = await sampled(0.25, 60)
    assert 5 <= sum(share) <= 25
    assert share == await sampled(0.25, 60)


async def test_after_so_many_calls_the_others_go_straight_through(caplog: pytest.LogCaptureFixture) -> None:
    async with workflow(wrapped("function", {"ceiling": {"calls": 2}})) as built:
        runs = [await built.run() for _ in range(5)]
    assert [len(run.responses()) for run in runs] == [3, 3, 0, 0, 0]
    assert _warnings(caplog) == ["best_of_n: the ceiling of 2 calls is reached; calls go straight through"]


async def test_after_so_much_money_the_others_go_straight_through(caplog: pytest.LogCaptureFixture) -> None:
    prices = {"judge": {"prompt": 1.0, "completion": 1.0}}
    async with LoopbackServer(_rated) as server:
        source = _over_http(server.url, {"kind": "rating_judge"}, ceiling={"cost": 5.0}, prices=prices)
        async with workflow(source) as built:
            runs = [await built.run() for _ in range(4)]
    # A rating costs 1: after two calls it is 6.
    assert [len(run.responses()) for run in runs] == [3, 3, 0, 0]
    assert _warnings(caplog) == ["best_of_n: the ceiling of a cost of 5 is reached; calls go straight through"]


@pytest.mark.own_time
async def test_a_ceiling_of_hours_is_anew_after_them() -> None:
    async with workflow(wrapped("function", {"ceiling": {"calls": 1, "hours": 8}})) as built:
        before = [len((await built.run()).responses()) for _ in range(2)]
        await asyncio.sleep(8 * 3600)
        after = [len((await built.run()).responses()) for _ in range(2)]
    assert before == after == [3, 0]


async def test_a_stream_passes_as_it_is() -> None:
    async def stream(value: str) -> AsyncGenerator[Any, None]:
        for chunk in (f"{value} ", None, "so"):
            yield chunk

    STREAMS["function"] = stream
    async with workflow(wrapped("function", {})) as built:
        chunks, run = await built.streamed("Why?")
        assert chunks == ["Why? ", None, "so"]
        assert run.responses() == []
        # The same function asked for one result is sampled.
        assert len((await built.run()).responses()) == 3


@pytest.mark.parametrize("middleware", [["bon"], ["bon", "inner"]])
async def test_a_function_that_cannot_stream_is_sampled_where_it_is_asked_to(middleware: list[str]) -> None:
    """As NAT serves it under `/generate/full`."""
    source = wrapped("function", {})
    source["middleware"]["inner"] = {"_type": "best_of_n", "n": 1}
    source["workflow"]["middleware"] = middleware
    async with workflow(source) as built:
        chunks, run = await built.streamed("Why?")
        assert chunks == [BEST]
        assert run.responses() == TEXTS
        BODIES["function"] = numbered([OSError("down")])
        with pytest.raises(OSError, match="down"):
            await built.streamed("Why?")


async def test_one_call_is_only_scored_and_runs_in_the_caller_s_context() -> None:
    seen: ContextVar[str] = ContextVar("seen", default="")

    async def function(value: str, _: Builder) -> str:
        seen.set(value)
        return "so"

    async def outer(value: str, builder: Builder) -> str:
        result = await (await builder.get_function("inner")).ainvoke(value)
        return f"{result} {seen.get()}"

    BODIES.update(function=function, outer=outer)
    source = wrapped("outer", {"n": 1, "allow_repeated_calls": False})
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    source["workflow"] = {"_type": "test_body", "body": "outer"}
    async with workflow(source) as built:
        run = await built.run("kept")
    assert run.result == "so kept"
    assert run.scores() == {"so": 2.0}


async def test_without_a_scorer_one_call_passes() -> None:
    run = await _run({"n": 1, "scorer": None})
    assert (run.result, run.responses()) == (TEXTS[0], [])


ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
SYSTEM, QUESTION = (Message(one["role"], one["content"]) for one in ASKED)


@pytest.mark.parametrize(("source", "prompt"), [("auto", (SYSTEM, QUESTION)), ("input", (Message("user", "Why?"),))])
async def test_the_prompt_is_what_the_model_saw(source: str, prompt: object) -> None:
    async def function(_: Any, __: Builder) -> str:
        return await _asked(ASKED, f"{random.random()}")

    BODIES["function"] = function
    candidates = (await _run({"prompt": source})).decoded().candidates
    assert [one.prompt for one in candidates] == [prompt] * 3


async def test_of_several_prompts_it_is_the_one_behind_the_response() -> None:
    async def function(_: Any, __: Builder) -> str:
        await _asked([{"role": "user", "content": "Plan."}], "A plan")
        answer = await _asked(ASKED, f"{random.random()}")
        await _asked([{"role": "user", "content": "Is that safe?"}], "Yes")
        return answer

    BODIES["function"] = function
    assert {one.prompt for one in (await _run()).decoded().candidates} == {(SYSTEM, QUESTION)}


async def test_after_different_tool_results_it_is_what_all_were_asked_first() -> None:
    async def function(_: Any, __: Builder) -> str:
        tool = {"role": "tool", "content": f"The tool says {random.random()}."}
        await _asked(ASKED, "Action: look it up")
        return await _asked([*ASKED, tool], f"{random.random()}")

    BODIES["function"] = function
    candidates = (await _run()).decoded().candidates
    assert [one.prompt for one in candidates] == [(SYSTEM, QUESTION)] * 3


@pytest.mark.parametrize(("source", "recorded"), [("auto", 3), ("llm", 0)])
async def test_when_each_saw_something_else_it_is_the_input(
    source: str, recorded: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def function(_: Any, __: Builder) -> str:
        return await _asked([{"role": "user", "content": f"{random.random()}"}], f"{random.random()}")

    BODIES["function"] = function
    run = await _run({"prompt": source})
    assert [one.prompt for one in run.decoded().candidates] == [(Message("user", "Why?"),)] * recorded
    assert run.result is not None
    assert len(_warnings(caplog)) == (source == "llm")


async def test_what_a_scorer_asks_is_not_what_the_function_asked() -> None:
    async def judging(asked: Asked, _: Builder) -> float:
        await _asked([{"role": "user", "content": "How good is it?"}], "Good")
        return float(len(asked.response))

    async def outer(value: str, builder: Builder) -> str:
        return str(await (await builder.get_function("inner")).ainvoke(value))

    BODIES.update(judging=judging, outer=outer)
    source = wrapped("outer", {}, scorer="judging")
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    async with workflow(source) as built:
        run = await built.run("Why?")
    assert {one.prompt for one in run.decoded().candidates} == {(Message("user", "Why?"),)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scorer": {"kind": "function", "function": "nobody"}},
            "best_of_n names 'nobody', which is not under functions:",
        ),
        ({"scorer": {"kind": "rating_judge", "llm": "nobody"}}, "best_of_n names 'nobody', which is not under llms:"),
        ({"vary": {"llm": "nobody", "seed": 1}}, "best_of_n names 'nobody', which is not under llms:"),
    ],
)
async def test_names_that_do_not_exist_are_refused_when_it_is_built(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await _run(settings)
    assert str(refused.value) == message


async def test_it_is_there_before_the_function_it_wraps_whatever_the_two_refer_to() -> None:
    """NAT builds what refers to something after what does not, and does not read `middleware` as a reference."""
    source = wrapped("function", {"vary": {"llm": "demo", "seed": 1}})
    source["llms"] = {"demo": {"_type": "dpo_demo", "model_name": "demo/stdlib-writer"}}
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    source["workflow"] = {"_type": "test_body", "body": "function", "calls": "inner"}
    async with WorkflowBuilder.from_config(validate_schema(source, Config)) as builder:
        assert len((await builder.get_function("inner")).middleware) == 1


@pytest.mark.parametrize("settings", [{}, {"return": "first"}])
async def test_turns_of_a_function_below_the_workflow_become_pairs_of_a_fine_tuning(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    lengths = itertools.count()

    async def function(value: str, _: Builder) -> str:
        if "broken" in value:
            raise OSError("broken")
        return await _asked([{"role": "user", "content": f"About {value}"}], f"{value} {'very ' * next(lengths)}")

    async def outer(value: str, builder: Builder) -> str:
        inner = await builder.get_function("inner")
        try:
            return " and ".join([await inner.ainvoke(f"{value} {half}") for half in (1, 2)])
        except OSError:
            return "no answer"

    BODIES.update(function=function, outer=outer)
    recorder = {"_type": "dpo_candidates", "path": str(tmp_path / "candidates.jsonl")}
    general = {"telemetry": {"tracing": {"candidates": recorder}}}
    source = wrapped("outer", {"n": 4, **settings}, general=general)
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    items = [f"item {number}" for number in range(9)] + ["broken"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"id": item, "question": item, "answer": ""}) for item in items))
    source |= {
        "workflow": {"_type": "test_body", "body": "outer"},
        "eval": {
            "general": {"output_dir": str(tmp_path / "eval"), "dataset": {"_type": "jsonl", "file_path": str(rows)}}
        },
        "trajectory_builders": {"pairs": {"_type": "dpo_traj_builder", "exhaustive_pairs": False}},
        "trainers": {"trainer": {"_type": "dpo_trainer", "validation_fraction": 0.0}},
        "trainer_adapters": {"files": {"_type": "dataset_trainer_adapter", "output_dir": str(tmp_path / "out")}},
        "finetuning": {
            "enabled": True,
            "trainer": "trainer",
            "trajectory_builder": "pairs",
            "trainer_adapter": "files",
            "output_dir": str(tmp_path / "run"),
        },
    }
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    await finetuning_main(FinetuneRunConfig(config_file=validate_schema(source, Config)))
    lines = (tmp_path / "out" / "trl" / "train.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    assert sorted((pair["example_id"], pair["prompt"][0]["content"]) for pair in pairs) == [
        (item, f"About {item} {half}") for item in items[:-1] for half in (1, 2)
    ]
    for pair in pairs:
        assert pair["chosen_score"] > pair["rejected_score"]
        assert len(pair["chosen"][0]["content"]) > len(pair["rejected"][0]["content"])


async def test_an_agent_that_calls_tools_is_recorded_where_its_calls_part() -> None:
    cities = itertools.cycle(["Oslo", "Oslo", "Rome"])

    async def agent(asked: str, _: Builder) -> str:
        city = next(cities)
        messages: list[Any] = [{"role": "user", "content": asked}]
        await _asked(messages, "")
        call = {
            "id": city,
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
        }
        messages += [{"role": "assistant", "content": None, "tool_calls": [call]}]
        messages += [{"role": "tool", "tool_call_id": city, "content": f"3 degrees in {city}"}]
        return await _asked(messages, f"3 degrees in {city}")

    BODIES["function"] = agent
    run = await _run()
    candidates = run.decoded().candidates
    assert {one.prompt for one in candidates} == {(Message("user", "Why?"),)}
    (turn,) = branched(group_turns(candidates).turns, PairingRules(), Counter())
    assert [(one.metadata["rollouts"], '"city"' in one.response) for one in turn.candidates] == [(2, True), (1, True)]
    # No answer knows what a tool gave.
    assert not any("degrees" in one.response for one in turn.candidates)

import asyncio
import json
import logging
import traceback
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Container
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.data_models.intermediate_step import IntermediateStep, IntermediateStepType
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.runtime.session import SessionManager
from nat.utils.data_models.schema_validator import validate_schema
from starlette.responses import JSONResponse

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.plugin.steps import Decoded, decode_candidates
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response, asgi_answer

WRITER = {"_type": "dpo_demo", "model_name": "demo/stdlib-writer"}
REWARD = {"_type": "dpo_demo", "model_name": "demo/stdlib-reward"}
LOST = {"_type": "openai", "model_name": "m", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
QUESTION = "What does `heapq.nlargest` do?"


async def _run(source: dict[str, Any], text: str) -> tuple[dict[str, Any], list[IntermediateStep]]:
    """One input through the workflow of a configuration: its summary, and the steps that it pushed."""
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema(source, Config)
    steps: list[IntermediateStep] = []
    async with WorkflowBuilder.from_config(config) as builder:
        manager = await SessionManager.create(config=config, shared_builder=builder)
        try:
            async with manager.session(user_id="tester") as session, session.run(text) as runner:
                runner.context.intermediate_step_manager.subscribe(steps.append)
                output = await runner.result(to_type=str)
        finally:
            await manager.shutdown()
    return json.loads(output), steps


def _recipe(*, llms: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    workflow = {"_type": "preference_data", "writer_llm": "writer", "reward_llm": "reward", **settings}
    return {"llms": {"writer": WRITER, "reward": REWARD, **(llms or {})}, "workflow": workflow}


SMALL: dict[str, Any] = {"n_subtopics": 2, "n_questions": 2, "responses": "independent", "n_responses": 3, "seed": 1}


def _decoded(steps: list[IntermediateStep], name: str = DEFAULT_STEP_NAME) -> Decoded:
    return decode_candidates(steps, name, "example")


def _candidate_steps(steps: list[IntermediateStep]) -> int:
    return sum(step.event_type is IntermediateStepType.TTC_END for step in steps)


async def test_a_topic_becomes_scored_candidates() -> None:
    summary, steps = await _run(_recipe(**SMALL), "Data structures")
    assert (summary["topics"], summary["subtopics"], summary["questions"], summary["candidates"]) == (1, 2, 4, 12)
    assert (summary["skipped"], summary["failures"], summary["stopped"]) == ({}, [], None)
    decoded = _decoded(steps)
    assert decoded.refusals == []
    assert Counter(candidate.turn_id for candidate in decoded.candidates) == {
        f"question-{subtopic}.{question}": 3 for subtopic in range(2) for question in range(2)
    }
    assert len({candidate.prompt for candidate in decoded.candidates}) == 4
    one = decoded.candidates[0]
    assert one.metadata["topic"] == "Data structures"
    assert one.metadata["model"]
    starts = [step.UUID for step in steps if step.event_type is IntermediateStepType.TTC_START]
    ends = [step.UUID for step in steps if step.event_type is IntermediateStepType.TTC_END]
    assert starts == ends
    assert len(set(ends)) == 12


async def test_equal_seeds_give_equal_candidates() -> None:
    runs = [_decoded((await _run(_recipe(**SMALL), "Data structures"))[1]).candidates for _ in range(2)]
    assert runs[0] == runs[1]


async def test_a_question_is_answered_without_asking_for_others() -> None:
    summary, steps = await _run(_recipe(**SMALL), QUESTION)
    assert "topics" not in summary
    assert (summary["questions"], summary["candidates"]) == (1, 3)
    assert {candidate.prompt for candidate in _decoded(steps).candidates} == {(Message("user", QUESTION),)}


async def test_messages_are_answered_in_their_conversation() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    _, steps = await _run(_recipe(**SMALL), json.dumps({"messages": messages}))
    assert {candidate.prompt for candidate in _decoded(steps).candidates} == {
        (Message("system", "Be brief."), Message("user", QUESTION))
    }


async def test_paired_responses_are_two() -> None:
    summary, steps = await _run(_recipe(responses="paired", seed=1), QUESTION)
    assert summary["candidates"] == 2
    assert [candidate.candidate_index for candidate in _decoded(steps).candidates] == [0, 1]


async def test_the_name_of_the_steps_can_be_chosen() -> None:
    _, steps = await _run(_recipe(**SMALL, ttc_step_name="moves"), QUESTION)
    assert _decoded(steps).candidates == []
    assert len(_decoded(steps, "moves").candidates) == 3


async def test_the_reward_can_be_weighed_by_hand() -> None:
    _, steps = await _run(_recipe(**SMALL, reward={"helpfulness": 2.0}), QUESTION)
    _, plain = await _run(_recipe(**SMALL), QUESTION)
    for weighed, candidate in zip(_decoded(steps).candidates, _decoded(plain).candidates, strict=True):
        assert weighed.score == pytest.approx(2 * candidate.score)


async def test_another_model_may_answer(demo_url: str) -> None:
    """The whole recipe over HTTP gives what it gives in process."""
    served = {"_type": "openai", "base_url": demo_url}
    llms = {
        "writer": {**served, "model_name": "demo/stdlib-writer"},
        "answerer": {**served, "model_name": "demo/stdlib-writer"},
        "reward": {**served, "model_name": "demo/stdlib-reward"},
    }
    summary, steps = await _run(_recipe(llms=llms, responder_llm="answerer", **SMALL), "Data structures")
    in_process, expected = await _run(_recipe(**SMALL), "Data structures")
    assert summary["candidates"] == in_process["candidates"] == 12
    found, same = _decoded(steps).candidates, _decoded(expected).candidates
    assert {candidate.metadata["llm"] for candidate in found} == {"answerer"}
    assert [_without({"llm"}, one) for one in found] == [_without({"llm"}, one) for one in same]


def _without(names: Container[str], candidate: Candidate) -> Candidate:
    return replace(candidate, metadata={key: value for key, value in candidate.metadata.items() if key not in names})


async def test_a_missing_key_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    monkeypatch.delenv("NVIDIA_BASE_URL", raising=False)
    llms = {"reward": {"_type": "nim", "model_name": "nvidia/nemotron-4-340b-reward"}}
    with pytest.raises(ConfigurationError, match="NVIDIA_API_KEY"):
        await _run(_recipe(llms=llms), QUESTION)


async def test_weights_without_a_name_are_refused() -> None:
    with pytest.raises(ValueError, match="no-such-weights"):
        await _run(_recipe(reward="no-such-weights"), QUESTION)


async def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"no candidate was made: model 'writer' .* cannot be reached"):
        await _run(_recipe(llms={"writer": LOST}), QUESTION)


async def test_responses_that_nobody_scores_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"no candidate was made: model 'reward' .* cannot be reached"):
        await _run(_recipe(llms={"reward": LOST}), QUESTION)


def _rows_config(**settings: str) -> dict[str, Any]:
    return {"workflow": {"_type": "scored_candidates", **settings}}


async def test_a_row_becomes_its_candidates() -> None:
    row = {
        "id": "row",
        "prompt": [{"role": "user", "content": "Why?"}],
        "source": "mine",
        "candidates": [{"response": "So.", "score": 1, "length": 3}, {"response": "No.", "score": -0.5}],
    }
    summary, steps = await _run(_rows_config(), json.dumps(row))
    first, second = _decoded(steps).candidates
    assert (first.response, first.score, second.response, second.score) == ("So.", 1.0, "No.", -0.5)
    assert first.prompt == second.prompt == (Message("user", "Why?"),)
    assert (first.metadata["source"], first.metadata["length"]) == ("mine", 3)
    assert (summary["candidates"], summary["skipped"]) == (2, {})


async def test_the_keys_of_a_row_can_be_chosen() -> None:
    row = {"question": "Why?", "answers": [{"text": "So.", "reward": 1.0}]}
    keys = {"prompt_key": "question", "candidates_key": "answers", "response_key": "text", "score_key": "reward"}
    _, steps = await _run(_rows_config(**keys, ttc_step_name="moves"), json.dumps(row))
    (candidate,) = _decoded(steps, "moves").candidates
    assert (candidate.response, candidate.score) == ("So.", 1.0)


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("not json", "not a JSON object: 'not json'"),
        ("[1]", "must be a JSON object"),
        ('{"id": "a"}', "row 'a' has no 'prompt'"),
        ('{"id": "a", "prompt": "Why?"}', "row 'a' has no list of candidates"),
        ('{"id": "a", "prompt": "Why?", "candidates": []}', "row 'a' has no list of candidates"),
        ('{"id": "a", "prompt": 3, "candidates": [{}]}', "row 'a': 'prompt' is not a prompt"),
        ('{"id": "a", "prompt": " ", "candidates": [{}]}', "'prompt' is not a prompt (missing_prompt)"),
        ('{"id": "a", "prompt": "Why?", "candidates": ["So."]}', "candidate 0 of row 'a'"),
        ('{"id": "a", "prompt": "Why?", "candidates": [{"response": "So.", "score": NaN}]}', "got nan"),
        ('{"id": "a", "prompt": "Why?", "candidates": [{"response": "So."}]}', "got None"),
        ('{"id": "a", "prompt": "Why?", "candidates": [{"score": 1}]}', "missing_response"),
    ],
)
async def test_a_malformed_row_is_counted_with_its_reason(
    row: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nat_dpo_pipeline"):
        summary, steps = await _run(_rows_config(), row)
    assert _decoded(steps).candidates == []
    assert summary["skipped"] == {"input": {"malformed_input": 1}}
    assert detail in summary["failures"][0]["detail"]


async def test_a_malformed_candidate_does_not_cost_the_others() -> None:
    candidates = [{"response": "So.", "score": 1}, {"response": "No."}, {"response": "Yes.", "score": 2}]
    summary, steps = await _run(_rows_config(), json.dumps({"prompt": "Why?", "candidates": candidates}))
    assert [candidate.candidate_index for candidate in _decoded(steps).candidates] == [0, 2]
    assert (summary["candidates"], summary["skipped"]) == (2, {"input": {"malformed_input": 1}})


@pytest.mark.parametrize("text", ["   ", "{}", '{"messages": []}', '[{"role": "assistant", "content": "No."}]'])
async def test_an_input_that_is_none_is_counted_with_its_reason(text: str) -> None:
    summary, steps = await _run(_recipe(**SMALL), text)
    assert _candidate_steps(steps) == 0
    assert summary["skipped"] == {"input": {"malformed_input": 1}}
    assert summary["failures"][0]["detail"]


async def test_credit_that_ends_costs_only_what_was_not_made_yet(
    served: Callable[[object], AbstractAsyncContextManager[str]],
) -> None:
    demo = create_app()
    answers = count()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paid = next(answers) < 8
        await (demo if paid else JSONResponse({"error": {"message": "no credit"}}, 402))(scope, receive, send)

    async with served(app) as url:
        entry = {"_type": "openai", "base_url": url, "model_name": "demo/stdlib-reward", "max_retries": 0}
        summary, steps = await _run(_recipe(llms={"reward": entry}, max_concurrency=1, **SMALL), "Data structures")
    assert 0 < summary["candidates"] == _candidate_steps(steps) <= 8
    assert "answered 402: no credit" in summary["stopped"]
    assert summary["skipped"]["rewards"]["model_error"] >= 1


async def test_a_journal_does_not_make_the_runs_of_one_process_repeat_each_other(
    tmp_path: Path, served: Callable[[object], AbstractAsyncContextManager[str]]
) -> None:
    """It replays for a process that is started again, which the tests of the command line show."""
    demo = create_app()
    requests: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        requests.append(scope["path"])
        await demo(scope, receive, send)

    journal = tmp_path / "deep" / "calls.sqlite"
    async with served(app) as url:
        llms = {
            name: {"_type": "openai", "base_url": url, "model_name": f"demo/stdlib-{name}"}
            for name in ("writer", "reward")
        }
        source = _recipe(llms=llms, journal=str(journal), **SMALL)
        runs = [await _run(source, QUESTION) for _ in range(2)]
    # Equal responses have equal scores, which were paid for.
    assert len(requests) == 2 * 3 + 3
    assert _decoded(runs[0][1]).candidates == _decoded(runs[1][1]).candidates
    assert journal.is_file()


async def test_a_journal_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_text("something else altogether, and long enough to be taken for a database")
    with pytest.raises(ConfigurationError, match=r"the journal .*calls\.sqlite' cannot be used"):
        await _run(_recipe(journal=str(tmp_path / "calls.sqlite"), **SMALL), QUESTION)


async def test_a_limit_on_calls_under_way_is_kept(
    served: Callable[[object], AbstractAsyncContextManager[str]],
) -> None:
    demo = create_app()
    under_way: list[int] = []
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        under_way.append(1)
        seen.append(len(under_way))
        await asyncio.sleep(0.005)
        await demo(scope, receive, send)
        under_way.pop()

    async with served(app) as url:
        entry = {"_type": "openai", "base_url": url, "model_name": "demo/stdlib-reward"}
        limits = {"reward": {"max_concurrency": 1}}
        summary, _ = await _run(_recipe(llms={"reward": entry}, limits=limits, **SMALL), "Data structures")
    assert summary["candidates"] == len(seen) == 12
    assert max(seen) == 1


async def test_an_llm_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="names the llm 'nope', which is not under llms:"):
        await _run(_recipe(writer_llm="nope"), "Data structures")


# What a configuration can say.


async def test_every_model_of_several_answers_every_question() -> None:
    everyone = {"models": ["writer", "other"], "use": "all"}
    llms = {"other": {**WRITER, "seed": 1}}
    summary, steps = await _run(_recipe(llms=llms, responder_llm=everyone, **{**SMALL, "n_responses": 2}), QUESTION)
    found = Counter(candidate.metadata["llm"] for candidate in _decoded(steps).candidates)
    assert (summary["candidates"], found) == (4, {"writer": 2, "other": 2})


async def test_another_model_stands_in_for_one_that_is_out_of_credit() -> None:
    async with LoopbackServer(lambda _: Response(402, {"error": {"message": "no credit"}})) as server:
        spent = {"_type": "openai", "base_url": server.url, "model_name": "m", "max_retries": 0}
        source = _recipe(llms={"spent": spent}, responder_llm=["spent", "writer"], **SMALL)
        summary, steps = await _run(source, QUESTION)
        asked = len(server.requests)
    assert {candidate.metadata["llm"] for candidate in _decoded(steps).candidates} == {"writer"}
    assert (summary["candidates"], summary["stopped"]) == (3, None)
    requests = {row["llm"]: row["requests"] for row in summary["tokens"] if row["step"] == "responses"}
    assert requests == {"spent": asked, "writer": 3}


async def test_responses_can_be_compared_by_a_judge() -> None:
    def verdict(request: Request) -> Response:
        text = request.json["messages"][-1]["content"]
        first, second = (_between(text, name) for name in ("reply-a", "reply-b"))
        return Response(body=completion(json.dumps({"winner": "A" if len(first) > len(second) else "B"})))

    async with LoopbackServer(verdict) as server:
        judge = {"_type": "openai", "base_url": server.url, "model_name": "judge"}
        scorer = {"kind": "pairwise_judge", "llm": "judge"}
        summary, steps = await _run(_recipe(llms={"judge": judge}, reward_llm=None, scorer=scorer, **SMALL), QUESTION)
        assert server.answered == 3 * 2
    candidates = sorted(_decoded(steps).candidates, key=lambda candidate: len(candidate.response))
    assert summary["candidates"] == 3
    assert [candidate.score for candidate in candidates] == [0.0, 0.5, 1.0]


def _between(text: str, name: str) -> str:
    """What stands between the last pair of marks of this name."""
    opened = text.rindex(f"<{name}-")
    return text[text.index(">", opened) : text.rindex(f"</{name}-")]


async def test_an_ensemble_says_what_its_members_scored_and_how_far_they_agree() -> None:
    members = {
        name: {"kind": "reward_model", "llm": "reward", "weights": name} for name in ("helpfulness", "nemotron-4-340b")
    }
    scorer = {"kind": "ensemble", "combine": "worst", "members": members}
    _, steps = await _run(_recipe(reward_llm=None, scorer=scorer, **SMALL), QUESTION)
    for candidate in _decoded(steps).candidates:
        scores = candidate.metadata["member_scores"]
        assert isinstance(scores, dict)
        assert set(scores) == set(members)
        assert candidate.score == min(scores.values())
        assert 0.0 < candidate.metadata["agreement"] <= 1.0  # type: ignore[operator]


async def test_questions_without_a_good_response_are_not_to_be_paired() -> None:
    summary, steps = await _run(_recipe(min_best_score=100.0, **SMALL), QUESTION)
    assert _candidate_steps(steps) == 0
    assert (summary["candidates"], summary["questions_below_min_best_score"]) == (3, 1)


async def test_costs_are_told_when_there_are_prices() -> None:
    prices = {"writer": {"prompt": 1.0, "completion": 0.0}, "reward": {"prompt": 0.0, "completion": 1.0}}
    summary, _ = await _run(_recipe(prices=prices, **SMALL), QUESTION)
    rows = {row["step"]: row for row in summary["tokens"]}
    cost = (rows["responses"]["prompt_tokens"] + rows["rewards"]["completion_tokens"]) / 1e6
    assert summary["cost"] == pytest.approx(cost)
    unpriced, _ = await _run(_recipe(prices={"writer": prices["writer"]}, **SMALL), QUESTION)
    assert unpriced["cost"] is None


async def test_a_pipeline_of_the_users_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pipeline_of_a_test.py").write_text(
        "def without_change(pipeline):\n    return pipeline\n\n\ndef nothing(pipeline):\n    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    summary, _ = await _run(_recipe(pipeline="own_pipeline_of_a_test.without_change", **SMALL), QUESTION)
    assert summary["candidates"] == 3
    with pytest.raises(ConfigurationError, match="must return a Pipeline, got None"):
        await _run(_recipe(pipeline="own_pipeline_of_a_test.nothing", **SMALL), QUESTION)
    with pytest.raises(ConfigurationError, match=r"pipeline: 'own_pipeline_of_a_test\.none' cannot be imported"):
        await _run(_recipe(pipeline="own_pipeline_of_a_test.none", **SMALL), QUESTION)


# Secrets.

KEY, VARIABLE, PASSWORD = "sk-planted-in-the-entry", "sk-planted-in-the-environment", "planted-in-the-address"
LOGIN = b64encode(f"user:{PASSWORD}".encode()).decode()


def _echoing(status: int) -> Callable[[Request], Any]:
    """Every second request is refused with its own headers in the message, as some proxies do."""
    demo = asgi_answer(create_app())

    def answer(request: Request) -> Any:
        if request.number % 2:
            return demo(request)
        # Long enough for the message to be cut, also within the key.
        said = f"{request.headers['authorization']} {'.' * (request.number % 40 + 220)} {request.headers}"
        return Response(status, {"error": {"message": said, "code": "rejected"}})

    return answer


async def _told(source: dict[str, Any]) -> str:
    """The summary, or the error with its causes, of a run that may fail."""
    try:
        return json.dumps((await _run(source, "Data structures"))[0])
    except ModelError as error:
        return "".join(traceback.format_exception(error))


def _with_planted_secrets(url: str, journal: Path) -> dict[str, Any]:
    entry = {"_type": "openai", "base_url": url, "max_retries": 1}
    writer = {**entry, "model_name": "demo/stdlib-writer", "api_key": KEY}
    reward = {**entry, "model_name": "demo/stdlib-reward"}
    limits = {name: {"max_wait_seconds": 0.5, "max_retries": 1} for name in ("writer", "reward")}
    return _recipe(llms={"writer": writer, "reward": reward}, limits=limits, journal=str(journal), **SMALL)


def _texts(folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    files = [file.read_bytes().decode(errors="replace") for file in folder.iterdir()]
    return [caplog.text, *(str(record.__dict__) for record in caplog.records), *files]


@pytest.mark.parametrize("with_login", [False, True])
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
async def test_no_secret_reaches_a_file_a_log_a_summary_or_a_message(
    status: int, with_login: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", VARIABLE)
    async with LoopbackServer(_echoing(status)) as server:
        url = server.url.replace("//", f"//user:{PASSWORD}@") if with_login else server.url
        with caplog.at_level(logging.DEBUG):
            told = await _told(_with_planted_secrets(url, tmp_path / "calls.sqlite"))
        assert len(server.requests) > 1
    for secret in (KEY, VARIABLE, PASSWORD, LOGIN):
        for text in (told, *_texts(tmp_path, caplog)):
            assert secret not in text

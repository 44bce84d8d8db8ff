"""The recipe, over models that answer from a script."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.similarity import NearDuplicates
from nat_dpo_pipeline.errors import ConfigurationError, ItemDropped, ModelError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.inputs import Request, read_request
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import (
    Price,
    RecipeSettings,
    ResponseMode,
    StepName,
    StepSampling,
    StepSamplings,
)
from nat_dpo_pipeline.generation.steps import Item, Map, Pipeline, Scatter
from nat_dpo_pipeline.generation.turns import Flaw, Question, Response, Turn
from nat_dpo_pipeline.testing import ScriptedModel
from tests import own_time

pytestmark = pytest.mark.own_time

Answer = str | dict[str, object] | Exception
# By subject; of several the n-th is for the n-th call, the last one for all after it.
Answers = Mapping[str, Answer | Sequence[Answer]]
NO_ANSWERS: Answers = MappingProxyType({})
SMALL = RecipeSettings(n_subtopics=2, n_questions=3)
INDEPENDENT = RecipeSettings(n_subtopics=1, n_questions=1, n_responses=3, responses=ResponseMode.INDEPENDENT)
ONE_LIST = RecipeSettings(n_subtopics=1, n_questions=3)


class Asked(NamedTuple):
    """What a call of the writer asks for."""

    step: str
    subject: str
    count: int
    known: tuple[str, ...]


def _asked(call: Call) -> Asked:
    text = call.messages[-1].content
    more = prompts.load("more").match(text)
    known = tuple(more["known"].splitlines()) if more else ()
    prompt = more["prompt"] if more else text
    if found := prompts.load("subtopics").match(prompt):
        return Asked("subtopics", found["topic"], int(found["n_subtopics"]), known)
    found = prompts.load("questions").match(prompt)
    assert found is not None, text
    return Asked("questions", found["sub_topic"], int(found["n_questions"]), known)


def _body(content: str, finish_reason: str = "stop") -> dict[str, object]:
    return {"choices": [{"finish_reason": finish_reason, "message": {"content": content}}]}


def _scripted(answers: Answers, subject: str, number: int, otherwise: Answer) -> Answer:
    given_answer = answers.get(subject, otherwise)
    if isinstance(given_answer, str | dict | Exception):
        return given_answer
    return given_answer[min(number, len(given_answer) - 1)]


def _writer(answers: Answers = NO_ANSWERS, name: str = "writer") -> ScriptedModel:
    """Two subtopics with three questions each; `answers` holds other replies by topic or subtopic."""

    def answer(call: Call) -> Answer:
        step, subject, *_ = _asked(call)
        lines = [f"{number}. {subject} {number}?" for number in (1, 2, 3)]
        usual = "Green, Black" if step == "subtopics" else "Here they are:\n" + "\n\n".join(lines)
        return _scripted(answers, subject, call.sample, usual)

    return ScriptedModel(answer, name)


def _responder(answers: Answers = NO_ANSWERS, name: str = "responder") -> ScriptedModel:
    """A good and a bad answer in one reply; `answers` holds other replies by question."""

    def answer(call: Call) -> Answer:
        text = call.messages[-1].content
        asked = prompts.load("responses").match(text)
        question = asked["question"] if asked else text
        both = f"RESPONSE A: good {question}\n\nRESPONSE B: bad {question}"
        return _scripted(answers, question, call.sample, both if asked else f"{name} {call.sample} answers {question}")

    return ScriptedModel(answer, name)


def _rewarder(answers: Answers = NO_ANSWERS) -> ScriptedModel:
    """Four for a good answer, one for any other; `answers` holds other replies by response."""

    def answer(call: Call) -> Answer:
        response = call.messages[-1].content
        helpfulness = 4 if response.startswith("good") else 1
        return _scripted(answers, response, call.sample, _body(f"helpfulness:{helpfulness},verbosity:2"))

    return ScriptedModel(answer, "rewarder")


def _recipe(
    *,
    writer: ChatModel | None = None,
    responder: ChatModel | Sequence[ChatModel] | None = None,
    rewarder: ChatModel | None = None,
    settings: RecipeSettings = SMALL,
    adapt: Callable[[Pipeline], Pipeline] | None = None,
    workers: int = 64,
) -> PreferenceRecipe:
    responders = responder if isinstance(responder, Sequence) else [responder or _responder()]
    return PreferenceRecipe(
        writer=writer or _writer(),
        responders=responders,
        scorer=RewardModelScorer(rewarder or _rewarder(), {"helpfulness": 1.0}),
        settings=settings,
        adapt=adapt,
        workers=workers,
    )


async def _run(recipe: PreferenceRecipe, text: str = "Tea") -> tuple[list[Turn], GenerationRecord]:
    record = GenerationRecord()
    return await recipe.turns(read_request(text), record), record


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0.001)


def _questions(turns: Iterable[Turn]) -> list[str]:
    return [turn.question.text for turn in turns]


def _responses(turn: Turn) -> list[str]:
    return [candidate.response for candidate in turn.candidates]


def _failures(record: GenerationRecord) -> list[tuple[str, str, str]]:
    return [(failure.step, failure.subject, failure.reason) for failure in record.failures]


def _sized(n_subtopics: int, n_questions: int, **more: Any) -> RecipeSettings:
    return RecipeSettings(n_subtopics=n_subtopics, n_questions=n_questions, **more)


def _independent(n_responses: int = 2, **more: Any) -> RecipeSettings:
    return RecipeSettings(n_responses=n_responses, responses=ResponseMode.INDEPENDENT, **more)


# The whole recipe.


async def test_a_topic_becomes_two_scored_responses_per_question() -> None:
    writer, responder, rewarder = _writer(), _responder(), _rewarder()
    turns, record = await _run(_recipe(writer=writer, responder=responder, rewarder=rewarder))
    assert _questions(turns) == ["Green 1?", "Green 2?", "Green 3?", "Black 1?", "Black 2?", "Black 3?"]
    assert [[candidate.score for candidate in turn.candidates] for turn in turns] == [[4.0, 1.0]] * 6
    assert _responses(turns[0]) == ["good Green 1?", "bad Green 1?"]
    assert record.counts == {"topics": 1, "subtopics": 2, "questions": 6, "responses": 12, "candidates": 12}
    assert (record.failures, record.stopped, record.stopping) == ([], None, False)
    assert (len(writer.calls), len(responder.calls), len(rewarder.calls)) == (3, 6, 12)


async def test_every_turn_has_an_id_of_its_own_and_every_candidate_an_index() -> None:
    turns, _ = await _run(_recipe())
    assert [turn.turn_id for turn in turns] == [f"question-{s}.{q}" for s in range(2) for q in range(3)]
    assert all({candidate.turn_id for candidate in turn.candidates} == {turn.turn_id} for turn in turns)
    assert all([candidate.candidate_index for candidate in turn.candidates] == [0, 1] for turn in turns)


async def test_a_candidate_says_where_it_came_from() -> None:
    turns, _ = await _run(_recipe())
    candidate = turns[4].candidates[1]
    assert candidate.model == "responder"
    assert candidate.prompt == (Message("user", "Black 2?"),)
    assert candidate.attributes == {"helpfulness": 1.0, "verbosity": 2.0}
    assert candidate.metadata == {
        "topic": "Tea",
        "subtopic": "Black",
        "llm": "responder",
        "reward_model": "rewarder",
        "flaw": None,
    }


async def test_requests_and_tokens_are_counted_by_step_and_model() -> None:
    _, record = await _run(_recipe())
    assert {step: used.requests for step, used in record.usage.items()} == {
        (StepName.SUBTOPICS, "writer"): 1,
        (StepName.QUESTIONS, "writer"): 2,
        (StepName.RESPONSES, "responder"): 6,
        (StepName.REWARDS, "rewarder"): 12,
    }
    # A scripted text counts one token a message and one for itself; the scripted rewards count nothing.
    used = record.usage[StepName.RESPONSES, "responder"]
    assert (used.prompt_tokens, used.completion_tokens, used.retries) == (6, 6, 0)


async def test_a_cost_needs_the_prices_of_all_models() -> None:
    prices = {"writer": Price(prompt=1e6, completion=0.0), "responder": Price(prompt=0.0, completion=2e6)}
    record = GenerationRecord(prices=prices)
    await _recipe().turns(read_request("Tea"), record)
    costs = {(row["step"], row["llm"]): row["cost"] for row in record.spending()}
    assert costs[StepName.SUBTOPICS, "writer"] == 1.0
    assert costs[StepName.RESPONSES, "responder"] == 12.0
    assert costs[StepName.REWARDS, "rewarder"] is None
    assert record.total_cost() is None
    whole = GenerationRecord(prices={**prices, "rewarder": Price(prompt=1.0, completion=1.0)})
    await _recipe().turns(read_request("Tea"), whole)
    assert whole.total_cost() == 3.0 + 12.0


async def test_a_question_needs_no_writer() -> None:
    writer = _writer()
    turns, record = await _run(_recipe(writer=writer), "Why?")
    assert _questions(turns) == ["Why?"]
    assert writer.calls == []
    assert record.counts == {"questions": 1, "responses": 2, "candidates": 2}
    assert turns[0].candidates[0].metadata["topic"] is None


async def test_what_was_said_before_the_question_goes_to_the_responder_and_the_scorer() -> None:
    responder, rewarder = _responder(), _rewarder()
    said = [("system", "Be brief."), ("user", "a?"), ("assistant", "b"), ("user", "c?")]
    text = json.dumps([{"role": role, "content": content} for role, content in said])
    turns, _ = await _run(_recipe(responder=responder, rewarder=rewarder), text)
    assert turns[0].candidates[0].prompt == tuple(Message(role, content) for role, content in said)
    (asked,) = responder.calls
    assert [*asked.messages[:-1]] == [Message(role, content) for role, content in said[:-1]]
    assert prompts.load("responses").match(asked.messages[-1].content) == {"question": "c?"}
    assert [message.role for message in rewarder.calls[0].messages] == ["user", "assistant", "user", "assistant"]


async def test_one_recipe_serves_several_runs() -> None:
    recipe = _recipe()
    runs = await asyncio.gather(*(_run(recipe, f"Topic {number}") for number in range(3)))
    assert [record.counts["candidates"] for _, record in runs] == [12] * 3


async def test_one_run_takes_several_requests_each_with_questions_of_its_own() -> None:
    requests = [read_request(text, example_id=f"row {row}") for row, text in enumerate(("Tea", "Coffee", "Why?"))]
    record = GenerationRecord()
    items = [item async for item in _recipe().run(requests, record)]
    turns = [item.value for item in sorted(items, key=lambda item: item.path)]
    # Both topics have the subtopics Green and Black, and so the same questions.
    assert _questions(turns) == _questions(turns[:6]) * 2 + ["Why?"]
    assert [turn.candidates[0].example_id for turn in turns] == ["row 0"] * 6 + ["row 1"] * 6 + ["row 2"]
    assert record.counts["candidates"] == 26


async def test_the_run_of_a_request_goes_with_its_writer_and_responder_calls() -> None:
    writer, responder = _writer(), _responder()
    recipe = _recipe(writer=writer, responder=responder)
    await recipe.turns(read_request("Tea", run=4), GenerationRecord())
    assert {call.run for call in (*writer.calls, *responder.calls)} == {4}


async def test_the_summary_of_a_run_is_json() -> None:
    _, record = await _run(
        _recipe(
            responder=_responder({"Green 1?": "no markers", "Green 2?": ModelError("slow", transient=True)}),
            settings=SMALL,
        )
    )
    summary: dict[str, Any] = json.loads(json.dumps(record.summary()))
    assert summary["questions"] == 6
    assert summary["missing_responses"] == 4
    assert summary["skipped"] == {"responses": {"unparsable_reply": 4, "model_error": 1}}


# Sampling.


async def test_seeds_count_up_with_the_calls_that_are_equal_otherwise() -> None:
    writer, responder = _writer({"Tea": ["Green, green", "Black"]}), _responder()
    await _run(_recipe(writer=writer, responder=responder, settings=_sized(2, 3, seed=9)))
    subtopics = [call.sampling.seed for call in writer.calls if _asked(call).step == "subtopics"]
    assert subtopics == [9, 10]
    assert [call.sampling.seed for call in writer.calls if _asked(call).step == "questions"] == [9, 9]
    assert [call.sampling.seed for call in responder.calls] == [9] * 6


async def test_independent_responses_are_asked_for_one_by_one_with_seeds_that_count_up() -> None:
    responder = _responder()
    turns, record = await _run(_recipe(responder=responder, settings=_independent(3, seed=40)), "Why?")
    assert _responses(turns[0]) == [f"responder {number} answers Why?" for number in range(3)]
    assert [candidate.candidate_index for candidate in turns[0].candidates] == [0, 1, 2]
    assert [call.messages for call in responder.calls] == [(Message("user", "Why?"),)] * 3
    assert [(call.sample, call.sampling.seed) for call in responder.calls] == [(0, 40), (1, 41), (2, 42)]
    assert record.counts == {"questions": 1, "responses": 3, "candidates": 3}


async def test_without_a_seed_calls_have_none() -> None:
    writer, responder = _writer(), _responder()
    await _run(_recipe(writer=writer, responder=responder, settings=_independent(n_subtopics=2, n_questions=3)))
    assert {call.sampling.seed for call in (*writer.calls, *responder.calls)} == {None}


async def test_every_step_is_sampled_as_it_is_told() -> None:
    writer, responder, rewarder = _writer(), _responder(), _rewarder()
    sampling = StepSamplings(
        subtopics=StepSampling(temperature=0.1, max_tokens=11),
        questions=StepSampling(top_p=0.5, seed=5),
        responses=StepSampling(temperature=0.9, extra_body={"top_k": 3}),
    )
    recipe = _recipe(
        writer=writer,
        responder=responder,
        rewarder=rewarder,
        settings=_sized(2, 3, seed=1, sampling=sampling),
    )
    turns, _ = await _run(recipe)
    for call in writer.calls:
        own = call.sampling
        if _asked(call).step == "subtopics":
            assert (own.temperature, own.top_p, own.max_tokens, own.seed) == (0.1, None, 11, 1)
        else:
            assert (own.temperature, own.top_p, own.max_tokens, own.seed) == (None, 0.5, None, 5)
    assert {call.sampling.temperature for call in responder.calls} == {0.9}
    assert all(call.sampling.extra_body == {"top_k": 3} for call in responder.calls)
    assert {call.sampling.temperature for call in rewarder.calls} == {None}
    assert "temperature" not in turns[0].candidates[0].metadata


async def test_of_several_temperatures_the_nth_response_has_the_nth_also_when_it_is_asked_for_again() -> None:
    responder = _responder({"Why?": ["a", "a", "c", "d", "e"]})
    sampling = StepSamplings(responses=StepSampling(temperature=[0.0, 0.7]))
    turns, _ = await _run(_recipe(responder=responder, settings=_independent(3, sampling=sampling)), "Why?")
    assert [(c.response, c.metadata["temperature"]) for c in turns[0].candidates] == [
        ("a", 0.0),
        ("e", 0.7),  # number 1 + 3 of the calls
        ("c", 0.0),
    ]
    assert sorted((call.sample, call.sampling.temperature) for call in responder.calls) == [
        (0, 0.0),
        (1, 0.7),
        (2, 0.0),
        (4, 0.7),
    ]


async def test_every_model_that_answers_has_all_the_temperatures() -> None:
    responders = [_responder(name="a"), _responder(name="b")]
    sampling = StepSamplings(responses=StepSampling(temperature=[0.0, 0.7]))
    turns, _ = await _run(_recipe(responder=responders, settings=_independent(2, sampling=sampling)), "Why?")
    assert sorted((c.metadata["llm"], c.metadata["temperature"]) for c in turns[0].candidates) == [
        ("a", 0.0),
        ("a", 0.7),
        ("b", 0.0),
        ("b", 0.7),
    ]


# Lists of exactly as many items as were asked for.


@pytest.mark.parametrize(
    "repeated",
    [
        "Which teas are grown in Japan now?\nWhich teas are grown in Japan now?",
        "Which teas are grown in Japan now?\nWHICH teas are grown in japan now?",
        "Which teas are grown in Japan now?\nWhich teas are the most grown in Japan now?",
    ],
)
async def test_repeated_questions_are_replaced_with_a_call_that_names_what_is_there(repeated: str) -> None:
    first = f"{repeated}\nWhat is oolong?"
    writer = _writer({"Tea": "Green", "Green": [first, "Who drinks matcha?"]})
    turns, record = await _run(_recipe(writer=writer, settings=ONE_LIST))
    assert _questions(turns) == ["Which teas are grown in Japan now?", "What is oolong?", "Who drinks matcha?"]
    (top_up,) = [call for call in writer.calls if _asked(call).known]
    assert _asked(top_up) == Asked("questions", "Green", 1, ("Which teas are grown in Japan now?", "What is oolong?"))
    plain = prompts.load("questions").render(sub_topic="Green", n_questions=1)
    assert top_up.messages[-1].content == (
        f"{plain}\nThe list must not repeat any of these, which are there already:\n"
        "Which teas are grown in Japan now?\nWhat is oolong?"
    )
    assert top_up.sample == 1
    assert (record.counts["questions"], record.counts["duplicate_questions"]) == (3, 1)
    assert "missing_questions" not in record.counts


@pytest.mark.parametrize(
    ("first", "known", "duplicates"),
    [
        ("Green, green, Black", ("Green", "Black"), 1),
        ("Green, Black", ("Green", "Black"), 0),  # too short
        (_body("Green, Black, Whi", "length"), ("Green", "Black"), 0),  # the last item is cut
        ("I'm sorry, I cannot.", (), 0),
        ("", (), 0),
    ],
)
async def test_a_list_that_is_short_or_unreadable_is_topped_up(
    first: Answer, known: tuple[str, ...], duplicates: int
) -> None:
    writer = _writer({"Tea": [first, "White, Yellow, Red"]})
    turns, record = await _run(_recipe(writer=writer, settings=_sized(3, 1)))
    subtopics = [call for call in writer.calls if _asked(call).step == "subtopics"]
    assert [(_asked(call).count, _asked(call).known) for call in subtopics] == [(3, ()), (3 - len(known), known)]
    assert [turn.question.subtopic for turn in turns] == [*known, "White", "Yellow", "Red"][:3]
    assert (record.counts["subtopics"], record.counts["duplicate_subtopics"]) == (3, duplicates)
    assert not [name for name in record.counts if name.startswith("missing")]


async def test_an_unreadable_list_is_kept_as_a_failure_even_when_the_next_one_is_good() -> None:
    _, record = await _run(_recipe(writer=_writer({"Tea": ["I'm sorry.", "Green, Black"]})))
    assert _failures(record) == [("subtopics", "Tea", FailureReason.UNPARSABLE_REPLY)]
    assert record.failures[0].reply == "I'm sorry."
    assert record.counts["questions"] == 6


@pytest.mark.parametrize("max_top_ups", [0, 1, 4])
async def test_a_list_is_topped_up_so_often_and_what_is_missing_is_counted(max_top_ups: int) -> None:
    writer = _writer({"Tea": "Green", "Green": "One?\nTwo?"})
    settings = _sized(1, 3, max_top_ups=max_top_ups)
    turns, record = await _run(_recipe(writer=writer, settings=settings))
    asked = [call for call in writer.calls if _asked(call).step == "questions"]
    assert [call.sample for call in asked] == [*range(1 + max_top_ups)]
    assert _questions(turns) == ["One?", "Two?"]
    assert (record.counts["questions"], record.counts["missing_questions"]) == (2, 1)
    assert record.counts["duplicate_questions"] == 2 * max_top_ups


async def test_a_question_that_an_earlier_subtopic_has_is_replaced() -> None:
    writer = _writer({"Green": "One?\nTwo?", "Black": ["Two?\nThree?", "Four?"]})
    turns, record = await _run(_recipe(writer=writer, settings=_sized(2, 2)))
    assert [(turn.question.subtopic, turn.question.text) for turn in turns] == [
        ("Green", "One?"),
        ("Green", "Two?"),
        ("Black", "Three?"),
        ("Black", "Four?"),
    ]
    (top_up,) = [_asked(call) for call in writer.calls if _asked(call).known]
    assert top_up == Asked("questions", "Black", 1, ("Two?", "Three?"))
    assert record.counts == {
        "topics": 1,
        "subtopics": 2,
        "questions": 4,
        "duplicate_questions": 1,
        "responses": 8,
        "candidates": 8,
    }
    assert len({turn.turn_id for turn in turns}) == 4


async def test_a_model_that_only_repeats_itself_leaves_questions_missing() -> None:
    writer = _writer({"Green": "One?\nTwo?", "Black": "Two?\none?"})
    turns, record = await _run(_recipe(writer=writer, settings=_sized(2, 2, max_top_ups=2)))
    assert _questions(turns) == ["One?", "Two?"]
    assert record.counts["questions"] == 2
    assert record.counts["missing_questions"] == 2
    assert record.counts["duplicate_questions"] == 2 + 2 * 2
    assert len([call for call in writer.calls if _asked(call).subject == "Black"]) == 3


async def test_items_beyond_what_was_asked_for_are_left_out() -> None:
    writer = _writer({"Tea": "Green, Black, White", "Green": "A?\nB?\nC?\nD?"})
    turns, record = await _run(_recipe(writer=writer))
    assert _questions(turns) == ["A?", "B?", "C?", "Black 1?", "Black 2?", "Black 3?"]
    assert record.counts["subtopics"] == 2
    assert not [name for name in record.counts if name.startswith(("missing", "duplicate"))]
    assert len(writer.calls) == 3


async def test_an_item_beyond_takes_the_place_of_a_repeated_one_without_another_call() -> None:
    writer = _writer({"Green": "A?\nB?\nC?", "Black": "A?\nD?\nE?\nF?"})
    turns, _ = await _run(_recipe(writer=writer))
    assert _questions(turns) == ["A?", "B?", "C?", "D?", "E?", "F?"]
    assert len(writer.calls) == 3


async def test_how_near_is_the_same_can_be_set() -> None:
    writer = _writer({"Tea": "Green", "Green": "Which teas grow here?\nWhich teas grow best here?\nWhat is oolong?"})
    settings = _sized(1, 3, near_duplicate=1.0, max_top_ups=0)
    assert len((await _run(_recipe(writer=writer, settings=settings)))[0]) == 3
    settings = _sized(1, 3, near_duplicate=0.8, max_top_ups=0)
    assert len((await _run(_recipe(writer=writer, settings=settings)))[0]) == 2


@pytest.mark.parametrize(
    ("answers", "step", "subject", "questions"),
    [
        ({"Tea": "I'm sorry."}, "subtopics", "Tea", []),
        ({"Black": ""}, "questions", "Black", ["Green 1?", "Green 2?", "Green 3?"]),
    ],
)
async def test_a_list_that_stays_unreadable_costs_what_hung_on_it_and_is_kept(
    answers: Answers, step: str, subject: str, questions: list[str]
) -> None:
    turns, record = await _run(_recipe(writer=_writer(answers)))
    assert _questions(turns) == questions
    assert _failures(record) == [(step, subject, FailureReason.UNPARSABLE_REPLY)] * 4
    assert record.failures[0].reply == answers[subject]
    assert record.counts[f"missing_{step}"] == (2 if step == "subtopics" else 3)


# Responses.


async def test_a_response_that_repeats_another_is_asked_for_again() -> None:
    responder = _responder({"Why?": ["Because.", "because. ", "So.", "x", "Hence."]})
    turns, record = await _run(_recipe(responder=responder, settings=_independent(3)), "Why?")
    assert [(c.candidate_index, c.response) for c in turns[0].candidates] == [
        (0, "Because."),
        (1, "Hence."),
        (2, "So."),
    ]
    assert record.counts == {"questions": 1, "responses": 3, "candidates": 3, "duplicate_responses": 1}
    assert sorted(call.sample for call in responder.calls) == [0, 1, 2, 4]


@pytest.mark.parametrize("max_top_ups", [0, 1, 3])
async def test_responses_are_asked_for_again_so_often_for_a_question_and_what_is_missing_is_counted(
    max_top_ups: int,
) -> None:
    responder = _responder({"Why?": "Because."})
    settings = _independent(4, max_top_ups=max_top_ups)
    turns, record = await _run(_recipe(responder=responder, settings=settings), "Why?")
    assert _responses(turns[0]) == ["Because."]
    assert len(responder.calls) == 4 + max_top_ups
    assert len({call.sample for call in responder.calls}) == 4 + max_top_ups
    assert record.counts["missing_responses"] == 3
    assert record.counts["duplicate_responses"] == 3 + max_top_ups
    assert record.failures == []


async def test_the_same_response_to_another_question_is_no_repetition() -> None:
    responder = ScriptedModel(lambda call: f"Because {call.sample}.")
    settings = _independent(2, n_subtopics=2, n_questions=3)
    turns, record = await _run(_recipe(responder=responder, settings=settings))
    assert [_responses(turn) for turn in turns] == [["Because 0.", "Because 1."]] * 6
    assert "duplicate_responses" not in record.counts


async def test_an_empty_response_is_asked_for_again() -> None:
    responder = _responder({"Why?": ["Because.", " \n", "x", "So."]})
    turns, record = await _run(_recipe(responder=responder, settings=_independent(2)), "Why?")
    assert _responses(turns[0]) == ["Because.", "So."]
    assert record.failures == []
    assert record.counts == {"questions": 1, "responses": 2, "candidates": 2}


async def test_responses_that_stay_empty_are_marked_recorded_and_missing() -> None:
    settings = _independent(2, max_top_ups=1)
    turns, record = await _run(_recipe(responder=_responder({"Why?": " \n"}), settings=settings), "Why?")
    assert turns[0].candidates == ()
    assert [(one.response.flaw, one.reason) for one in turns[0].unscored] == [(Flaw.EMPTY, "empty")] * 2
    assert _failures(record) == [("responses", "Why?", "empty_reply")] * 2
    assert record.counts["missing_responses"] == 2


FLAWED = {
    Flaw.TRUNCATED: (_body("because it", "length"), FailureReason.TRUNCATED_REPLY, {"keep_truncated": True}),
    Flaw.REFUSAL: ("I'm sorry, but I can't help with that.", FailureReason.REFUSAL, {"keep_refusals": True}),
}


@pytest.mark.parametrize("flaw", FLAWED)
async def test_a_flawed_response_is_marked_recorded_and_not_scored(flaw: Flaw) -> None:
    answer, reason, _ = FLAWED[flaw]
    rewarder = _rewarder()
    recipe = _recipe(responder=_responder({"Why?": ["So.", answer]}), rewarder=rewarder, settings=_independent(2))
    turns, record = await _run(recipe, "Why?")
    assert _responses(turns[0]) == ["So."]
    (unscored,) = turns[0].unscored
    assert (unscored.response.flaw, unscored.reason, unscored.response.index) == (flaw, flaw, 1)
    assert len(rewarder.calls) == 1
    assert _failures(record) == [("responses", "Why?", reason)]
    assert record.failures[0].reply == unscored.response.text
    assert (record.counts["responses"], record.counts["candidates"], record.counts["missing_responses"]) == (2, 1, 1)


@pytest.mark.parametrize("flaw", FLAWED)
async def test_a_flawed_response_is_scored_when_it_is_to_be_kept_and_says_so(flaw: Flaw) -> None:
    answer, _, keep = FLAWED[flaw]
    settings = _independent(2, **keep)
    turns, record = await _run(_recipe(responder=_responder({"Why?": ["So.", answer]}), settings=settings), "Why?")
    assert [candidate.metadata["flaw"] for candidate in turns[0].candidates] == [None, flaw]
    assert record.failures == []
    assert "missing_responses" not in record.counts


CALLING = {"choices": [{"message": {"content": "Well", "tool_calls": [{"id": "1"}]}}]}
PICTURE = {"choices": [{"message": {"content": [{"type": "text", "text": "See"}, {"type": "image_url"}]}}]}
THINKING = {"choices": [{"finish_reason": "length", "message": {"content": None, "reasoning": "Hm."}}]}
# Whatever is to be kept, these are no answers; asked again they would end alike.
NO_ANSWERS_AT_ALL = {
    "filtered": (_body("", "content_filter"), Flaw.FILTERED, "finish_reason 'content_filter'"),
    "filtered half way": (_body("It is", "SAFETY"), Flaw.FILTERED, "finish_reason 'SAFETY'"),
    "a call of a tool": (CALLING, Flaw.TOOL_CALL, None),
    "a call of a tool, by its reason": (_body("Well", "tool_use"), Flaw.TOOL_CALL, "finish_reason 'tool_use'"),
    "a word that nobody knows": (_body("It is.", "moon"), Flaw.UNKNOWN_ENDING, "finish_reason 'moon'"),
    "a picture": (PICTURE, Flaw.CONTENT_NOT_TEXT, "the content holds image_url"),
    "thoughts that were cut": (THINKING, Flaw.ONLY_THOUGHTS, "finish_reason 'length'"),
    "thoughts without an end": ("<think>Hm.", Flaw.ONLY_THOUGHTS, "finish_reason 'stop'"),
    "nothing, as it was cut": (_body("", "max_tokens"), Flaw.TRUNCATED, "finish_reason 'max_tokens'"),
}


@pytest.mark.parametrize("name", NO_ANSWERS_AT_ALL)
async def test_what_is_no_answer_is_marked_kept_and_not_asked_for_again(name: str) -> None:
    reply, flaw, detail = NO_ANSWERS_AT_ALL[name]
    responder = _responder({"Why?": ["So.", reply]})
    settings = _independent(2, keep_truncated=True, keep_refusals=True)
    turns, record = await _run(_recipe(responder=responder, settings=settings), "Why?")
    assert _responses(turns[0]) == ["So."]
    (unscored,) = turns[0].unscored
    assert (unscored.response.flaw, unscored.reason, unscored.detail) == (flaw, flaw, detail)
    assert _failures(record) == [("responses", "Why?", flaw.failure)]
    assert detail is None or detail in record.failures[0].detail
    assert len(responder.calls) == 2


async def test_an_unknown_finish_reason_is_counted_by_its_word() -> None:
    responder = _responder({"Why?": ["So.", _body("It is.", "moon")]})
    _, record = await _run(_recipe(responder=responder, settings=_independent(2)), "Why?")
    assert record.counts["finish_reason_moon"] == 1


async def test_thoughts_are_kept_beside_the_answer_that_is_scored() -> None:
    rewarder = _rewarder()
    responder = _responder({"Why?": ["<think>\nHm.\n</think>\n\nSo.", "Because."]})
    recipe = _recipe(responder=responder, rewarder=rewarder, settings=_independent(2))
    turns, _ = await _run(recipe, "Why?")
    assert [(one.response, one.metadata.get("reasoning")) for one in turns[0].candidates] == [
        ("So.", "Hm."),
        ("Because.", None),
    ]
    assert [call.messages[-1].content for call in rewarder.calls] == ["So.", "Because."]


async def test_a_paired_reply_of_thoughts_alone_costs_one_call() -> None:
    responder = _responder({"Why?": THINKING})
    turns, record = await _run(_recipe(responder=responder), "Why?")
    assert [(one.response.index, one.reason) for one in turns[0].unscored] == [
        (0, "only_thoughts"),
        (1, "only_thoughts"),
    ]
    assert turns[0].unscored[0].response.thoughts == "Hm."
    assert _failures(record) == [("responses", "Why?", "only_thoughts")] * 2
    assert record.counts["missing_responses"] == 2
    assert len(responder.calls) == 1


async def test_a_paired_reply_is_read_without_its_thoughts() -> None:
    said = "<think>RESPONSE A: no\nRESPONSE B: no</think>RESPONSE A: a\nRESPONSE B: b"
    turns, _ = await _run(_recipe(responder=_responder({"Why?": said})), "Why?")
    assert _responses(turns[0]) == ["a", "b"]


@pytest.mark.parametrize("step", ["subtopics", "questions"])
async def test_a_list_of_thoughts_alone_costs_one_call(step: str) -> None:
    subject = {"subtopics": "Tea", "questions": "Green"}[step]
    writer = _writer({subject: THINKING})
    _, record = await _run(_recipe(writer=writer))
    assert _failures(record) == [(step, subject, "only_thoughts")]
    assert record.failures[0].reply == "Hm."
    asked = [call for call in writer.calls if (_asked(call).step, _asked(call).subject) == (step, subject)]
    assert len(asked) == 1


async def test_a_kept_flaw_whose_score_failed_is_told_as_that_and_not_as_a_flaw() -> None:
    cut = _body("because it", "length")
    recipe = _recipe(
        responder=_responder({"Why?": ["So.", cut]}),
        rewarder=_rewarder({"because it": ModelError("overloaded", overloaded=True)}),
        settings=_independent(2, keep_truncated=True),
    )
    _, record = await _run(recipe, "Why?")
    assert _failures(record) == [("rewards", "Why?", "model_error")]


async def test_only_the_second_of_two_paired_responses_can_be_truncated() -> None:
    cut = _body("RESPONSE A: good one\nRESPONSE B: bad tw", "length")
    turns, record = await _run(_recipe(responder=_responder({"Why?": cut})), "Why?")
    assert [(c.candidate_index, c.response) for c in turns[0].candidates] == [(0, "good one")]
    assert [(one.response.index, one.response.text, one.reason) for one in turns[0].unscored] == [
        (1, "bad tw", "truncated")
    ]
    assert _failures(record) == [("responses", "Why?", "truncated_reply")]


async def test_a_paired_reply_that_does_not_hold_two_is_asked_for_again() -> None:
    responder = _responder({"Why?": ["Just one answer.", "RESPONSE A: a\nRESPONSE B: b"]})
    turns, record = await _run(_recipe(responder=responder, settings=RecipeSettings(seed=3)), "Why?")
    assert _responses(turns[0]) == ["a", "b"]
    assert _failures(record) == [("responses", "Why?", "unparsable_reply")]
    assert [(call.sample, call.sampling.seed) for call in responder.calls] == [(0, 3), (2, 5)]


async def test_paired_replies_that_stay_unreadable_cost_their_question_and_are_kept() -> None:
    settings = _sized(2, 3, max_top_ups=1)
    responder = _responder({"Green 2?": "Just one answer."})
    turns, record = await _run(_recipe(responder=responder, settings=settings))
    assert _questions(turns) == ["Green 1?", "Green 3?", "Black 1?", "Black 2?", "Black 3?"]
    assert _failures(record) == [("responses", "Green 2?", "unparsable_reply")] * 2
    assert record.failures[0].reply == "Just one answer."
    assert record.counts["missing_responses"] == 2


# What goes wrong.


@pytest.mark.parametrize("reply", [_body("It is helpful."), _body("correctness:4"), {}, "helpful"])
async def test_an_unreadable_reward_leaves_its_response_unscored(reply: Answer) -> None:
    turns, record = await _run(_recipe(rewarder=_rewarder({"bad Why?": reply})), "Why?")
    assert _responses(turns[0]) == ["good Why?"]
    (unscored,) = turns[0].unscored
    assert (unscored.response.text, unscored.score) == ("bad Why?", None)
    assert unscored.reason == "unparsable_reply"
    assert unscored.detail
    assert _failures(record) == [("rewards", "Why?", "unparsable_reply")]
    assert record.counts == {"questions": 1, "responses": 2, "candidates": 1}


@pytest.mark.parametrize(
    ("failing", "step", "candidates"),
    [
        ("Tea", "subtopics", 0),
        ("Black", "questions", 6),
        ("Green 2?", "responses", 10),
        ("good Green 2?", "rewards", 11),
    ],
)
async def test_a_failed_call_costs_only_what_hung_on_it(failing: str, step: str, candidates: int) -> None:
    answers: Answers = {failing: ModelError("overloaded", overloaded=True)}
    recipe = _recipe(writer=_writer(answers), responder=_responder(answers), rewarder=_rewarder(answers))
    turns, record = await _run(recipe)
    assert sum(len(turn.candidates) for turn in turns) == record.counts["candidates"] == candidates
    assert [(failure.step, failure.reason, failure.detail) for failure in record.failures] == [
        (step, FailureReason.MODEL_ERROR, "overloaded")
    ]
    assert record.stopped is None


async def test_a_failed_call_of_independent_responses_costs_one_of_them() -> None:
    responder = _responder({"Why?": ["a", ModelError("overloaded", overloaded=True), "c"]})
    turns, record = await _run(_recipe(responder=responder, settings=_independent(3)), "Why?")
    assert [candidate.candidate_index for candidate in turns[0].candidates] == [0, 2]
    assert _failures(record) == [("responses", "Why?", "model_error")]
    assert record.counts["missing_responses"] == 1


async def test_a_failed_call_for_a_replacement_leaves_the_response_missing() -> None:
    responder = _responder({"Why?": ["a", "a", "x", ModelError("overloaded", overloaded=True)]})
    turns, record = await _run(_recipe(responder=responder, settings=_independent(2)), "Why?")
    assert _responses(turns[0]) == ["a"]
    assert _failures(record) == [("responses", "Why?", "model_error")]
    assert (record.counts["missing_responses"], record.counts["duplicate_responses"]) == (1, 1)


def _limited(model: ScriptedModel, **limits: float) -> LimitedModel:
    return LimitedModel(model, Limits(**{"first_pause_seconds": 0.001, **limits}))  # type: ignore[arg-type]


class Paid:
    """Answers `count` calls as `answer` does; then the credit is spent."""

    def __init__(self, count: int, answer: ScriptedModel) -> None:
        self.left = count
        self._answer = answer

    def model(self) -> ScriptedModel:
        return ScriptedModel(self.reply, self._answer.name)

    def reply(self, call: Call) -> Answer:
        self.left -= 1
        if self.left < 0:
            return ModelError(f"{self._answer.name} answered 402: no credit", fatal=True)
        text = call.messages[-1].content
        if self._answer.name == "rewarder":
            return _body("helpfulness:2")
        return f"{self._answer.name} {call.sample} answers {text}"


async def test_a_fatal_error_is_told_once_and_what_is_finished_is_kept() -> None:
    rewarder = Paid(5, _rewarder()).model()
    lines = "\n".join(f"{number}. Is it number {number}?" for number in range(40))
    writer = _writer({"Tea": "Green", "Green": lines})
    settings = _independent(5, n_subtopics=1, n_questions=40)
    recipe = _recipe(writer=writer, rewarder=_limited(rewarder, max_concurrency=2), settings=settings)
    turns, record = await _run(recipe)
    assert len(turns) == 40
    assert sum(len(turn.candidates) for turn in turns) == record.counts["candidates"] == 5
    assert record.counts["responses"] == 200, "the responder finished what it could"
    assert record.stopped == "rewarder answered 402: no credit"
    assert record.stopping
    assert _failures(record) == [("rewards", record.failures[0].subject, "model_error")]
    assert record.skips() == {"rewards": {"model_error": 195}}
    assert len(rewarder.calls) <= 5 + 2
    assert {(one.reason, one.detail) for turn in turns for one in turn.unscored} == {
        ("model_error", "rewarder answered 402: no credit")
    }


async def test_a_fatal_error_of_the_writer_lets_the_others_finish() -> None:
    writer = _writer({"Black": ModelError("the key is wrong", fatal=True)})
    turns, record = await _run(_recipe(writer=_limited(writer)))
    assert _questions(turns) == ["Green 1?", "Green 2?", "Green 3?"]
    assert all(len(turn.candidates) == 2 for turn in turns)
    assert record.stopped == "the key is wrong"
    assert record.counts["missing_questions"] == 3
    assert len([call for call in writer.calls if _asked(call).subject == "Black"]) == 1


async def test_after_a_fatal_error_no_further_input_is_taken() -> None:
    taken: list[str] = []
    record = GenerationRecord()

    async def inputs() -> AsyncIterator[Request]:
        for text in ("First?", "Second?", "Third?"):
            taken.append(text)
            yield read_request(text)
            if text == "Second?":
                await _until(lambda: record.stopping)

    responder = _responder({"Second?": ModelError("the key is wrong", fatal=True)})
    found = [item.value async for item in _recipe(responder=responder).run(inputs(), record)]
    assert "Second?" in taken
    assert _questions(found) == ["First?"]
    assert record.stopped == "the key is wrong"
    assert record.counts["missing_responses"] == 2


# Several models.


async def test_a_pool_takes_turns_within_a_question_and_the_candidates_say_who_answered() -> None:
    pool = ModelPool([_responder(name="a"), _responder(name="b")])
    settings = _independent(2, n_subtopics=2, n_questions=3)
    turns, record = await _run(_recipe(responder=pool, settings=settings))
    served = [[candidate.metadata["llm"] for candidate in turn.candidates] for turn in turns]
    assert {frozenset(names) for names in served} == {frozenset("ab")}
    assert {names[0] for names in served} == {"a", "b"}, "neither is always the first"
    assert all(c.response.startswith(str(c.metadata["llm"])) for turn in turns for c in turn.candidates)
    assert record.usage[StepName.RESPONSES, "a"].requests == record.usage[StepName.RESPONSES, "b"].requests == 6


async def test_what_repeats_is_asked_of_the_next_member() -> None:
    pool = ModelPool([_responder({"Why?": "same"}, "a"), _responder({"Why?": "same"}, "b"), _responder(name="c")])
    turns, _ = await _run(_recipe(responder=pool, settings=_independent(2)), "Why?")
    assert [candidate.metadata["llm"] for candidate in turns[0].candidates] == ["a", "c"]


async def test_a_weighted_pool_asks_by_weight() -> None:
    pool = ModelPool([_responder(name="a"), _responder(name="b")], [1, 3])
    lines = "\n".join(f"Is it number {number}?" for number in range(50))
    settings = _independent(4, n_subtopics=1, n_questions=50)
    _, record = await _run(_recipe(writer=_writer({"Tea": "Green", "Green": lines}), responder=pool, settings=settings))
    assert 0.7 < record.usage[StepName.RESPONSES, "b"].requests / 200 < 0.8


@pytest.mark.parametrize("mode", ResponseMode)
async def test_every_model_of_several_answers_every_question(mode: ResponseMode) -> None:
    responders = [_responder(name="a"), _responder(name="b"), _responder(name="c")]
    turns, record = await _run(_recipe(responder=responders, settings=_sized(2, 3, responses=mode)))
    assert [sorted(str(c.metadata["llm"]) for c in turn.candidates) for turn in turns] == [[*"aabbcc"]] * 6
    assert all([c.candidate_index for c in turn.candidates] == [*range(6)] for turn in turns)
    assert record.counts["candidates"] == 36
    assert "missing_responses" not in record.counts


@pytest.mark.parametrize("error", [ModelError("402: no credit", fatal=True), ModelError("down", transient=True)])
async def test_another_member_takes_over_and_what_was_asked_in_vain_is_counted(error: ModelError) -> None:
    broken = ScriptedModel(lambda _: error, "a")
    pool = ModelPool([_limited(broken, max_retries=1), _limited(_responder(name="b"))])
    settings = _independent(2, n_subtopics=2, n_questions=3)
    turns, record = await _run(_recipe(responder=pool, settings=settings))
    assert {c.metadata["llm"] for turn in turns for c in turn.candidates} == {"b"}
    assert record.counts["candidates"] == 12
    assert (record.stopped, record.failures) == (None, [])
    used = record.usage[StepName.RESPONSES, "a"]
    assert used.requests == len(broken.calls) >= 1
    assert used.completion_tokens == 0
    assert record.usage[StepName.RESPONSES, "b"].requests == 12


async def test_a_pool_that_is_out_of_credit_altogether_ends_the_run() -> None:
    pool = ModelPool([_limited(Paid(2, _responder(name=name)).model()) for name in "ab"])
    turns, record = await _run(_recipe(responder=pool, settings=_independent(6)), "Why?")
    assert len(turns[0].candidates) == 4
    assert record.stopped is not None
    assert "402: no credit" in record.stopped
    assert record.counts["missing_responses"] == 2


async def test_retries_and_calls_that_failed_for_good_are_counted() -> None:
    busy = ModelError("busy", transient=True)
    numbers = iter(range(100))
    responder = ScriptedModel(lambda call: f"answer {call.sample}" if next(numbers) in (0, 2) else busy)
    limited = _limited(responder, max_retries=2, max_concurrency=1)
    turns, record = await _run(_recipe(responder=limited, settings=_independent(3)), "Why?")
    used = record.usage[StepName.RESPONSES, "scripted"]
    assert len(turns[0].candidates) == 2
    assert used.requests == len(responder.calls)
    assert used.retries == len(responder.calls) - 3
    assert _failures(record) == [("responses", "Why?", "model_error")]


# Many calls at once.


class Held:
    """A model whose calls for some subjects wait until they are let go."""

    def __init__(self, model: ScriptedModel, *held: str) -> None:
        self.name = model.name
        self.go = asyncio.Event()
        self.cancelled = 0
        self._model = model
        self._held = held

    async def complete(self, call: Call) -> ChatReply:
        if any(word in call.messages[-1].content for word in self._held):
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return await self._model.complete(call)


async def test_the_first_turn_is_out_before_other_subtopics_have_questions() -> None:
    writer = Held(_writer(), "topic is: Black")
    async with aclosing(_recipe(writer=writer).run([read_request("Tea")], GenerationRecord())) as items:
        first = [(await asyncio.wait_for(anext(items), 10)).value for _ in range(3)]
        writer.go.set()
        rest = [item.value async for item in items]
    assert sorted(_questions(first)) == ["Green 1?", "Green 2?", "Green 3?"]
    assert len(rest) == 3


async def test_a_turn_is_out_before_other_responses_are_there() -> None:
    responder = Held(_responder(), "Green 1?")
    async with aclosing(_recipe(responder=responder).run([read_request("Tea")], GenerationRecord())) as items:
        first = [(await asyncio.wait_for(anext(items), 10)).value for _ in range(5)]
        responder.go.set()
        rest = [item.value async for item in items]
    assert "Green 1?" not in _questions(first)
    assert _questions(rest) == ["Green 1?"]


async def test_turns_that_wait_for_an_earlier_subtopic_come_even_when_nothing_comes_after_them() -> None:
    writer = Held(_writer({"Green": ModelError("overloaded", overloaded=True)}), "topic is: Green")
    rewarder = _rewarder()
    run = asyncio.create_task(_run(_recipe(writer=writer, rewarder=rewarder)))
    await _until(lambda: len(rewarder.calls) == 6)
    await asyncio.sleep(0.01)
    writer.go.set()
    turns, record = await asyncio.wait_for(run, 10)
    assert _questions(turns) == ["Black 1?", "Black 2?", "Black 3?"]
    assert record.counts["candidates"] == 6


async def test_a_reader_that_stops_early_stops_the_calls() -> None:
    responder = Held(_responder(), "Green 3?", "Black 3?")
    before = asyncio.all_tasks()
    async with aclosing(_recipe(responder=responder).run([read_request("Tea")], GenerationRecord())) as items:
        await anext(items)
    assert asyncio.all_tasks() == before
    assert responder.cancelled >= 1


async def test_a_run_that_is_cancelled_leaves_nothing_under_way() -> None:
    responder = Held(_responder(), "?")
    before = asyncio.all_tasks()
    run = asyncio.create_task(_run(_recipe(responder=responder)))
    await asyncio.sleep(0.01)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert asyncio.all_tasks() == before
    assert responder.cancelled == 6


# Whatever the timing.

WORDS = ("amber", "birch", "cedar", "daisy", "elder", "ferns")
SAID = ("Yes.", "No.", "yes. ", "Perhaps.", "Never.", "", "I'm sorry, but I can't help with that.")


class Random:
    """A model whose replies depend on the call alone, with many repetitions; some calls fail."""

    def __init__(self, seed: int, name: str) -> None:
        self.name = name
        self._seed = seed

    def __call__(self, call: Call) -> Answer:
        text = call.messages[-1].content
        draw = random.Random(f"{self._seed} {self.name} {text} {call.sample}")
        if draw.random() < 0.05:
            return ModelError("overloaded")
        if call.messages[-1].role == "assistant":
            return _body(f"helpfulness:{draw.randint(0, 4)}")
        if "RESPONSE A" in text:
            return f"RESPONSE A: {draw.choice(SAID)}\nRESPONSE B: {draw.choice(SAID)}"
        if "Given a topic" in text:
            asked = _asked(call)
            size = max(asked.count + draw.randint(-1, 1), 0)
            words = draw.choices(WORDS, k=size)
            listed = ", ".join(words) if asked.step == "subtopics" else "\n".join(f"What is {word}?" for word in words)
            return _body(listed, "length" if draw.random() < 0.1 else "stop")
        return _body(draw.choice(SAID), "length" if draw.random() < 0.1 else "stop")


class Dawdling:
    """A model that takes now more and now fewer turns of the event loop."""

    def __init__(self, model: ScriptedModel, draw: random.Random) -> None:
        self.name = model.name
        self._model = model
        self._draw = draw

    async def complete(self, call: Call) -> ChatReply:
        for _ in range(self._draw.choice((0, 0, 1, 5, 20, 60))):
            await asyncio.sleep(0)
        return await self._model.complete(call)


def _random_recipe(script: int, timing: int, settings: RecipeSettings, n_responders: int) -> PreferenceRecipe:
    draw = random.Random(timing)

    def model(name: str) -> ChatModel:
        return Dawdling(ScriptedModel(Random(script, name), name), draw)

    pool = ModelPool([model("a"), model("b")])
    return _recipe(
        writer=ModelPool([model("writer"), model("other writer")]),
        responder=[pool, model("c")][:n_responders],
        rewarder=model("rewarder"),
        settings=settings,
        workers=draw.choice((1, 2, 3, 64)),
    )


async def _ran(script: int, timing: int, settings: RecipeSettings, n_responders: int) -> tuple[object, ...]:
    record = GenerationRecord()
    requests = [read_request("Trees", example_id="1"), read_request("Why?", example_id="2")]
    recipe = _random_recipe(script, timing, settings, n_responders)
    items = [item async for item in recipe.run(requests, record)]
    turns = [item.value for item in sorted(items, key=lambda item: item.path)]
    _assert_adds_up(turns, record, settings, n_responders)
    shown = [(turn, [(one.response, one.response.flaw, one.reason) for one in turn.unscored]) for turn in turns]
    return shown, +record.counts


def _assert_adds_up(turns: list[Turn], record: GenerationRecord, settings: RecipeSettings, n_responders: int) -> None:
    counts = record.counts
    assert counts["subtopics"] + counts["missing_subtopics"] == settings.n_subtopics
    assert counts["questions"] + counts["missing_questions"] == counts["subtopics"] * settings.n_questions + 1
    assert len(turns) <= counts["questions"]
    distinct = NearDuplicates(settings.near_duplicate)
    assert all(distinct.add(turn.question.text) for turn in turns)
    assert counts["candidates"] == sum(len(turn.candidates) for turn in turns)
    assert counts["responses"] == sum(len(turn.candidates) + len(turn.unscored) for turn in turns)
    n_responses = 2
    if settings.responses is ResponseMode.INDEPENDENT:
        n_responses = settings.n_responses
        said = [[one.response.text for one in turn.unscored if one.response.text] + _responses(turn) for turn in turns]
        assert all(one.casefold() != other.casefold() for texts in said for one, other in combinations(texts, 2))
    flawed = sum(one.reason == one.response.flaw for turn in turns for one in turn.unscored)
    got = counts["responses"] + counts["missing_responses"] - flawed
    assert got == counts["questions"] * n_responders * n_responses


@settings(max_examples=60)
@given(
    script=st.integers(0, 10_000),
    timings=st.lists(st.integers(0, 10_000), min_size=3, max_size=3, unique=True),
    recipe_settings=st.builds(
        RecipeSettings,
        n_subtopics=st.integers(1, 4),
        n_questions=st.integers(1, 4),
        n_responses=st.integers(2, 3),
        responses=st.sampled_from(ResponseMode),
        max_top_ups=st.integers(0, 3),
        min_best_score=st.none() | st.just(2.0),
        keep_truncated=st.booleans(),
    ),
    n_responders=st.integers(1, 2),
)
def test_what_comes_out_does_not_depend_on_which_reply_was_first(
    script: int, timings: list[int], recipe_settings: RecipeSettings, n_responders: int
) -> None:
    async def all_of_them() -> list[tuple[object, ...]]:
        runs = (_ran(script, timing, recipe_settings, n_responders) for timing in timings)
        return [await asyncio.wait_for(run, 30) for run in runs]

    first, *others = own_time.run(all_of_them())
    for other in others:
        assert other == first


# Adapted pipelines.


async def _shout(item: Item[Response]) -> Response:
    response = item.value
    return Response(response.question, response.index, response.text.upper(), response.llm, response.model)


async def _only_first(item: Item[Question]) -> Question:
    if not item.value.text.endswith("1?"):
        raise ItemDropped("not_first")
    return item.value


async def _fixed(item: Item[Any]) -> AsyncIterator[Question]:
    for text in ("Fixed one?", "Fixed two?"):
        yield Question((Message("user", text),), "Tea", str(item.value))


async def test_a_step_can_be_added() -> None:
    turns, _ = await _run(_recipe(adapt=lambda pipeline: pipeline.after("responses", Map(_shout))))
    assert _responses(turns[0]) == ["GOOD GREEN 1?", "BAD GREEN 1?"]


async def test_a_step_that_drops_items_is_counted() -> None:
    turns, record = await _run(_recipe(adapt=lambda pipeline: pipeline.after("questions", Map(_only_first))))
    assert [_responses(turn) for turn in turns] == [
        ["good Green 1?", "bad Green 1?"],
        ["good Black 1?", "bad Black 1?"],
    ]
    assert record.counts["dropped_not_first"] == 4
    assert "missing_responses" not in record.counts
    assert record.failures == []


async def test_a_step_can_be_replaced() -> None:
    step = Scatter(_fixed, name="questions", in_order_of="subtopics")
    writer = _writer()
    turns, _ = await _run(_recipe(writer=writer, adapt=lambda pipeline: pipeline.replaced("questions", step)))
    assert _questions(turns) == ["Fixed one?", "Fixed two?"] * 2
    assert len(writer.calls) == 1


async def test_a_step_can_be_dropped() -> None:
    def adapt(pipeline: Pipeline) -> Pipeline:
        return pipeline.after("responses", Map(_shout)).without("shout")

    assert len((await _run(_recipe(adapt=adapt)))[0]) == 6


async def test_steps_between_samples_and_responses_do_not_hide_repetitions() -> None:
    async def waited(item: Item[Any]) -> Any:
        await asyncio.sleep(0)
        return item.value

    def adapt(pipeline: Pipeline) -> Pipeline:
        gives = pipeline["samples"].gives
        waited.__annotations__.update({"item": Item[gives], "return": gives})  # type: ignore[valid-type]
        return pipeline.after("samples", Map(waited))

    responder = _responder({"Why?": "Because."})
    turns, record = await _run(_recipe(responder=responder, settings=_independent(2), adapt=adapt), "Why?")
    assert _responses(turns[0]) == ["Because."]
    assert record.counts["missing_responses"] == 1


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        (lambda pipeline: pipeline.without("turns"), r"must give Turn, but it is Map\('rewards', Response → Scored\)"),
        (lambda _: Pipeline(), "must give Turn, but it is missing"),
        (lambda _: None, "must return a Pipeline, got None"),
        (
            lambda pipeline: pipeline.without("rewards"),
            "'turns' takes Scored, but 'responses' before it gives Response",
        ),
        (lambda pipeline: pipeline.without("nothing"), "no step 'nothing'; its steps are subtopics, questions"),
    ],
)
async def test_a_pipeline_that_cannot_be_run_is_refused_in_a_line(
    adapt: Callable[[Pipeline], Pipeline], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await _run(_recipe(adapt=adapt))


async def test_a_response_that_differs_in_case_or_in_the_marks_at_its_ends_is_asked_for_again() -> None:
    # A replacement of sample 1 is sample 3, then sample 5.
    responder = _responder({"Why?": ["It is so", "it is so.", "x", "**It is so!**", "x", "It is not so"]})
    settings = RecipeSettings(n_responses=2, responses=ResponseMode.INDEPENDENT)
    turns, record = await _run(_recipe(responder=responder, settings=settings), "Why?")
    assert [candidate.response for candidate in turns[0].candidates] == ["It is so", "It is not so"]
    assert record.counts["duplicate_responses"] == 2

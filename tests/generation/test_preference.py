import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Message
from nat_dpo_pipeline.errors import CandidateRefused, InputError, ModelError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.chat import ChatModel, ChatReply, Usage
from nat_dpo_pipeline.generation.preference import PreferenceRecipe, Question, Request, read_request
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord, StepName
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import InputKind, RecipeSettings, ResponseMode
from nat_dpo_pipeline.testing import ScriptedModel

Answer = str | dict[str, object] | Exception
SMALL = RecipeSettings(n_subtopics=2, n_questions=3)
INDEPENDENT = RecipeSettings(n_subtopics=1, n_questions=1, n_responses=3, responses=ResponseMode.INDEPENDENT)
FATAL = ModelError("the key is wrong", fatal=True)
NO_ANSWERS: Mapping[str, Answer] = MappingProxyType({})


class SlowModel:
    """Answers after the seconds that `answer` gives with the text, and counts how many calls it has at once."""

    def __init__(self, answer: Callable[[str], tuple[float, str | ModelError]]) -> None:
        self.name = "slow"
        self.most_at_once = 0
        self.finished = 0
        self._at_once = 0
        self._answer = answer

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            seconds, answer = self._answer(messages[-1].content)
            await asyncio.sleep(seconds)
        finally:
            self._at_once -= 1
        self.finished += 1
        if isinstance(answer, ModelError):
            raise answer
        return ChatReply(answer, "stop", self.name, Usage(), {"seed": seed})


def _body(content: str, finish_reason: str = "stop") -> dict[str, object]:
    return {"choices": [{"finish_reason": finish_reason, "message": {"content": content}}]}


def _writer(answers: Mapping[str, Answer] = NO_ANSWERS) -> ScriptedModel:
    """Two subtopics with three questions each; `answers` holds other replies by topic or subtopic."""

    def answer(messages: Sequence[Message], _: int | None) -> Answer:
        text = messages[-1].content
        if asked := prompts.load("subtopics").match(text):
            return answers.get(asked["topic"], "Green, Black")
        asked = prompts.load("questions").match(text)
        assert asked is not None, text
        subtopic = asked["sub_topic"]
        lines = [f"{number}. {subtopic} {number}?" for number in (1, 2, 3)]
        return answers.get(subtopic, "Here they are:\n" + "\n\n".join(lines))

    return ScriptedModel(answer)


def _responder(answers: Mapping[str, Answer] = NO_ANSWERS) -> ScriptedModel:
    """A good and a bad answer in one reply; `answers` holds other replies by question."""

    def answer(messages: Sequence[Message], seed: int | None) -> Answer:
        asked = prompts.load("responses").match(messages[-1].content)
        question = asked["question"] if asked else messages[-1].content
        if question in answers:
            return answers[question]
        return f"RESPONSE A: good {question}\n\nRESPONSE B: bad {question}" if asked else f"answer {seed} to {question}"

    return ScriptedModel(answer)


def _rewarder(answers: Mapping[str, Answer] = NO_ANSWERS) -> ScriptedModel:
    """Four for a good answer, one for any other; `answers` holds other replies by response."""

    def answer(messages: Sequence[Message], _: int | None) -> Answer:
        response = messages[-1].content
        helpfulness = 4 if response.startswith("good") else 1
        return answers.get(response, _body(f"helpfulness:{helpfulness},verbosity:2"))

    return ScriptedModel(answer)


def _recipe(
    *,
    writer: ChatModel | None = None,
    responder: ChatModel | None = None,
    rewarder: ChatModel | None = None,
    settings: RecipeSettings = SMALL,
    max_concurrency: int = 8,
) -> PreferenceRecipe:
    return PreferenceRecipe(
        writer=writer or _writer(),
        responder=responder or _responder(),
        scorer=RewardModelScorer(rewarder or _rewarder(), {"helpfulness": 1.0}),
        settings=settings,
        max_concurrency=max_concurrency,
    )


async def _run(recipe: PreferenceRecipe, text: str = "Tea") -> tuple[list[list[Candidate]], GenerationRecord]:
    record = GenerationRecord()
    return [turn async for turn in recipe.turns(read_request(text), record)], record


def _questions(turns: list[list[Candidate]]) -> list[str]:
    prompts_of_turns = [{candidate.prompt for candidate in turn} for turn in turns]
    assert all(len(found) == 1 for found in prompts_of_turns)
    return [prompt[-1].content for (prompt,) in prompts_of_turns if isinstance(prompt, tuple)]


def _failures(record: GenerationRecord) -> list[tuple[str, str, str]]:
    return [(failure.step, failure.subject, failure.reason) for failure in record.failures]


# What is asked for.


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("Tea", InputKind.AUTO, Request(topic="Tea")),
        ("  Tea \n", InputKind.AUTO, Request(topic="Tea")),
        ("Why?", InputKind.AUTO, Request(messages=(Message("user", "Why?"),))),
        ("Why?", InputKind.TOPIC, Request(topic="Why?")),
        ("Tea", InputKind.QUESTION, Request(messages=(Message("user", "Tea"),))),
        ('{"topic": "Why?"}', InputKind.AUTO, Request(topic="Why?")),
        ('{"topic": "Tea"}', InputKind.QUESTION, Request(topic="Tea")),
        ('{"question": "Tea"}', InputKind.AUTO, Request(messages=(Message("user", "Tea"),))),
        ('[{"role": "user", "content": "q"}]', InputKind.TOPIC, Request(messages=(Message("user", "q"),))),
        ("{Tea}", InputKind.AUTO, Request(topic="{Tea}")),
        ("[draft] Tea?", InputKind.AUTO, Request(messages=(Message("user", "[draft] Tea?"),))),
    ],
)
def test_a_request_is_a_topic_or_messages(text: str, kind: InputKind, expected: Request) -> None:
    assert read_request(text, kind) == expected


def test_messages_keep_their_roles() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    expected = (Message("system", "Be brief."), Message("user", "Why?"))
    assert read_request(json.dumps({"messages": messages})) == Request(messages=expected)
    assert read_request(json.dumps(messages)) == Request(messages=expected)


@pytest.mark.parametrize("text", ["", "  \n", '{"topic": ""}', '{"question": " "}'])
def test_an_empty_request_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="the input is empty"):
        read_request(text)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"messages": "Why?"}', '{"messages": []}', '{"topic": 3}', '{"prompt": "q"}']
)
def test_json_that_asks_for_nothing_is_an_input_error_that_says_what_is_needed(text: str) -> None:
    with pytest.raises(InputError, match='needs one of "topic", "question" or "messages"'):
        read_request(text)


@pytest.mark.parametrize("messages", [[1], [{"content": "q"}], [{"role": "assistant", "content": "a"}]])
def test_messages_that_are_no_prompt_are_refused(messages: object) -> None:
    with pytest.raises(CandidateRefused):
        read_request(json.dumps({"messages": messages}))


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(InputKind))
def test_any_text_is_a_request_or_an_input_error(text: str, kind: InputKind) -> None:
    try:
        request = read_request(text, kind)
    except InputError:
        return
    assert (request.topic is None) == bool(request.messages)


def test_the_text_of_a_question_is_its_last_message() -> None:
    assert Question(0, (Message("system", "s"), Message("user", "q"))).text == "q"


# The whole recipe.


async def test_a_topic_becomes_two_scored_responses_per_question() -> None:
    writer, responder, rewarder = _writer(), _responder(), _rewarder()
    turns, record = await _run(_recipe(writer=writer, responder=responder, rewarder=rewarder))
    assert _questions(turns) == ["Green 1?", "Green 2?", "Green 3?", "Black 1?", "Black 2?", "Black 3?"]
    assert [[candidate.score for candidate in turn] for turn in turns] == [[4.0, 1.0]] * 6
    assert turns[0][0].response == "good Green 1?"
    assert record.counts == {
        "topics": 1,
        "subtopics": 2,
        "questions": 6,
        "responses": 12,
        "candidates": 12,
    }
    assert (record.failures, record.stopped) == ([], None)
    assert (len(writer.calls), len(responder.calls), len(rewarder.calls)) == (3, 6, 12)


async def test_every_turn_has_an_id_of_its_own_and_every_candidate_an_index() -> None:
    turns, _ = await _run(_recipe())
    assert len({candidate.turn_id for turn in turns for candidate in turn}) == 6
    assert all(len({candidate.turn_id for candidate in turn}) == 1 for turn in turns)
    assert all([candidate.candidate_index for candidate in turn] == [0, 1] for turn in turns)


async def test_a_candidate_says_where_it_came_from() -> None:
    turns, _ = await _run(_recipe())
    candidate = turns[4][1]
    assert candidate.model == "scripted"
    assert candidate.attributes == {"helpfulness": 1.0, "verbosity": 2.0}
    assert candidate.metadata == {
        "topic": "Tea",
        "subtopic": "Black",
        "question_index": 4,
        "reward_model": "scripted",
        "truncated": False,
    }


async def test_requests_and_tokens_are_counted_by_step() -> None:
    _, record = await _run(_recipe())
    assert {step: used.requests for (step, _), used in record.usage.items()} == {
        StepName.SUBTOPICS: 1,
        StepName.QUESTIONS: 2,
        StepName.RESPONSES: 6,
        StepName.REWARDS: 12,
    }
    # A scripted text counts one token a message and one for itself; the scripted rewards count nothing.
    assert record.usage[StepName.RESPONSES, "scripted"].prompt_tokens == 6
    assert record.usage[StepName.RESPONSES, "scripted"].completion_tokens == 6


async def test_a_question_needs_no_writer() -> None:
    writer = _writer()
    turns, record = await _run(_recipe(writer=writer), "Why?")
    assert _questions(turns) == ["Why?"]
    assert writer.calls == []
    assert record.counts == {"questions": 1, "responses": 2, "candidates": 2}
    assert turns[0][0].metadata["topic"] is None


async def test_what_was_said_before_the_question_goes_to_the_responder_and_the_scorer() -> None:
    responder, rewarder = _responder(), _rewarder()
    said = [("system", "Be brief."), ("user", "a?"), ("assistant", "b"), ("user", "c?")]
    text = json.dumps([{"role": role, "content": content} for role, content in said])
    turns, _ = await _run(_recipe(responder=responder, rewarder=rewarder), text)
    assert turns[0][0].prompt == tuple(Message(role, content) for role, content in said)
    (asked,) = responder.calls
    assert [*asked[:-1]] == [Message(role, content) for role, content in said[:-1]]
    assert prompts.load("responses").match(asked[-1].content) == {"question": "c?"}
    assert [message.role for message in rewarder.calls[0]] == ["user", "assistant", "user", "assistant"]


async def test_one_recipe_serves_several_runs() -> None:
    recipe = _recipe()
    runs = await asyncio.gather(*(_run(recipe, f"Topic {number}") for number in range(3)))
    assert [record.counts["candidates"] for _, record in runs] == [12] * 3


async def test_the_seed_of_the_run_goes_to_every_writer_and_paired_call() -> None:
    seeds: list[int | None] = []

    def answer(messages: Sequence[Message], seed: int | None) -> Answer:
        seeds.append(seed)
        matched = prompts.load("responses").match(messages[-1].content)
        return "RESPONSE A: a\nRESPONSE B: b" if matched else "One?\nTwo?"

    model = ScriptedModel(answer)
    await _run(_recipe(writer=model, responder=model, settings=RecipeSettings(2, 2, seed=9)))
    assert seeds == [9] * 7


# Independent responses.


async def test_independent_responses_are_asked_for_one_by_one_with_seeds_that_count_up() -> None:
    responder = _responder()
    settings = RecipeSettings(n_responses=3, responses=ResponseMode.INDEPENDENT, seed=40)
    turns, record = await _run(_recipe(responder=responder, settings=settings), "Why?")
    assert [candidate.response for candidate in turns[0]] == [f"answer {seed} to Why?" for seed in (40, 41, 42)]
    assert [candidate.candidate_index for candidate in turns[0]] == [0, 1, 2]
    assert responder.calls == [(Message("user", "Why?"),)] * 3
    assert record.counts == {"questions": 1, "responses": 3, "candidates": 3}


async def test_without_a_seed_independent_responses_have_none() -> None:
    turns, _ = await _run(_recipe(settings=INDEPENDENT), "Why?")
    assert [candidate.response for candidate in turns[0]] == ["answer None to Why?"] * 3


async def test_an_empty_independent_response_is_left_out_and_counted() -> None:
    turns, record = await _run(_recipe(responder=_responder({"Why?": " \n"}), settings=INDEPENDENT), "Why?")
    assert turns == []
    assert _failures(record) == [("responses", "Why?", "empty_reply")] * 3


@pytest.mark.parametrize("keep", [False, True])
async def test_a_truncated_independent_response_is_left_out_unless_it_is_to_be_kept(keep: bool) -> None:
    settings = RecipeSettings(n_responses=2, responses=ResponseMode.INDEPENDENT, keep_truncated=keep)
    responder = _responder({"Why?": _body("because it", "length")})
    turns, record = await _run(_recipe(responder=responder, settings=settings), "Why?")
    if keep:
        assert [(c.response, c.metadata["truncated"]) for c in turns[0]] == [("because it", True)] * 2
        assert record.failures == []
    else:
        assert turns == []
        assert _failures(record) == [("responses", "Why?", "truncated_reply")] * 2
        assert {failure.reply for failure in record.failures} == {"because it"}


# What goes wrong.


async def test_only_the_second_of_two_paired_responses_can_be_truncated() -> None:
    cut = _body("RESPONSE A: good one\nRESPONSE B: bad tw", "length")
    turns, record = await _run(_recipe(responder=_responder({"Why?": cut})), "Why?")
    assert [[(c.candidate_index, c.response) for c in turn] for turn in turns] == [[(0, "good one")]]
    assert _failures(record) == [("responses", "Why?", "truncated_reply")]
    assert record.failures[0].reply == "bad tw"
    assert record.counts["responses"] == 1


async def test_a_truncated_paired_response_is_kept_when_it_is_to_be_and_says_so() -> None:
    cut = _body("RESPONSE A: good one\nRESPONSE B: bad tw", "length")
    turns, record = await _run(
        _recipe(responder=_responder({"Why?": cut}), settings=RecipeSettings(keep_truncated=True)), "Why?"
    )
    assert [(c.response, c.metadata["truncated"]) for c in turns[0]] == [("good one", False), ("bad tw", True)]
    assert record.failures == []


@pytest.mark.parametrize(
    ("answers", "step", "subject", "questions"),
    [
        ({"Tea": "I'm sorry."}, "subtopics", "Tea", []),
        ({"Black": ""}, "questions", "Black", ["Green 1?", "Green 2?", "Green 3?"]),
    ],
)
async def test_an_unreadable_list_costs_what_hung_on_it_and_is_kept(
    answers: dict[str, Answer], step: str, subject: str, questions: list[str]
) -> None:
    turns, record = await _run(_recipe(writer=_writer(answers)))
    assert _questions(turns) == questions
    assert _failures(record) == [(step, subject, FailureReason.UNPARSABLE_REPLY)]
    assert record.failures[0].reply == answers[subject]


async def test_unreadable_responses_cost_their_question_and_are_kept() -> None:
    turns, record = await _run(_recipe(responder=_responder({"Green 2?": "Just one answer."})))
    assert "Green 2?" not in _questions(turns)
    assert len(turns) == 5
    assert _failures(record) == [("responses", "Green 2?", "unparsable_reply")]
    assert record.failures[0].reply == "Just one answer."


@pytest.mark.parametrize("reply", [_body("It is helpful."), _body("correctness:4"), {}, "helpful"])
async def test_an_unreadable_reward_costs_its_response(reply: Answer) -> None:
    turns, record = await _run(_recipe(rewarder=_rewarder({"bad Why?": reply})), "Why?")
    assert [[candidate.response for candidate in turn] for turn in turns] == [["good Why?"]]
    assert _failures(record) == [("rewards", "Why?", "unparsable_reply")]
    assert (record.counts["responses"], record.counts["candidates"]) == (2, 1)


@pytest.mark.parametrize(
    ("failing", "subject", "candidates"),
    [
        ("Tea", "subtopics", 0),
        ("Black", "questions", 6),
        ("Green 2?", "responses", 10),
        ("good Green 2?", "rewards", 11),
    ],
)
async def test_a_failed_call_costs_only_what_hung_on_it(failing: str, subject: str, candidates: int) -> None:
    answers: dict[str, Answer] = {failing: ModelError("overloaded")}
    recipe = _recipe(writer=_writer(answers), responder=_responder(answers), rewarder=_rewarder(answers))
    turns, record = await _run(recipe)
    assert sum(map(len, turns)) == record.counts["candidates"] == candidates
    assert [(failure.step, failure.reason, failure.detail) for failure in record.failures] == [
        (subject, FailureReason.MODEL_ERROR, "overloaded")
    ]


async def test_a_failed_call_of_independent_responses_costs_one_of_them() -> None:
    def answer(_: Sequence[Message], seed: int | None) -> Answer:
        return ModelError("overloaded") if seed == 1 else f"answer {seed}"

    settings = RecipeSettings(n_responses=3, responses=ResponseMode.INDEPENDENT, seed=0)
    turns, record = await _run(_recipe(responder=ScriptedModel(answer), settings=settings), "Why?")
    assert [candidate.candidate_index for candidate in turns[0]] == [0, 2]
    assert _failures(record) == [("responses", "Why?", "model_error")]


@pytest.mark.parametrize("failing", ["Tea", "Black", "Green 1?", "good Green 1?"])
async def test_a_fatal_error_ends_the_run_and_is_recorded(failing: str) -> None:
    answers: dict[str, Answer] = {failing: FATAL}
    recipe = _recipe(writer=_writer(answers), responder=_responder(answers), rewarder=_rewarder(answers))
    record = GenerationRecord()
    with pytest.raises(ModelError, match="the key is wrong"):
        _ = [turn async for turn in recipe.turns(read_request("Tea"), record)]
    assert FailureReason.MODEL_ERROR in {failure.reason for failure in record.failures}


async def _drain(turns: AsyncIterator[list[Candidate]], into: list[list[Candidate]]) -> None:
    async for turn in turns:
        into.append(turn)  # noqa: PERF401 - a comprehension would lose them with the error


async def test_turns_that_were_finished_before_a_fatal_error_are_kept_wherever_they_stand() -> None:
    record = GenerationRecord()
    turns = _recipe(responder=_responder({"Green 3?": FATAL})).turns(read_request("Tea"), record)
    finished: list[list[Candidate]] = []
    with pytest.raises(ModelError, match="the key is wrong"):
        await _drain(turns, finished)
    assert {"Green 1?", "Green 2?"} <= set(_questions(finished))
    assert "Green 3?" not in _questions(finished)
    assert record.counts["candidates"] == sum(map(len, finished))


async def test_after_a_fatal_error_the_calls_that_were_waiting_are_not_made() -> None:
    def answer(text: str) -> tuple[float, str | ModelError]:
        asked = prompts.load("responses").match(text)
        assert asked is not None
        return (0.0, FATAL) if asked["question"] == "Green 1?" else (30.0, "too late")

    responder = SlowModel(answer)
    with pytest.raises(ModelError):
        await asyncio.wait_for(_run(_recipe(responder=responder, max_concurrency=2)), 5)
    assert responder.finished == 1


async def test_doubled_items_are_asked_once_and_missing_ones_counted() -> None:
    writer = _writer({"Tea": "Green, green", "Green": "Why?\nWHY?\nHow?"})
    turns, record = await _run(_recipe(writer=writer))
    assert len(turns) == 2
    assert record.counts["subtopics"] == 1
    assert record.counts["missing_subtopics"] == 1
    assert record.counts["missing_questions"] == 1


async def test_items_beyond_what_was_asked_for_are_left_out() -> None:
    writer = _writer({"Tea": "Green, Black, White", "Green": "A?\nB?\nC?\nD?"})
    turns, record = await _run(_recipe(writer=writer))
    assert _questions(turns) == ["A?", "B?", "C?", "Black 1?", "Black 2?", "Black 3?"]
    assert record.counts["subtopics"] == 2
    assert not [name for name in record.counts if name.startswith("missing")]


# Many calls at once.


def _delayed(delays: Mapping[str, float]) -> SlowModel:
    def answer(text: str) -> tuple[float, str]:
        asked = prompts.load("responses").match(text)
        assert asked is not None
        question = asked["question"]
        return delays.get(question, 0.0), f"RESPONSE A: good {question}\nRESPONSE B: bad {question}"

    return SlowModel(answer)


async def test_turns_come_in_the_order_of_the_questions_although_replies_do_not() -> None:
    responder = _delayed({"Green 1?": 0.06, "Green 2?": 0.03, "Black 1?": 0.04})
    turns, _ = await _run(_recipe(responder=responder))
    assert _questions(turns) == ["Green 1?", "Green 2?", "Green 3?", "Black 1?", "Black 2?", "Black 3?"]


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_calls_are_made_at_once_than_allowed(limit: int) -> None:
    questions = [f"{subtopic} {number}?" for subtopic in ("Green", "Black") for number in (1, 2, 3)]
    responder = _delayed(dict.fromkeys(questions, 0.005))
    turns, _ = await _run(_recipe(responder=responder, max_concurrency=limit))
    assert len(turns) == 6
    assert responder.most_at_once == limit


async def test_a_reader_that_stops_early_stops_the_calls() -> None:
    questions: dict[str, float] = {f"{subtopic} 3?": 30.0 for subtopic in ("Green", "Black")}
    responder = _delayed(questions)
    before = asyncio.all_tasks()
    async with aclosing(_recipe(responder=responder).turns(read_request("Tea"), GenerationRecord())) as turns:
        async for _ in turns:
            break
    assert asyncio.all_tasks() == before
    assert responder.finished <= 4


async def test_the_summary_of_a_run_is_json() -> None:
    _, record = await _run(_recipe(responder=_responder({"Green 1?": "no markers", "Green 2?": ModelError("slow")})))
    summary: dict[str, Any] = json.loads(json.dumps(record.summary()))
    assert summary["questions"] == 6
    assert summary["skipped"] == {"responses": {"unparsable_reply": 1, "model_error": 1}}


async def test_nothing_is_under_way_after_a_fatal_error() -> None:
    def answer(text: str) -> tuple[float, str | ModelError]:
        return (0.01, FATAL) if text == "Why?" and model.finished == 0 else (0.05, "late")

    model = SlowModel(answer)
    recipe = _recipe(responder=model, settings=INDEPENDENT)
    with pytest.raises(ModelError, match="the key is wrong"):
        await _run(recipe, "Why?")
    finished = model.finished
    await asyncio.sleep(0.1)
    assert model.finished == finished


async def test_the_first_of_repeated_questions_keeps_its_place() -> None:
    settings = RecipeSettings(n_subtopics=1, n_questions=4)
    writer = ScriptedModel(lambda messages, _: "Black" if "Tea" in messages[-1].content else "A?\nB?\nC?\na?")
    turns, record = await _run(_recipe(writer=writer, settings=settings))
    assert _questions(turns) == ["A?", "B?", "C?"]
    assert record.counts["missing_questions"] == 1


async def test_the_last_item_of_a_list_that_was_cut_is_left_out() -> None:
    settings = RecipeSettings(n_subtopics=1, n_questions=3)
    cut = _body("A?\nB?\nWhat is the diffe", finish_reason="length")
    writer = ScriptedModel(lambda messages, _: "Black" if "Tea" in messages[-1].content else cut)
    turns, record = await _run(_recipe(writer=writer, settings=settings))
    assert _questions(turns) == ["A?", "B?"]
    assert record.counts["missing_questions"] == 1


@pytest.mark.parametrize("text", ["[" * 100_000, '{"topic": ' + "1" * 5000 + "}"])
def test_json_that_cannot_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        read_request(text)


def test_an_input_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(CandidateRefused):
        read_request('{"topic": "\\ud800"}')

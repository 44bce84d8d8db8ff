import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from starlette.applications import Starlette

from nat_dpo_pipeline.core.parsing import parse_lines, parse_reward, parse_terms, parse_two_responses
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ParseError
from nat_dpo_pipeline.generation import prompts

WRITER, REWARD = "demo/stdlib-writer", "demo/stdlib-reward"
QUESTION = "What does `heapq.nlargest` do?"
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "", None, 3]),
        "content": st.text() | st.just(QUESTION) | st.lists(st.just({"type": "text", "text": QUESTION})) | st.none(),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {"model": st.sampled_from([WRITER, REWARD]) | JSON, "messages": st.lists(MESSAGES | JSON, max_size=4) | JSON},
    optional={"max_tokens": st.integers() | JSON, "seed": st.integers() | JSON, "n": st.integers() | JSON},
)
LISTS = st.one_of(
    st.builds(lambda topic, n: prompts.load("subtopics").render(topic=topic, n_subtopics=n), st.text(), JSON),
    st.builds(lambda topic, n: prompts.load("questions").render(sub_topic=topic, n_questions=n), st.text(), JSON),
)
PROMPTS = st.one_of(
    LISTS,
    st.builds(lambda prompt, known: prompts.load("more").render(prompt=prompt, known=known), LISTS, st.text()),
    st.builds(lambda question: prompts.load("responses").render(question=question), st.text()),
)


async def _ask(client: AsyncOpenAI, prompt: str, **parameters: Any) -> ChatCompletion:
    reply = await client.chat.completions.create(
        model=WRITER, messages=[{"role": "user", "content": prompt}], **parameters
    )
    assert isinstance(reply, ChatCompletion)
    return reply


def _content(reply: ChatCompletion) -> str:
    content = reply.choices[0].message.content
    assert content is not None
    return content


async def _post(app: Starlette, http: ModuleType, body: bytes) -> Any:
    async with http.AsyncClient(transport=http.ASGITransport(app=app), base_url="http://demo") as client:
        return await client.post("/v1/chat/completions", content=body)


def _assert_answered_or_refused(app: Starlette, http: ModuleType, body: bytes) -> None:
    response = asyncio.run(_post(app, http, body))
    fields = response.json()
    if response.status_code == 200:
        assert fields["choices"]
    else:
        assert response.status_code in {400, 404}
        assert fields["error"]["message"]
        assert set(fields["error"]) == {"message", "type", "param", "code"}


async def test_the_whole_recipe_can_be_walked(client: AsyncOpenAI) -> None:
    terms = await _ask(client, prompts.load("subtopics").render(topic="Data structures", n_subtopics=3))
    modules = parse_terms(_content(terms), 3)
    assert len(modules) == 3
    lines = await _ask(client, prompts.load("questions").render(sub_topic=modules[0], n_questions=4))
    questions = parse_lines(_content(lines), 4)
    assert len(questions) == 4
    again = prompts.load("questions").render(sub_topic=modules[0], n_questions=2)
    more = await _ask(client, prompts.load("more").render(prompt=again, known="\n".join(questions)))
    assert not set(parse_lines(_content(more), 2)) & set(questions)
    pairs = 0
    for question in questions:
        reply = await _ask(client, prompts.load("responses").render(question=question))
        # Which of them lacks a marker, if any, depends on this Python's documentation.
        with suppress(ParseError):
            first, second = parse_two_responses(_content(reply))
            assert await _score(client, question, first) != await _score(client, question, second)
            pairs += 1
    assert pairs > 0


async def _score(client: AsyncOpenAI, question: str, response: str) -> dict[str, float]:
    reply = await client.chat.completions.create(
        model=REWARD,
        messages=[{"role": "user", "content": question}, {"role": "assistant", "content": response}],
    )
    return dict(parse_reward(reply.model_dump()).attributes or {})


async def test_a_reward_is_where_the_hosted_reward_model_puts_it(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model=REWARD,
        messages=[{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Finds the largest."}],
    )
    choice = reply.choices[0]
    assert choice.finish_reason == "length"
    assert choice.logprobs
    assert choice.logprobs.content
    in_content = ",".join(f"{token.token}:{token.logprob:.2f}" for token in choice.logprobs.content)
    assert choice.message.content == in_content
    assert in_content.startswith("helpfulness:")


async def test_a_question_alone_gets_one_answer_also_after_a_system_message(client: AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model=WRITER, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    )
    assert _content(reply) == _content(await _ask(client, QUESTION))


async def test_replies_say_that_no_language_model_wrote_them(client: AsyncOpenAI) -> None:
    assert "not a language model" in (await _ask(client, QUESTION)).model


async def test_usage_counts_words(client: AsyncOpenAI) -> None:
    reply = await _ask(client, QUESTION)
    assert reply.usage
    assert reply.usage.prompt_tokens == len(QUESTION.split())
    assert reply.usage.completion_tokens == len(_content(reply).split())
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
async def test_a_reply_is_cut_off_at_the_limit(client: AsyncOpenAI, parameter: str) -> None:
    whole, cut = await _ask(client, QUESTION), await _ask(client, QUESTION, **{parameter: 3})
    assert len(_content(cut).split()) == 3
    assert _content(whole).startswith(_content(cut))
    assert (whole.choices[0].finish_reason, cut.choices[0].finish_reason) == ("stop", "length")


async def test_equal_requests_have_equal_replies(client: AsyncOpenAI) -> None:
    first, second = await _ask(client, QUESTION, seed=5), await _ask(client, QUESTION, seed=5)
    assert first.model_dump() == second.model_dump()


async def test_request_seeds_and_choices_vary_the_answer(client: AsyncOpenAI) -> None:
    by_seed = [_content(await _ask(client, QUESTION, seed=seed)) for seed in range(4)]
    together = await _ask(client, QUESTION, seed=0, n=4)
    assert len(set(by_seed)) == 4
    assert [choice.message.content for choice in together.choices] == by_seed


async def test_the_app_seed_varies_the_answers(http: ModuleType) -> None:
    body = json.dumps({"model": WRITER, "messages": [{"role": "user", "content": QUESTION}]}).encode()
    replies = [(await _post(create_app(seed), http, body)).json() for seed in (0, 0, *range(1, 9))]
    assert replies[0] == replies[1]
    assert len({reply["choices"][0]["message"]["content"] for reply in replies}) > 1


async def test_the_models_are_listed(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [WRITER, REWARD]


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'gpt-9' does not exist.*demo/stdlib-writer") as caught:
        await client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": QUESTION}])
    assert caught.value.code == "model_not_found"


async def test_an_unknown_address_is_refused_in_the_same_form(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings is not served"):
        await client.embeddings.create(model=WRITER, input="a")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("Write me a poem.", "answers the recipe's prompts"),
        (f"{QUESTION}\n{QUESTION}", "one-line questions"),
        ("Is `heapq.nlargest` or `heapq.nsmallest` better?", "one documented member"),
        (prompts.load("responses").render(question="Why is the sky blue?"), "answers the recipe's prompts"),
        (prompts.load("questions").render(sub_topic="astrology", n_questions=2), "no module 'astrology'"),
        (prompts.load("questions").render(sub_topic="heapq", n_questions="two"), "n_questions must be a whole number"),
        (prompts.load("subtopics").render(topic="Trees", n_subtopics=0), "n_subtopics must be at least 1"),
    ],
)
async def test_other_prompts_are_refused_with_what_it_answers(client: AsyncOpenAI, prompt: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        await _ask(client, prompt)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([("user", QUESTION)], "user and assistant messages in turn"),
        ([("system", "x"), ("user", QUESTION), ("assistant", "a")], "user and assistant messages in turn"),
        ([("user", "Why?"), ("assistant", "Because.")], "name a documented member"),
    ],
)
async def test_the_reward_model_refuses_what_it_cannot_score(
    app: Starlette, http: ModuleType, messages: list[tuple[str, str]], message: str
) -> None:
    listed = [{"role": role, "content": content} for role, content in messages]
    response = await _post(app, http, json.dumps({"model": REWARD, "messages": listed}).encode())
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": []}, "messages must be a list"),
        ({"messages": [{"role": "user"}]}, "a message needs a role and text content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text content"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "expects one user message"),
        ({"model": None}, "model must be a string"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, got 0"),
        ({"n": 1000}, "n must be a whole number of at least 1 and at most 128, got 1000"),
        ({"n": True}, "n must be a whole number"),
        ({"stream": True}, "does not stream"),
    ],
)
async def test_a_malformed_request_is_told_what_is_wrong(
    app: Starlette, http: ModuleType, changes: dict[str, object], message: str
) -> None:
    body = {"model": WRITER, "messages": [{"role": "user", "content": QUESTION}]} | changes
    response = await _post(app, http, json.dumps(body).encode())
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"[]", b'{"seed": ' + b"9" * 5000 + b"}"])
async def test_a_body_that_is_no_json_object_is_refused(app: Starlette, http: ModuleType, body: bytes) -> None:
    assert (await _post(app, http, body)).status_code == 400


async def test_text_parts_and_lone_surrogates_are_read(app: Starlette, http: ModuleType) -> None:
    parts = [{"type": "text", "text": "What does `heapq.nlargest`"}, {"type": "text", "text": " do \ud800?"}]
    body = {"model": WRITER, "messages": [{"role": "user", "content": parts}]}
    assert (await _post(app, http, json.dumps(body).encode())).status_code == 200


@given(body=JSON | REQUESTS)
def test_any_json_gets_an_answer_or_an_error(app: Starlette, http: ModuleType, body: object) -> None:
    _assert_answered_or_refused(app, http, json.dumps(body).encode())


@given(prompt=PROMPTS)
def test_any_values_in_the_prompts_get_an_answer_or_an_error(app: Starlette, http: ModuleType, prompt: str) -> None:
    body = {"model": WRITER, "messages": [{"role": "user", "content": prompt}]}
    _assert_answered_or_refused(app, http, json.dumps(body).encode())


def test_importing_the_demo_is_light() -> None:
    program = (
        "import sys, nat_dpo_pipeline.demo; print([name for name in ('starlette', 'smtplib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

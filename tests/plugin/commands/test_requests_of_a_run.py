"""The requests that a whole run sends, as a server sees them: how many, and with which seeds."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.plugin.commands.generation import Outcome, RunStatus, generate, inputs_of, load
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response

QUESTIONS = tuple(f"What is number {number}?" for number in range(20))


@dataclass
class Server:
    """Writes, answers, rewards and judges, gives `n` choices, and keeps the bodies of its requests by their step."""

    asked: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    given: int = 0

    def answer(self, request: Request) -> Response:
        body = request.json
        step = _step(body["messages"][0]["content"]) if body["model"] == "judge" else body["model"]
        step = _step(body["messages"][0]["content"]) if step == "writer" else step
        self.asked.setdefault(step, []).append(body)
        return Response(body=completion(*(self._text(step) for _ in range(body.get("n", 1)))))

    def _text(self, step: str) -> str:
        self.given += 1
        texts = {
            "subtopics": "Heaps, Trees",
            "questions": f"What is heap {self.given}?\nWhat is tree {self.given}?",
            "responses": f"RESPONSE A: It is {self.given}.\nRESPONSE B: It may be {self.given}.",
            "judge_rating": f'{{"rating": {1 + self.given % 10}}}',
            "judge_pairwise": '{"winner": "A"}',
            "reward": str(self.given),
        }
        return texts.get(step, f"Answer {self.given}.")

    def sizes(self) -> Counter[int]:
        return Counter(body.get("n", 1) for step in ("a", "b") for body in self.asked.get(step, []))

    def seeds(self, step: str) -> list[int | None]:
        return sorted(body.get("seed") for body in self.asked[step])


def _step(content: str) -> str:
    names = ("subtopics", "questions", "responses", "judge_rating", "judge_pairwise")
    return next((name for name in names if prompts.load(name).match(content)), "answers")


async def _run(folder: Path, server: Server, texts: Sequence[str] = QUESTIONS, **workflow: object) -> Outcome:
    async with LoopbackServer(server.answer) as loopback:
        names = ("writer", "a", "b", "reward", "judge")
        source = {
            "llms": {name: {"_type": "openai", "base_url": loopback.url, "model_name": name} for name in names},
            "workflow": {
                "_type": "preference_data",
                "writer_llm": "writer",
                "responder_llm": "a",
                "reward_llm": "reward",
                "responses": "independent",
                "n_responses": 4,
                **workflow,
            },
        }
        path = folder / "config.yml"
        path.write_text(yaml.safe_dump(source))
        config, settings = load(path)
        outcome = await generate(config, settings, inputs_of(config, texts, None), folder / "run", nullcontext)
    assert outcome.status is RunStatus.COMPLETE
    return outcome


@pytest.mark.parametrize(
    ("workflow", "sizes"),
    [
        ({}, {4: 20}),
        ({"max_concurrency": 1}, {4: 20}),
        ({"ask_together": "never"}, {1: 80}),
        # Two members share the four samples of a question.
        ({"responder_llm": ["a", "b"]}, {2: 40}),
        ({"responder_llm": {"models": ["a", "b"], "use": "all"}}, {4: 40}),
        # The first and the fourth response have one temperature.
        ({"sampling": {"responses": {"temperature": [0.2, 0.7, 1.0]}}}, {2: 20, 1: 40}),
        ({"sampling": {"responses": {"temperature": [0.2, 0.7]}}}, {2: 40}),
        ({"seed": 7}, {1: 80}),
    ],
)
async def test_responses_to_a_question_are_as_few_requests_as_they_can_be(
    tmp_path: Path, workflow: dict[str, Any], sizes: dict[int, int]
) -> None:
    server = Server()
    outcome = await _run(tmp_path, server, **workflow)
    assert server.sizes() == sizes
    candidates = sum(size * count for size, count in sizes.items())
    assert outcome.record.counts["candidates"] == candidates
    used = [used for (step, _), used in outcome.record.usage.items() if step == "responses"]
    assert sum(one.requests for one in used) == sum(sizes.values())
    assert sum(one.requests + one.came_along for one in used) == candidates


async def test_a_second_run_asks_for_nothing(tmp_path: Path) -> None:
    await _run(tmp_path, Server())
    again = Server()
    await _run(tmp_path, again)
    assert again.asked == {}


async def test_the_seed_of_a_run_reaches_the_server_with_every_list_and_response(tmp_path: Path) -> None:
    server = Server()
    topics = {"input_kind": "topic", "n_subtopics": 2, "n_questions": 2, "seed": 40}
    await _run(tmp_path, server, ("Data structures",), n_responses=3, **topics)
    assert server.seeds("subtopics") == [40]
    assert server.seeds("questions") == [40, 40]
    assert server.seeds("a") == sorted([40, 41, 42] * 4)


async def test_the_seed_of_a_step_goes_before_that_of_the_run(tmp_path: Path) -> None:
    server = Server()
    sampling = {"responses": {"seed": 5}}
    await _run(tmp_path, server, QUESTIONS[:2], n_responses=2, seed=40, sampling=sampling)
    assert server.seeds("a") == [5, 5, 6, 6]


async def test_the_seed_of_a_run_reaches_the_server_with_two_responses_in_one_reply(tmp_path: Path) -> None:
    server = Server()
    paired = {"responses": "paired", "n_responses": 2, "responder_llm": "writer"}
    await _run(tmp_path, server, QUESTIONS[:3], seed=40, **paired)
    assert server.seeds("responses") == [40] * 3


@pytest.mark.parametrize(("kind", "calls"), [("rating_judge", 6), ("pairwise_judge", 6)])
async def test_the_seed_of_a_judge_reaches_the_server(tmp_path: Path, kind: str, calls: int) -> None:
    server = Server()
    scorer = {"kind": kind, "llm": "judge", "sampling": {"seed": 11, "temperature": 0.5}}
    await _run(tmp_path, server, QUESTIONS[:3], n_responses=2, seed=40, reward_llm=None, scorer=scorer)
    step = {"rating_judge": "judge_rating", "pairwise_judge": "judge_pairwise"}[kind]
    assert server.seeds(step) == [11] * calls
    assert {body["temperature"] for body in server.asked[step]} == {0.5}

"""Every kind of scorer through a configuration and over HTTP, in the shapes in which servers are known to answer.

Each server prefers the longer response, in its own way of saying so.
"""

import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.generation.inputs import read_request
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.plugin.workflows.recipe import OpenModels, open_recipe
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response

Body = dict[str, Any]
QUESTION = "What does `heapq.nlargest` do?"


def _points(request: Request) -> float:
    return len(request.json["messages"][1]["content"]) / 100


def _attributes(points: float) -> dict[str, float]:
    return {"helpfulness": points, "correctness": 1.0, "coherence": 1.0, "complexity": 1.0, "verbosity": 1.0}


def _in_logprobs(request: Request) -> Body:
    """As hosted nemotron-4-340b-reward: attributes in logprobs, `message` a list, `model` and others null."""
    content = [{"token": name, "logprob": value} for name, value in _attributes(_points(request)).items()]
    message = [{"role": "assistant", "content": None}]
    choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": {"content": content}}
    return {"id": None, "object": None, "created": None, "model": None, "choices": [choice]}


def _in_content(request: Request) -> Body:
    return completion(",".join(f"{name}:{value}" for name, value in _attributes(_points(request)).items()))


def _as_reward(request: Request) -> Body:
    return completion(f"reward:{_points(request)}")


def _as_token(request: Request) -> Body:
    choice = {"index": 0, "message": {"content": ""}, "logprobs": {"content": [{"token": str(_points(request))}]}}
    return {"model": "m", "choices": [choice]}


def _as_number(request: Request) -> Body:
    return completion(str(_points(request)))


def _unless_asked_to_think(request: Request) -> Body:
    return _as_number(request) if request.json["messages"][0]["content"].endswith(" /nothink") else completion("Hm.")


def _yes_or_no(request: Request) -> Body:
    body = request.json
    assert body["logprobs"] is True
    assert body["messages"][-1]["content"].endswith("this principle: correctness. Only answer Yes or No.")
    tops = [{"token": "Yes", "logprob": _points(request) - 9}, {"token": "No", "logprob": -9.0}]
    choice = {"index": 0, "message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": tops}]}}
    return {"model": "m", "choices": [choice]}


def _pooled(request: Request) -> Body:
    assert request.path == "/pooling"
    assert request.json["use_activation"] is False
    return {"model": "m", "data": [{"data": [[0.0], [_points(request)]]}]}


def _classified(request: Request) -> Body:
    assert request.path == "/classify"
    assert request.json["use_activation"] is False
    return {"model": "m", "data": [{"probs": [_points(request)]}]}


def _between(text: str, mark: str) -> str:
    return re.findall(rf"<{mark}-\w+>(.*?)</{mark}-\w+>", text, re.DOTALL)[-1]


def _rated(request: Request) -> Body:
    length = len(_between(request.json["messages"][0]["content"], "reply"))
    return completion(f'It is long.\n{{"rating": {1 + min(length / 100, 9)}}}')


def _winner(request: Request) -> Body:
    text = request.json["messages"][0]["content"]
    first, second = (len(_between(text, f"reply-{name}")) for name in "ab")
    return completion(json.dumps({"winner": "tie" if first == second else "A" if first > second else "B"}))


def _two(request: Request) -> tuple[int, int, int]:
    sizes = {message["role"]: len(message["content"]) for message in request.json["messages"]}
    first, second = sizes["response_1"], sizes["response_2"]
    return (4, 2, 1) if first > second else (2, 4, 6)


def _boxed(request: Request) -> Body:
    first, second, ranking = _two(request)
    return completion(
        f"[The Begin of Individual Scores]\n\\boxed{{{first}, {second}}}\n[The End of Individual Scores]\n"
        f"[The Begin of Ranking Score]\n\\boxed{{{ranking}}}\n[The End of Ranking Score]"
    )


def _nested(request: Request) -> Body:
    first, second, ranking = _two(request)
    verdict = {"overall": {"score_1": first, "score_2": second, "ranking": ranking}}
    return completion(f"```json\n{json.dumps(verdict)}\n```")


@dataclass(frozen=True)
class Case:
    """How a server answers, and the scorer that understands it."""

    answer: Callable[[Request], Body]
    scorer: Body = field(default_factory=lambda: {"kind": "reward_model"})


CASES = {
    "A": Case(_in_logprobs),
    "B": Case(_in_content, {"kind": "reward_model", "weights": "nemotron-4-340b"}),
    "C": Case(_as_reward),
    "D": Case(_as_token),
    "E": Case(_as_number),
    "F": Case(_unless_asked_to_think, {"kind": "reward_model", "user_suffix": "/nothink"}),
    "G": Case(_yes_or_no, {"kind": "principle", "principle": "correctness"}),
    "H pooling": Case(_pooled, {"kind": "pooling"}),
    "H classify": Case(_classified, {"kind": "classify"}),
    "I": Case(_boxed, {"kind": "genrm", "format": "nemotron-super-49b"}),
    "J": Case(_nested, {"kind": "genrm", "format": "qwen3-nemotron-235b"}),
    "K rating": Case(_rated, {"kind": "rating_judge"}),
    "K pairwise": Case(_winner, {"kind": "pairwise_judge"}),
}


def _source(url: str, scorer: Body) -> Body:
    return {
        "llms": {
            "writer": {"_type": "dpo_demo", "model_name": "demo/stdlib-writer"},
            "scoring": {"_type": "openai", "base_url": url, "model_name": "scoring"},
        },
        "workflow": {
            "_type": "preference_data",
            "writer_llm": "writer",
            "scorer": scorer,
            "responses": "independent",
            "n_responses": 3,
            "seed": 1,
        },
    }


@pytest.mark.parametrize("name", CASES)
async def test_the_longer_response_scores_higher(name: str) -> None:
    case = CASES[name]
    async with LoopbackServer(lambda request: Response(body=case.answer(request))) as server:
        source = _source(server.url, {**case.scorer, "llm": "scoring"})
        discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
        config = validate_schema(source, Config)
        record = GenerationRecord()
        async with AsyncExitStack() as stack:
            builder = await stack.enter_async_context(WorkflowBuilder.from_config(config))
            models = OpenModels(config.workflow, builder.get_llm_config, None, stack)
            recipe = open_recipe(config.workflow, models, builder.get_function)
            (turn,) = await recipe.turns(read_request(QUESTION), record)
    assert record.failures == []
    assert len(turn.candidates) == 3
    by_length = sorted(turn.candidates, key=lambda candidate: len(candidate.response))
    assert [candidate.score for candidate in by_length] == sorted(candidate.score for candidate in turn.candidates)
    assert by_length[0].score < by_length[-1].score

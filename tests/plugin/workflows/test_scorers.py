import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from nat.builder.function import LambdaFunction
from nat.builder.function_info import FunctionInfo
from nat.data_models.function import EmptyFunctionConfig
from pydantic import BaseModel

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.judges import GenerativeRewardModel, PairwiseJudge, RatingJudge
from nat_dpo_pipeline.generation.scorers import PoolingScorer, PrincipleScorer, RewardModelScorer, Score
from nat_dpo_pipeline.plugin.workflows.scorer_settings import scorer_of
from nat_dpo_pipeline.plugin.workflows.scorers import FunctionScorer, read_score
from nat_dpo_pipeline.testing import ScriptedModel

Scoring = Callable[..., Coroutine[None, None, Any]]

PROMPT = [Message("system", "Be brief."), Message("user", "What is it?")]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]
SECTIONS = (
    "[The Begin of Individual Scores]\n\\boxed{4, 4}\n[The End of Individual Scores]\n"
    "[The Begin of Ranking Score]\n\\boxed{1}\n[The End of Ranking Score]"
)
ATTRIBUTES = "helpfulness:4,correctness:3,coherence:4,complexity:1,verbosity:2"


class Rewarded(BaseModel):
    score: float
    attributes: dict[str, float] = {}


class Judged(BaseModel):
    prompt: list[dict[str, str]]
    response: str


async def _no_function(name: str) -> object:
    raise ValueError(f"Function `{name}` not found")


def _named(function: Scoring) -> Callable[[str], Awaitable[object]]:
    """The function as NAT hands it to a workflow."""

    async def function_named(name: str) -> object:
        info = FunctionInfo.from_fn(function, description="Scores.")
        return LambdaFunction.from_info(config=EmptyFunctionConfig(), info=info, instance_name=name)

    return function_named


def _opened(config: dict[str, Any], model: ScriptedModel | None = None) -> tuple[Any, list[list[str]]]:
    names: list[list[str]] = []

    def opened(llm: list[str]) -> ScriptedModel:
        names.append(llm)
        return model or ScriptedModel(lambda _: "4.5")

    return scorer_of(config).open(opened, _no_function), names


async def _value(config: dict[str, Any], answer: str) -> float:
    scorer, _ = _opened(config, ScriptedModel(lambda _: answer))
    score = await scorer.score(PROMPT, "A heap.", lambda _: None)
    return float(score.value)


async def _score(function: Scoring) -> Score:
    return await FunctionScorer("judge", _named(function)).score(PROMPT, "A heap.", lambda _: None)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"kind": "reward_model"}, RewardModelScorer),
        ({"kind": "principle", "principle": "correctness"}, PrincipleScorer),
        ({"kind": "pooling"}, PoolingScorer),
        ({"kind": "classify"}, PoolingScorer),
        ({"kind": "rating_judge"}, RatingJudge),
        ({"kind": "pairwise_judge"}, PairwiseJudge),
        ({"kind": "genrm", "format": "qwen3-nemotron-235b"}, GenerativeRewardModel),
    ],
)
@pytest.mark.parametrize("llm", ["reward", ["reward-1", "reward-2"]])
def test_every_kind_that_asks_a_model_is_opened_with_it(
    config: dict[str, Any], kind: type, llm: str | list[str]
) -> None:
    scorer, names = _opened({**config, "llm": llm})
    assert isinstance(scorer, kind)
    assert names == [llm if isinstance(llm, list) else [llm]]


@pytest.mark.parametrize("kind", ["pooling", "classify"])
async def test_the_extra_body_of_a_scalar_server_counts(kind: str) -> None:
    model = ScriptedModel(lambda _: {"data": [{"data": [2.5], "probs": [2.5]}]})
    scorer, _ = _opened({"kind": kind, "llm": "reward", "extra_body": {"use_activation": True}}, model)
    await scorer.score(PROMPT, "A heap.", lambda _: None)
    assert model.calls[0].sampling.extra_body == {"use_activation": True}


@pytest.mark.parametrize(("weights", "value"), [("helpfulness", 4.0), ({"correctness": 2.0, "verbosity": -1.0}, 4.0)])
async def test_the_weights_of_a_reward_model_count(weights: object, value: float) -> None:
    assert await _value({"kind": "reward_model", "llm": "reward", "weights": weights}, ATTRIBUTES) == value


async def test_the_suffix_of_a_reward_model_counts() -> None:
    model = ScriptedModel(lambda _: "4.5")
    scorer, _ = _opened({"kind": "reward_model", "llm": "reward", "user_suffix": "/nothink"}, model)
    await scorer.score(PROMPT, "A heap.", lambda _: None)
    assert model.calls[0].messages[0].content.endswith("What is it? /nothink")


async def test_the_principle_counts() -> None:
    model = ScriptedModel(lambda _: "Yes")
    scorer, _ = _opened({"kind": "principle", "llm": "reward", "principle": "brevity"}, model)
    with pytest.raises(ParseError):
        await scorer.score(PROMPT, "A heap.", lambda _: None)
    assert "this principle: brevity. Only" in model.calls[0].messages[-1].content


@pytest.mark.parametrize(("kind", "route"), [("pooling", Route.POOLING), ("classify", Route.CLASSIFY)])
async def test_the_route_of_a_scalar_server_counts(kind: str, route: Route) -> None:
    model = ScriptedModel(lambda _: {"data": [{"data": [2.5], "probs": [2.5]}]})
    scorer, _ = _opened({"kind": kind, "llm": "reward"}, model)
    assert (await scorer.score(PROMPT, "A heap.", lambda _: None)).value == 2.5
    assert [call.route for call in model.calls] == [route]


async def test_the_scale_and_the_criteria_of_a_rating_judge_count() -> None:
    model = ScriptedModel(lambda _: '{"rating": 0.5}')
    config = {"kind": "rating_judge", "llm": "judge", "lowest": 0, "highest": 1, "criteria": "Only rhymes count."}
    scorer, _ = _opened(config, model)
    assert (await scorer.score(PROMPT, "A heap.", lambda _: None)).value == 0.5
    assert "Only rhymes count." in model.calls[0].messages[0].content


async def test_the_criteria_of_a_pairwise_judge_count() -> None:
    model = ScriptedModel(lambda _: '{"winner": "tie"}')
    scorer, _ = _opened({"kind": "pairwise_judge", "llm": "judge", "criteria": "Only rhymes count."}, model)
    await scorer.score_turn(PROMPT, ["a", "b"], lambda _: None)
    assert "Only rhymes count." in model.calls[0].messages[0].content


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("qwen3-nemotron-235b", '{"score_1": 4, "score_2": 4, "ranking": 1}'),
        ("nemotron-super-49b", SECTIONS),
    ],
)
async def test_the_format_of_a_generative_reward_model_counts(form: str, answer: str) -> None:
    scorer, _ = _opened({"kind": "genrm", "llm": "judge", "format": form}, ScriptedModel(lambda _: answer))
    scores = await scorer.score_turn(PROMPT, ["a", "b"], lambda _: None)
    assert [score.value for score in scores] == [4.0, 4.0]


@pytest.mark.parametrize(("combine", "value"), [("mean", 3.0), ("worst", 2.0)])
async def test_an_ensemble_opens_its_members_and_combines_them(combine: str, value: float) -> None:
    def answer(call: Call) -> str:
        return '{"rating": 2}' if len(call.messages) == 1 else "4.0"

    members = {"judge": {"kind": "rating_judge", "llm": "a"}, "reward": {"kind": "reward_model", "llm": ["b", "c"]}}
    scorer, names = _opened({"kind": "ensemble", "combine": combine, "members": members}, ScriptedModel(answer))
    assert isinstance(scorer, EnsembleScorer)
    assert names == [["a"], ["b", "c"]]
    score = await scorer.score(PROMPT, "A heap.", lambda _: None)
    assert (score.value, score.members) == (value, {"judge": 2.0, "reward": 4.0})


async def test_a_function_is_looked_up_when_it_first_scores() -> None:
    scorer, names = _opened({"kind": "function", "function": "judge"})
    assert isinstance(scorer, FunctionScorer)
    assert not names
    with pytest.raises(
        ModelError, match="there is no function 'judge' to score with: Function `judge` not found"
    ) as error:
        await scorer.score(PROMPT, "A heap.", lambda _: None)
    assert error.value.fatal


async def test_something_that_cannot_be_called_is_no_function() -> None:
    async def named(name: str) -> object:
        return name

    with pytest.raises(ModelError, match="'judge' is no function to score with but 'judge'"):
        await FunctionScorer("judge", named).score(PROMPT, "A heap.", lambda _: None)


async def test_a_function_of_two_arguments_is_given_messages_and_text() -> None:
    seen: list[object] = []

    async def judge(prompt: list[dict[str, str]], response: str) -> float:
        seen.extend([prompt, response])
        return 2.5

    assert await _score(judge) == Score(2.5, {}, "judge")
    assert seen == [MESSAGES, "A heap."]


async def test_a_function_may_take_a_model_or_a_dict() -> None:
    async def of_a_model(judged: Judged) -> int:
        return len(judged.prompt) + len(judged.response)

    async def of_a_dict(judged: dict[str, Any]) -> int:
        return len(judged["prompt"]) + len(judged["response"])

    assert (await _score(of_a_model)).value == (await _score(of_a_dict)).value == 9.0


async def test_a_function_is_looked_up_once() -> None:
    looked_up: list[str] = []

    async def judge(judged: dict[str, Any]) -> int:
        return len(judged["response"])

    async def named(name: str) -> object:
        looked_up.append(name)
        return await _named(judge)(name)

    scorer = FunctionScorer("judge", named)
    assert [(await scorer.score(PROMPT, text, lambda _: None)).value for text in ("a", "bb")] == [1.0, 2.0]
    assert looked_up == ["judge"]


@pytest.mark.parametrize(
    ("result", "value", "attributes"),
    [
        (3, 3.0, {}),
        (np.float32(0.5), 0.5, {}),
        ({"score": np.array(1.5), "attributes": {"brevity": np.int64(2)}}, 1.5, {"brevity": 2.0}),
        ("-0.5", -0.5, {}),
        ({"score": 1.5, "why": "short"}, 1.5, {}),
        ({"score": 1.5, "attributes": {"brevity": 2}}, 1.5, {"brevity": 2.0}),
        ('{"score": 1.5, "attributes": {"brevity": 2}}', 1.5, {"brevity": 2.0}),
        ({"score": 1.5, "attributes": None}, 1.5, {}),
        (Rewarded(score=1.5, attributes={"brevity": 2}), 1.5, {"brevity": 2.0}),
    ],
)
async def test_known_results_of_a_function_are_read(result: object, value: float, attributes: dict[str, float]) -> None:
    async def judge(judged: dict[str, Any]) -> Any:  # noqa: ARG001
        return result

    assert await _score(judge) == Score(value, attributes, "judge")


@pytest.mark.parametrize(
    "result",
    [
        "good",
        "",
        "NaN",
        "[" * 100_000,
        [1.0],
        True,
        float("nan"),
        {},
        {"score": "1"},
        {"value": 1.0},
        {"score": 1.0, "attributes": {"brevity": "much"}},
        {"score": 1.0, "attributes": [2.0]},
        Judged(prompt=[], response="a"),
    ],
)
async def test_another_result_of_a_function_is_a_parse_error(result: object) -> None:
    async def judge(judged: dict[str, Any]) -> Any:  # noqa: ARG001
        return result

    with pytest.raises(ParseError, match=r"the function 'judge' returned .* instead of a number, or a score"):
        await _score(judge)


async def test_what_a_function_raises_is_a_model_error_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    async def judge(judged: dict[str, Any]) -> float:
        return float(judged["score"])

    with pytest.raises(ModelError, match="the function 'judge' failed: KeyError: 'score'") as error:
        await _score(judge)
    assert not error.value.transient
    assert not error.value.fatal


async def test_an_error_of_this_package_in_a_function_stays_what_it_is() -> None:
    async def judge(judged: dict[str, Any]) -> float:
        raise ParseError("no number", str(judged["response"]))

    with pytest.raises(ParseError, match="no number"):
        await _score(judge)


def _nested() -> list[object]:
    inner: list[object] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "result",
    [
        10**5000,
        {"score": 10**5000},
        {"score": 1.0, "attributes": {"size": 10**400}},
        {"score": 1.0, "attributes": {10**5000: 1.0}},
        "1" * 5000,
        "NaN",
        '{"score": Infinity}',
        _nested(),
        {"score": None},
    ],
    ids=lambda result: type(result).__name__,
)
def test_whatever_a_function_returns_is_a_score_or_a_parse_error(result: object) -> None:
    with pytest.raises(ParseError, match="the function 'judge' returned"):
        read_score(result, "judge")

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.plan import (
    CHARACTERS_A_TOKEN,
    RESPONSE_TOKENS,
    Asked,
    InputCounts,
    Plan,
    Scoring,
    make_plan,
)
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord, ModelUsage
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import (
    Price,
    RecipeSettings,
    ResponseMode,
    StepName,
    StepSampling,
    StepSamplings,
)

WRITER, JUDGE = Asked({"writer": 1.0}), Asked({"judge": 1.0})
SMALL = RecipeSettings(n_subtopics=2, n_questions=3, n_responses=4, responses=ResponseMode.INDEPENDENT)
TOPIC = InputCounts(topics=1, topic_characters=4)
PRICES = {"writer": Price(prompt=1.0, completion=10.0), "judge": Price(prompt=2.0, completion=0.0)}


def _plan(settings: RecipeSettings = SMALL, inputs: InputCounts = TOPIC, **changes: Any) -> Plan:
    parts = {"writer": WRITER, "responders": [WRITER], "scoring": [Scoring(JUDGE, 1)], "prices": {}, **changes}
    return make_plan(settings, inputs, **parts)


def test_calls_follow_from_the_settings() -> None:
    plan = _plan()
    assert plan.calls() == {"subtopics": 1, "questions": 2, "responses": 24, "rewards": 24}
    assert (plan.questions, plan.responses) == (6, 24)


def test_a_paired_reply_holds_two() -> None:
    plan = _plan(SMALL.model_copy(update={"responses": ResponseMode.PAIRED}))
    assert plan.calls() == {"subtopics": 1, "questions": 2, "responses": 6, "rewards": 12}
    assert next(row for row in plan.rows if row.step == "responses").completion_tokens == 6 * 2 * RESPONSE_TOKENS


def test_questions_need_no_writer() -> None:
    plan = _plan(inputs=InputCounts(questions=5, question_characters=400))
    assert plan.calls() == {"responses": 20, "rewards": 20}
    assert plan.rows[0].prompt_tokens == 400 / CHARACTERS_A_TOKEN * 4


@pytest.mark.parametrize(
    ("scoring", "calls"),
    [
        ([Scoring(JUDGE, 1)], 24),
        ([Scoring(JUDGE, 1), Scoring(WRITER, 1)], 48),
        ([Scoring(JUDGE, 1, compares=True)], 6 * 4 * 3),
        ([], 0),
    ],
)
def test_calls_of_a_scorer(scoring: list[Scoring], calls: int) -> None:
    assert _plan(scoring=scoring).calls().get("rewards", 0) == calls


def test_every_model_answers_every_question() -> None:
    plan = _plan(responders=[Asked({"a": 1.0}), Asked({"b": 1.0})])
    rows = [(list(row.llms), row.calls) for row in plan.rows if row.step == "responses"]
    assert rows == [(["a"], 24), (["b"], 24)]
    assert plan.calls()["rewards"] == 48


def test_a_reply_is_no_longer_than_max_tokens_and_the_steps_go_before_the_models() -> None:
    def reply(settings: RecipeSettings, max_tokens: int | None) -> int:
        plan = _plan(settings, responders=[Asked({"writer": 1.0}, max_tokens)])
        return next(row for row in plan.rows if row.step == "responses").completion_tokens // 24

    own = SMALL.model_copy(update={"sampling": StepSamplings(responses=StepSampling(max_tokens=50))})
    assert [reply(SMALL, None), reply(SMALL, 100), reply(SMALL, 9999), reply(own, 100)] == [350, 100, 350, 50]


def test_prompts_are_those_that_are_rendered() -> None:
    text = prompts.load("subtopics").render(topic="Text", n_subtopics=2)
    assert _plan().rows[0].prompt_tokens == round(len(text) / CHARACTERS_A_TOKEN)


def test_costs_need_every_price() -> None:
    plan = _plan(prices=PRICES)
    assert plan.cost == pytest.approx(
        sum((row.prompt_tokens + 10 * row.completion_tokens) / 1e6 for row in plan.rows[:3])
        + 2 * plan.rows[3].prompt_tokens / 1e6,
        rel=1e-4,
    )
    partial = _plan(prices={"writer": PRICES["writer"]})
    assert partial.cost is None
    assert [row.cost is None for row in partial.rows] == [False, False, False, True]
    assert _plan().cost is None


def test_a_pool_costs_by_its_weights() -> None:
    pool = Asked({"writer": 1.0, "judge": 3.0})
    (row, *_) = _plan(inputs=InputCounts(questions=1, question_characters=4000), responders=[pool], prices=PRICES).rows
    dear, cheap = (row.prompt_tokens + 10 * row.completion_tokens) / 1e6, 2 * row.prompt_tokens / 1e6
    assert row.cost == pytest.approx(0.25 * dear + 0.75 * cheap)
    (row, *_) = _plan(responders=[pool], prices={"writer": PRICES["writer"]}).rows[2:]
    assert row.cost is None


def test_a_preview_corrects_the_estimate_by_what_it_measured() -> None:
    preview = _plan(SMALL.model_copy(update={"n_subtopics": 1, "n_questions": 2}), prices=PRICES)
    usage = {
        (str(row.step), "writer"): ModelUsage("m", row.calls, 0, 0, 2 * row.prompt_tokens, 3 * row.completion_tokens)
        for row in preview.rows
        if row.step != StepName.REWARDS
    }
    usage["rewards", "judge"] = ModelUsage("m", 8, 0, 0, 0, 0)
    plan = _plan(prices=PRICES)
    corrected = plan.calibrated(preview, usage)
    for before, after in zip(plan.rows[:3], corrected.rows[:3], strict=True):
        assert after.calls == before.calls
        assert after.prompt_tokens == pytest.approx(2 * before.prompt_tokens, rel=0.02)
        assert after.completion_tokens == pytest.approx(3 * before.completion_tokens, rel=0.02)
    # A server that does not count has measured nothing.
    assert corrected.rows[3] == plan.rows[3]
    assert corrected.cost is not None
    assert plan.cost is not None
    assert corrected.cost > plan.cost


def test_a_step_that_the_preview_did_not_reach_is_left_as_it_was() -> None:
    assert _plan().calibrated(_plan(), {}) == _plan()


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 20), st.integers(1, 20), st.integers(2, 9), st.booleans())
def test_no_step_is_without_calls_and_no_number_is_negative(
    topics: int, questions: int, n_subtopics: int, n_questions: int, n_responses: int, compares: bool
) -> None:
    settings = SMALL.model_copy(
        update={"n_subtopics": n_subtopics, "n_questions": n_questions, "n_responses": n_responses}
    )
    plan = _plan(settings, InputCounts(topics, questions), scoring=[Scoring(JUDGE, 1, compares=compares)])
    assert all(row.calls > 0 and row.prompt_tokens >= 0 and row.completion_tokens >= 0 for row in plan.rows)
    assert plan.questions == topics * n_subtopics * n_questions + questions
    assert plan.responses == plan.questions * n_responses


@pytest.mark.parametrize("mode", ResponseMode)
async def test_the_calls_are_those_of_a_run_of_the_demo(mode: ResponseMode) -> None:
    from nat_dpo_pipeline.demo import create_app

    settings = SMALL.model_copy(update={"responses": mode, "n_responses": 2, "max_top_ups": 0, "seed": 7})
    models = [
        OpenAIChatModel(ModelSettings(name, f"demo/stdlib-{name}", "http://demo.invalid/v1", "none"), create_app())
        for name in ("writer", "reward")
    ]
    record = GenerationRecord()
    recipe = PreferenceRecipe(models[0], [models[0]], RewardModelScorer(models[1], {"helpfulness": 1.0}), settings)
    await recipe.turns(Request(topic="Data structures"), record)
    for model in models:
        await model.aclose()
    made = {step: used.requests for (step, _), used in record.usage.items()}
    assert made == _plan(settings).calls()
    assert not any(name.startswith(("missing", "duplicate")) for name in record.counts)

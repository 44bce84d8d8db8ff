from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.llm import LLMBaseConfig
from nat.llm.nim_llm import NIMModelConfig
from nat.llm.openai_llm import OpenAIModelConfig

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.chat import Call
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.inputs import read_request
from nat_dpo_pipeline.generation.journal import Journal
from nat_dpo_pipeline.generation.judges import PairwiseJudge
from nat_dpo_pipeline.generation.limits import Limits
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import Price, ResponseMode
from nat_dpo_pipeline.plugin.workflow_config import DemoModelConfig, PreferenceDataConfig
from nat_dpo_pipeline.plugin.workflows.recipe import OpenModels, limits_of, open_recipe
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import LoopbackServer, Response

QUESTION = Call((Message("user", "What does `heapq.nlargest` do?"),))
WRITER = DemoModelConfig(model_name="demo/stdlib-writer")
LLMS: dict[str, LLMBaseConfig] = {
    "w": WRITER,
    "w2": DemoModelConfig(model_name="demo/stdlib-writer", seed=1),
    "r": DemoModelConfig(model_name="demo/stdlib-reward"),
    "r2": DemoModelConfig(model_name="demo/stdlib-reward", seed=1),
}


def _config(**values: object) -> PreferenceDataConfig:
    return PreferenceDataConfig.model_validate({"writer_llm": "w", "reward_llm": "r", **values})


async def _no_functions(name: str) -> object:
    raise KeyError(name)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opens."""
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
def opened(stack: AsyncExitStack) -> Callable[..., OpenModels]:
    """The models of a configuration; further llms by name."""

    def make(config: PreferenceDataConfig, journal: Journal | None = None, **llms: LLMBaseConfig) -> OpenModels:
        return OpenModels(config, {**LLMS, **llms}.__getitem__, journal, stack, config.journal_by)

    return make


Opened = Callable[..., OpenModels]


def _recipe(opened: Opened, **values: object) -> PreferenceRecipe:
    config = _config(**values)
    return open_recipe(config, opened(config), _no_functions)


# Models.


async def test_a_model_is_opened_once_however_many_roles_it_plays(opened: Opened) -> None:
    models = opened(_config())
    assert models.named("w") is models.named("w")
    assert models.pool(_config().writer_llm).members == (models.named("w"),)
    assert models.replicas("w") is models.named("w")


async def test_an_llm_that_is_not_there_is_named(opened: Opened) -> None:
    with pytest.raises(ConfigurationError, match="the workflow names the llm 'x', which is not under llms:"):
        opened(_config()).named("x")


async def test_replicas_are_one_model_behind_several_endpoints(opened: Opened) -> None:
    models = opened(_config())
    assert isinstance(models.replicas(["r", "r2"]), ModelPool)
    with pytest.raises(ConfigurationError, match=r"one model behind several endpoints, .*ensemble"):
        models.replicas(["w", "r"])


async def test_a_journal_stands_before_the_limits(opened: Opened, tmp_path: Path) -> None:
    config = _config(limits={"w": {"requests_per_minute": 1}})
    with closing(Journal(tmp_path / "journal")) as journal:
        model = opened(config, journal).named("w")
        replies = [await model.complete(QUESTION) for _ in range(3)]
    assert [reply.replayed for reply in replies] == [False, True, True]
    assert {reply.llm for reply in replies} == {"w"}


@pytest.mark.parametrize(
    ("before", "now", "is_replayed"),
    [("model", "model", True), ("server", "server", False), ("server", "model", False), ("model", "server", False)],
)
async def test_a_model_at_another_address_is_asked_again_only_if_servers_are_told_apart(
    opened: Opened, tmp_path: Path, before: str, now: str, is_replayed: bool
) -> None:
    replies = []
    for journal_by in (before, now):
        async with LoopbackServer(lambda _: Response(body=completion("It finds the largest."))) as server:
            llm = OpenAIModelConfig(model_name="m", base_url=server.url, api_key="none")
            with closing(Journal(tmp_path / "journal")) as journal:
                model = opened(_config(writer_llm="o", journal_by=journal_by), journal, o=llm).named("o")
                replies.append(await model.complete(QUESTION))
    assert [reply.replayed for reply in replies] == [False, is_replayed]


async def test_a_journal_that_knows_calls_by_the_server_is_still_read(opened: Opened, tmp_path: Path) -> None:
    async with LoopbackServer(lambda _: Response(body=completion("It finds the largest."))) as server:
        llm = OpenAIModelConfig(model_name="m", base_url=server.url, api_key="none")
        replies = []
        for journal_by in ("server", "model"):
            with closing(Journal(tmp_path / "journal")) as journal:
                model = opened(_config(writer_llm="o", journal_by=journal_by), journal, o=llm).named("o")
                replies.append(await model.complete(QUESTION))
    assert [reply.replayed for reply in replies] == [False, True]


async def test_models_in_this_process_are_told_apart_by_their_address(opened: Opened, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        models = opened(_config(), journal)
        replies = [await models.named(name).complete(QUESTION) for name in ("w", "w2")]
    assert [reply.replayed for reply in replies] == [False, False]


async def test_without_a_journal_nothing_is_replayed(opened: Opened) -> None:
    model = opened(_config()).named("w")
    assert [(await model.complete(QUESTION)).replayed for _ in range(2)] == [False, False]


# Limits and prices.


@pytest.mark.parametrize(
    ("llm", "workflow", "limits"),
    [
        ({}, {}, Limits(max_concurrency=8, max_retries=8)),
        ({}, {"max_concurrency": 3, "max_retries": 2}, Limits(max_concurrency=3, max_retries=2)),
        ({"max_retries": 5}, {"max_retries": 2}, Limits(max_retries=5)),
        ({"max_retries": 0}, {"max_retries": 2}, Limits(max_retries=0)),
        ({"max_retries": 5}, {"limits": {"w": {"max_retries": 0}}}, Limits(max_retries=0)),
        (
            {},
            {
                "max_concurrency": 3,
                "limits": {
                    "w": {
                        "max_concurrency": 20,
                        "requests_per_minute": 40,
                        "tokens_per_minute": 9000,
                        "max_wait_seconds": 60,
                    }
                },
            },
            Limits(20, 40.0, 9000, 8, max_wait_seconds=60.0),
        ),
    ],
)
def test_limits_are_the_models_own_or_else_the_llms_or_else_the_workflows(
    llm: dict[str, Any], workflow: dict[str, Any], limits: Limits
) -> None:
    entry = OpenAIModelConfig.model_validate({"model_name": "m", **llm})
    assert limits_of("w", entry, _config(**workflow)) == limits


def test_prices_go_by_the_name_of_the_llm() -> None:
    config = _config(prices={"w": {"prompt": 1, "completion": 2.5}})
    assert config.prices == {"w": Price(prompt=1.0, completion=2.5)}


# The recipe.


async def test_the_writer_answers_unless_another_model_is_named(opened: Opened) -> None:
    recipe = _recipe(opened)
    assert [responder.name for responder in recipe.responders] == ["w"]
    assert isinstance(recipe.scorer, RewardModelScorer)
    assert recipe.settings == _config()
    assert recipe.workers == 32, "twice the eight calls of each of two models"


async def test_a_pool_is_one_responder_and_all_of_a_list_are_several(opened: Opened) -> None:
    recipe = _recipe(opened, responder_llm=["w", "w2"], responses=ResponseMode.INDEPENDENT, n_responses=3)
    assert ([responder.name for responder in recipe.responders], recipe.n_responses) == (["w, w2"], 3)
    everyone = {"models": ["w", "w2"], "use": "all"}
    recipe = _recipe(opened, responder_llm=everyone, responses=ResponseMode.INDEPENDENT, n_responses=3)
    assert ([responder.name for responder in recipe.responders], recipe.n_responses) == (["w", "w2"], 6)
    recipe = _recipe(opened, writer_llm=everyone)
    assert (recipe.writer.name, [responder.name for responder in recipe.responders]) == ("w, w2", ["w", "w2"])


async def test_a_step_holds_enough_items_for_the_calls_that_may_be_under_way(opened: Opened) -> None:
    assert _recipe(opened, limits={"w": {"max_concurrency": 100}}).workers == 2 * (100 + 8)
    assert _recipe(opened, max_concurrency=1).workers == 16


async def test_what_scores_is_what_is_configured(opened: Opened) -> None:
    judge = _recipe(opened, reward_llm=None, scorer={"kind": "pairwise_judge", "llm": ["w", "w2"]})
    assert isinstance(judge.scorer, PairwiseJudge)
    members = {name: {"kind": "reward_model", "llm": name} for name in ("r", "r2")}
    ensemble = _recipe(opened, reward_llm=None, scorer={"kind": "ensemble", "members": members})
    assert isinstance(ensemble.scorer, EnsembleScorer)


async def test_a_missing_key_is_told_when_the_recipe_is_opened(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    monkeypatch.delenv("NVIDIA_BASE_URL", raising=False)
    config = _config(reward_llm="nim")
    models = opened(config, nim=NIMModelConfig(model_name="m"))
    with pytest.raises(ConfigurationError, match=r"llms\.nim \(m\) has no API key: set NVIDIA_API_KEY"):
        open_recipe(config, models, _no_functions)


# A pipeline of one's own.

ADAPTS = """
from nat_dpo_pipeline.errors import ItemDropped
from nat_dpo_pipeline.generation.steps import Item, Map, Pipeline
from nat_dpo_pipeline.generation.turns import Response

NUMBER = 3


async def short_only(item: Item[Response]) -> Response:
    if item.value.index:
        raise ItemDropped("long")
    return item.value


def with_filter(pipeline: Pipeline) -> Pipeline:
    return pipeline.after("responses", Map(short_only))


def unfinished(pipeline: Pipeline) -> Pipeline:
    return pipeline.without("turns")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a module of the user's."""
    package = tmp_path / "own_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "steps.py").write_text(ADAPTS)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_package_of_a_test.steps"


async def test_a_function_of_the_users_adapts_the_pipeline(opened: Opened, own_module: str) -> None:
    recipe = _recipe(opened, pipeline=f"{own_module}.with_filter", responses="independent")
    record = GenerationRecord()
    (turn,) = await recipe.turns(read_request(QUESTION.messages[0].content), record)
    assert [candidate.candidate_index for candidate in turn.candidates] == [0]
    assert record.counts["dropped_long"] == 1


async def test_a_pipeline_that_gives_no_turns_is_refused_when_it_runs(opened: Opened, own_module: str) -> None:
    recipe = _recipe(opened, pipeline=f"{own_module}.unfinished")
    with pytest.raises(ConfigurationError, match="the last step of the adapted pipeline must give Turn, but it is Map"):
        await recipe.turns(read_request("Why?"), GenerationRecord())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.at.all", "'nowhere.at.all' cannot be imported (No module named 'nowhere')"),
        ("{}.with_filtr", "has no attribute 'with_filtr'"),
        ("{}.NUMBER", "steps.NUMBER' is not a function"),
        ("{}", "steps' is not a function"),
        ("", "'' cannot be imported"),
        ("not a path", "'not a path' cannot be imported"),
    ],
)
async def test_a_wrong_path_is_named(opened: Opened, own_module: str, path: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        _recipe(opened, pipeline=path.format(own_module))
    assert str(raised.value).startswith("pipeline: ")
    assert said in str(raised.value)

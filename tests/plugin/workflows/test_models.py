from typing import Any

import pytest
from nat.data_models.llm import LLMBaseConfig
from nat.llm.nim_llm import NIMModelConfig
from nat.llm.openai_llm import OpenAIModelConfig
from pydantic import SecretStr

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.plugin.workflow_config import DemoModelConfig
from nat_dpo_pipeline.plugin.workflows.models import model_settings, open_model, retries_of

QUESTION = Call((Message("user", "What does `heapq.nlargest` do?"),), Sampling(seed=3))
ENTRIES: dict[str, tuple[type[NIMModelConfig | OpenAIModelConfig], str, str, str]] = {
    "nim": (NIMModelConfig, "NVIDIA_API_KEY", "NVIDIA_BASE_URL", "https://integrate.api.nvidia.com/v1"),
    "openai": (OpenAIModelConfig, "OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1"),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, key, url, _ in ENTRIES.values():
        monkeypatch.delenv(key, raising=False)
        monkeypatch.delenv(url, raising=False)


def _settings(kind: str, **entry: Any) -> ModelSettings:
    config = ENTRIES[kind][0].model_validate({"model_name": "m", **entry})
    return model_settings("writer", config, timeout_seconds=33.0)


@pytest.mark.parametrize("kind", ENTRIES)
def test_what_an_entry_leaves_out_is_left_to_the_server(kind: str) -> None:
    settings = _settings(kind, api_key="k")
    assert (settings.name, settings.model, settings.api_key) == ("writer", "m", "k")
    assert settings.base_url == ENTRIES[kind][3]
    assert settings.sampling == Sampling(max_tokens=1024 if kind == "nim" else None, extra_body={})
    assert settings.timeout_seconds == 33.0


@pytest.mark.parametrize("kind", ENTRIES)
def test_what_an_entry_says_is_taken(kind: str) -> None:
    settings = _settings(
        kind,
        api_key="k",
        base_url="http://127.0.0.1:8000/v1",
        temperature=0.2,
        top_p=0.7,
        max_tokens=77,
        seed=5,
        request_timeout=9.0,
        extra_body={"nvext": {"guided_json": {}}},
    )
    assert settings == ModelSettings(
        name="writer",
        model="m",
        base_url="http://127.0.0.1:8000/v1",
        api_key="k",
        sampling=Sampling(temperature=0.2, top_p=0.7, max_tokens=77, seed=5, extra_body={"nvext": {"guided_json": {}}}),
        timeout_seconds=9.0,
    )


def test_zero_is_a_temperature_and_a_seed() -> None:
    settings = _settings("nim", api_key="k", temperature=0.0, seed=0)
    assert (settings.sampling.temperature, settings.sampling.seed) == (0.0, 0)


def test_nim_answers_are_not_cut_at_nats_300_tokens_unless_that_was_said() -> None:
    assert _settings("nim", api_key="k").sampling.max_tokens == 1024
    assert _settings("nim", api_key="k", max_tokens=300).sampling.max_tokens == 300


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_environment_gives_key_and_url(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    _, key, url, _ = ENTRIES[kind]
    monkeypatch.setenv(key, "from the environment")
    assert _settings(kind).api_key == "from the environment"
    assert _settings(kind, api_key="from the entry").api_key == "from the entry"
    monkeypatch.setenv(url, "http://proxy/v1")
    assert _settings(kind).base_url == "http://proxy/v1"
    assert _settings(kind, base_url="http://entry/v1").base_url == "http://entry/v1"


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_missing_key_is_named_with_its_variable(kind: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        _settings(kind)
    assert str(raised.value) == f"llms.writer (m) has no API key: set {ENTRIES[kind][1]} or llms.writer.api_key"


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_server_of_ones_own_needs_no_key(kind: str) -> None:
    assert _settings(kind, base_url="http://127.0.0.1:8000/v1").api_key


@pytest.mark.parametrize(
    ("kind", "entry", "retries"),
    [
        ("nim", {}, None),
        ("nim", {"num_retries": 1}, 0),  # NAT counts attempts
        ("nim", {"num_retries": 5}, 4),
        ("openai", {}, None),
        ("openai", {"max_retries": 7}, 7),
        ("openai", {"num_retries": 3}, 2),
        ("openai", {"num_retries": 3, "max_retries": 0}, 0),
    ],
)
def test_the_retries_that_an_entry_sets_itself(kind: str, entry: dict[str, int], retries: int | None) -> None:
    assert retries_of("writer", ENTRIES[kind][0].model_validate({"model_name": "m", **entry})) == retries


def test_an_entry_that_cannot_set_retries_has_none() -> None:
    assert retries_of("writer", DemoModelConfig(model_name="demo/stdlib-writer")) is None


def test_a_key_is_not_shown() -> None:
    assert "very secret" not in repr(_settings("nim", api_key=SecretStr("very secret")))


class OtherModelConfig(LLMBaseConfig, name="another_kind_of_a_test"):
    model_name: str = "m"


def test_a_type_that_is_not_spoken_is_named() -> None:
    with pytest.raises(
        ConfigurationError, match=r"llms\.writer is of type 'another_kind_of_a_test'; .* nim, openai or dpo_demo"
    ):
        open_model("writer", OtherModelConfig(), timeout_seconds=1.0)


async def _answer(model: OpenAIChatModel) -> str:
    try:
        return (await model.complete(QUESTION)).text
    finally:
        await model.aclose()


def _open(config: LLMBaseConfig) -> OpenAIChatModel:
    return open_model("writer", config, timeout_seconds=10.0)


async def test_the_demo_model_answers_in_process_by_its_seed() -> None:
    config = {"model_name": "demo/stdlib-writer"}
    one, same, other = [
        await _answer(_open(DemoModelConfig.model_validate({**config, "seed": seed}))) for seed in (1, 1, 2)
    ]
    assert "nlargest" in one
    assert one == same != other


async def test_an_openai_entry_speaks_to_a_server_on_the_network(demo_url: str) -> None:
    entry = {"base_url": demo_url, "model_name": "demo/stdlib-writer"}
    text = await _answer(_open(OpenAIModelConfig.model_validate(entry)))
    assert text == await _answer(_open(DemoModelConfig(model_name="demo/stdlib-writer")))
    with pytest.raises(ModelError, match=r"answered 404: .* \(check its model_name and base_url") as raised:
        await _answer(_open(OpenAIModelConfig.model_validate({**entry, "model_name": "no such model"})))
    assert raised.value.fatal


def test_a_key_that_cannot_be_one_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"llms\.writer\.api_key .* holds characters"):
        _settings("nim", api_key="käy")


def test_white_space_around_a_key_is_not_part_of_it() -> None:
    assert _settings("nim", api_key=" k\n").api_key == "k"


def test_no_retries_given_is_not_a_count() -> None:
    assert retries_of("writer", NIMModelConfig.model_validate({"model_name": "m", "max_retries": None})) is None


@pytest.mark.parametrize("retries", ["x", -1, 1.5])
def test_retries_that_are_no_count_are_named(retries: object) -> None:
    config = NIMModelConfig.model_validate({"model_name": "m", "max_retries": retries})
    with pytest.raises(ConfigurationError, match=r"llms\.writer\.max_retries must be"):
        retries_of("writer", config)

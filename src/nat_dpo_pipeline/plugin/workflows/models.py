"""From NAT's `llms:` entries to chat models."""

import os
from dataclasses import dataclass

from nat.llm.nim_llm import NIMModelConfig
from nat.llm.openai_llm import OpenAIModelConfig
from nat.plugin_api import LLMBaseConfig, get_secret_value

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.plugin.workflow_config import DemoModelConfig

HostedConfig = NIMModelConfig | OpenAIModelConfig


@dataclass(frozen=True, slots=True)
class _Host:
    """A vendor's own endpoint, and where its key and another address may come from."""

    base_url: str
    key_variable: str
    url_variable: str
    max_tokens: int | None = None


_OPENAI = _Host("https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL")
# NAT's nim entry cuts answers at 300 tokens unless told otherwise; the recipe asks for 1,024.
_NVIDIA = _Host("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "NVIDIA_BASE_URL", max_tokens=1024)
_NO_KEY_NEEDED = "not-needed"


def open_model(name: str, config: LLMBaseConfig, *, timeout_seconds: float) -> OpenAIChatModel:
    """The chat model of the llm entry `name`; it does not retry, LimitedModel does.

    Raises ConfigurationError for a missing key or an unsupported type.
    """
    if isinstance(config, DemoModelConfig):
        from nat_dpo_pipeline.demo import create_app

        settings = ModelSettings(name, config.model_name, f"http://demo-{config.seed}.invalid/v1", _NO_KEY_NEEDED)
        return OpenAIChatModel(settings, create_app(config.seed))
    if not isinstance(config, HostedConfig):
        raise ConfigurationError(
            f"llms.{name} is of type {config.type!r}; what this package asks itself is nim, openai or dpo_demo"
        )
    return OpenAIChatModel(model_settings(name, config, timeout_seconds=timeout_seconds))


def model_settings(name: str, config: HostedConfig, *, timeout_seconds: float) -> ModelSettings:
    """What the llm entry says, with the vendor's own address and environment variables for the rest."""
    given = {field: getattr(config, field) for field in config.model_fields_set} | (config.model_extra or {})
    host = _NVIDIA if isinstance(config, NIMModelConfig) else _OPENAI
    base_url = config.base_url or os.environ.get(host.url_variable) or host.base_url
    return ModelSettings(
        name=name,
        model=config.model_name,
        base_url=base_url,
        api_key=_api_key(name, config, host, needed=base_url == host.base_url),
        sampling=Sampling.model_construct(
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=given.get("max_tokens", host.max_tokens),
            seed=given.get("seed"),
            extra_body=given.get("extra_body") or {},
            reasoning_effort=given.get("reasoning_effort"),
        ),
        timeout_seconds=given.get("request_timeout") or timeout_seconds,
    )


def _api_key(name: str, config: HostedConfig, host: _Host, *, needed: bool) -> str:
    key = (get_secret_value(config.api_key) or os.environ.get(host.key_variable) or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"llms.{name}.api_key (or {host.key_variable}) holds characters that no key has")
    if not key and needed:
        raise ConfigurationError(
            f"llms.{name} ({config.model_name}) has no API key: set {host.key_variable} or llms.{name}.api_key"
        )
    return key or _NO_KEY_NEEDED


def retries_of(name: str, config: LLMBaseConfig) -> int | None:
    """The retries that the llm entry itself sets; its `num_retries` counts attempts, the first one too.

    Raises ConfigurationError for a `max_retries` that is no count: NAT lets any value through on a nim entry.
    """
    given = {field: getattr(config, field) for field in config.model_fields_set} | (config.model_extra or {})
    retries = given.get("max_retries")
    if retries is None:
        return int(given["num_retries"]) - 1 if "num_retries" in given else None
    if not isinstance(retries, int) or retries < 0:
        raise ConfigurationError(f"llms.{name}.max_retries must be a whole number of at least 0, got {retries!r}")
    return retries

"""The base of every configuration model."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.redacted import redacted

#: The name that TTC steps have and that is collected, unless a configuration says otherwise.
DEFAULT_STEP_NAME = "dpo_candidate_move"


_Settings = TypeVar("_Settings", bound=BaseModel)


class StrictConfig(BaseModel):
    """Refuses unknown keys in words: NAT shows of a validation error only its message, not where it arose."""

    #: What errors call it where it has no `_type` of its own.
    spoken_of_as: ClassVar[str | None] = None

    # Validators are built when they are first used: NAT registers every configuration at each start.
    model_config = ConfigDict(extra="forbid", defer_build=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict) and (unknown := sorted(set(values) - _accepted_keys(cls), key=str)):
            raise ValueError(f"{type_name(cls)} has no {unknown[0]!r}{_suggestion(str(unknown[0]), cls)}")
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _name_what_is_wrong(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise ValueError("; ".join(_in_words(cls, details) for details in error.errors())) from error


def checked(kind: type[_Settings], fields: Mapping[str, object]) -> _Settings:
    """Return the settings with these fields. Raises ConfigurationError, which says in words what is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(in_words(error)) from error


def secret_text(value: SecretStr | None) -> str:
    """Return the secret; empty where there is none."""
    return "" if value is None else value.get_secret_value()


def in_words(error: ValidationError) -> str:
    """What is wrong with a StrictConfig, without pydantic's own words about it."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")


def _in_words(config: type[BaseModel], details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    if not details["loc"]:
        return message
    path = ".".join(map(str, details["loc"]))
    is_hidden = details["type"] == "missing" or _is_secret(config, details["loc"][0])
    given = "" if is_hidden else f" is {redacted(details['input'])!r:.80}"
    return f"{type_name(config)}.{path}{given}: {message}"


def _is_secret(config: type[BaseModel], name: int | str) -> bool:
    field = config.model_fields.get(str(name))
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


def _accepted_keys(config: type[BaseModel]) -> set[str]:
    return {"_type", *config.model_fields, *_keys(config)}


def _keys(config: type[BaseModel]) -> list[str]:
    """As they are spoken of: a field that Python cannot name as YAML does has an alias."""
    return [field.alias or name for name, field in config.model_fields.items()]


def type_name(config: type[BaseModel]) -> str:
    """Its `_type` in YAML, or what else it is called."""
    return str(getattr(config, "_typed_model_name", None) or getattr(config, "spoken_of_as", None) or config.__name__)


def _suggestion(key: str, config: type[BaseModel]) -> str:
    known = sorted(_keys(config))
    from difflib import get_close_matches  # for errors alone

    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; its keys are {', '.join(known)}"

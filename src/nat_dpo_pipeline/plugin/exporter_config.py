"""The configuration of what records candidates in production."""

import re
from pathlib import Path
from typing import Annotated

from nat.plugin_api import TelemetryExporterBaseConfig
from pydantic import AfterValidator, Field, PositiveInt, field_validator

from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME, StrictConfig

#: What of a row can be redacted, and what patterns are applied to.
REDACTABLE = ("prompt", "response", "input", "metadata")


def _pattern(text: str) -> str:
    try:
        matches_nothing = re.compile(text).search("")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if matches_nothing:
        raise ValueError("matches the empty text, so it would be found between any two letters")
    return text


def _redactable(path: str) -> str:
    first, *rest = path.split(".")
    if first not in REDACTABLE or not all(rest):
        raise ValueError(f"must be one of {', '.join(REDACTABLE)}, or a path into one, such as metadata.user")
    return path


class CandidateExporterConfig(StrictConfig, TelemetryExporterBaseConfig, name="dpo_candidates"):
    """Appends every scored candidate that a workflow emits to a JSONL file, at once."""

    path: Path = Field(
        default=Path("recorded/candidates.jsonl"),
        description="The file. Full ones are renamed to candidates-000001.jsonl, … beside it.",
    )
    ttc_step_name: str | list[str] = Field(
        default=DEFAULT_STEP_NAME, description="Name, or names, of the TTC steps to record."
    )
    max_bytes: PositiveInt = Field(
        default=100_000_000, description="Size in bytes that a file grows to; a larger row has a file of its own."
    )
    sample_rate: float = Field(
        default=1.0, gt=0, le=1, description="Share of the runs to record; a run is recorded whole or not at all."
    )
    redact: list[Annotated[str, AfterValidator(_pattern)]] = Field(
        default_factory=list,
        description="Regular expressions; what they match in prompt, response, input and metadata is replaced.",
    )
    redact_fields: list[Annotated[str, AfterValidator(_redactable)]] = Field(
        default_factory=list, description="What is replaced as a whole: input, metadata.user, …"
    )

    @field_validator("ttc_step_name")
    @classmethod
    def _names_steps(cls, names: str | list[str]) -> str | list[str]:
        if not names or not all(names):
            raise ValueError("must name the steps to record")
        return names

    @field_validator("path")
    @classmethod
    def _names_a_file(cls, path: Path) -> Path:
        if not path.name or path.is_dir():
            raise ValueError("must name a file, not a folder")
        return path

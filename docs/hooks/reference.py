"""Pages of the reference that are made of the code when the site is built: configuration and commands."""

import enum
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nat.cli.type_registry import GlobalTypeRegistry
from nat.plugin_api import ComponentRef
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.plugin.workflows.scorer_config import KINDS
from nat_dpo_pipeline.plugin.workflows.scorer_settings import ScorerSettings
from nat_dpo_pipeline.strict import StrictConfig

_PACKAGE = "nat_dpo_pipeline."
_NAMES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "any value"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_SPELLED = {"Ne Mo": "NeMo", "Gen RM": "GenRM", "Lora": "LoRA"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """MkDocs calls this when it has found the pages that are written by hand."""
    for path, text in (
        ("reference/configuration.md", configuration()),
        ("reference/commands.md", commands()),
    ):
        files.append(File.generated(config, path, content=text))
    return files


def configuration() -> str:
    """Every component that the package registers, by its kind, with its options; then what is nested in them."""
    page = _Page()
    page.lines += [
        "# Configuration",
        "",
        "Every component, as it stands in YAML under `_type`. An unknown option is refused, with a suggestion.",
        "What NAT itself adds to a component is not repeated here.",
        "",
    ]
    for kind, where, configs in _components():
        page.lines += [f"## {kind}", "", f"Under `{where}`.", ""]
        for config in configs:
            page.add(config, "###", f"`{'`, `'.join(_types_of(config, configs))}`")
    page.lines += ["## Nested settings", ""]
    while page.pending:
        page.add(page.pending.pop(0), "###")
    return "\n".join(page.lines)


def commands() -> str:
    """`nat dpo` and its commands, in their own words."""
    lines = ["# Commands", "", "What `--help` says.", ""]
    context = click.Context(dpo, info_name="nat dpo", terminal_width=100, max_content_width=100)
    for name in dpo.list_commands(context):
        command = dpo.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
        lines += [f"## `nat dpo {name}`", "", "```text", command.get_help(inner), "```", ""]
    return "\n".join(lines)


def _components() -> Iterator[tuple[str, str, list[type[BaseModel]]]]:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    registry = GlobalTypeRegistry.get()
    for kind, where, registered in (
        ("Workflows", "workflow` or `functions", registry.get_registered_functions()),
        ("Models", "llms", registry.get_registered_llm_providers()),
        ("Middleware", "middleware", registry.get_registered_middleware()),
        ("Exporters", "general.telemetry.tracing", registry.get_registered_telemetry_exporters()),
        ("Trajectory builders", "trajectory_builders", registry.get_registered_trajectory_builders()),
        ("Trainers", "trainers", registry.get_registered_trainers()),
        ("Trainer adapters", "trainer_adapters", registry.get_registered_trainer_adapters()),
    ):
        ours = [one.config_type for one in registered if one.config_type.__module__.startswith(_PACKAGE)]
        # A name that is shared with another package is a subclass without anything of its own.
        shown = [one for one in ours if not any(_is_alias(one, other) for other in ours)]
        if shown:
            yield kind, where, sorted(shown, key=lambda one: one.static_type())


def _is_alias(config: type[BaseModel], other: type[BaseModel]) -> bool:
    return config is not other and issubclass(config, other) and config.__doc__ == other.__doc__


def _types_of(config: type[BaseModel], shown: list[type[BaseModel]]) -> list[str]:
    names = [config, *(one for one in config.__subclasses__() if _is_alias(one, config) and one not in shown)]
    return sorted(one.static_type() for one in names)  # type: ignore[attr-defined]


@dataclass
class _Page:
    """Lines so far, and the models that fields refer to and that are described further down."""

    lines: list[str] = field(default_factory=list)
    pending: list[type[BaseModel]] = field(default_factory=list)
    _known: set[type[BaseModel]] = field(default_factory=set)

    def add(self, config: type[BaseModel], level: str, title: str | None = None) -> None:
        anchor = "" if title else f" {{#{_anchor(config)}}}"
        self.lines += [
            f"{level} {title or _title(config)}{anchor}",
            "",
            _said(inspect.cleandoc(config.__doc__ or "")),
            "",
        ]
        shown = {name: one for name, one in config.model_fields.items() if _is_shown(config, name)}
        if shown:
            self.lines += ["| option | value | default | |", "|---|---|---|---|"]
            self.lines += [self._row(name, one) for name, one in shown.items()]
        self.lines.append("")

    def _row(self, name: str, one: FieldInfo) -> str:
        value = f"{self._value(one.annotation)}{_bounds(one)}"
        cells = (f"`{one.alias or name}`", value, _default(one), one.description or "")
        return "| " + " | ".join(_said(cell).replace("|", "\\|") for cell in cells) + " |"

    def _value(self, annotation: Any) -> str:
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._value(inner[0])
        if origin in (Union, types.UnionType):
            return " or ".join(dict.fromkeys(self._value(one) for one in inner if one is not type(None)))
        if origin is Literal:
            return ", ".join(f"`{one}`" for one in inner)
        if origin in (list, tuple):
            return f"list: {self._value(inner[0])}"
        if origin is dict:
            return f"by name: {self._value(inner[1])}"
        return self._plain(annotation)

    def _plain(self, annotation: Any) -> str:
        if annotation in _NAMES:
            return _NAMES[annotation]
        if issubclass(annotation, enum.Enum):
            return ", ".join(f"`{one.value}`" for one in annotation)
        if issubclass(annotation, ComponentRef):
            return f"name of a {_words(annotation.__name__.removesuffix('Ref')).lower()}"
        if annotation is ScorerSettings:
            return " or ".join(self._plain(kind) for kind in KINDS.values())
        if issubclass(annotation, StrictConfig):
            if annotation not in self._known:
                self._known.add(annotation)
                self.pending.append(annotation)
            return f"[{_title(annotation)}](#{_anchor(annotation)})"
        return "secret text" if issubclass(annotation, SecretStr) else _words(annotation.__name__).lower()


def _is_shown(config: type[BaseModel], name: str) -> bool:
    """Not what the heading says, nor what NAT gives to all components of a kind."""
    definers = [one for one in config.__mro__ if name in inspect.get_annotations(one)]
    return name not in ("type", "kind") and any(one.__module__.startswith(_PACKAGE) for one in definers)


def _bounds(one: FieldInfo) -> str:
    said = [
        f"{words} {getattr(bound, name)}"
        for bound in one.metadata
        for name, words in _BOUNDS.items()
        if hasattr(bound, name)
    ]
    return "".join(f", {one}" for one in said)


def _default(one: FieldInfo) -> str:
    if one.is_required():
        return "**required**"
    value = one.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, BaseModel) or value in ({}, [], ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _said(text: str) -> str:
    """Paragraphs on one line each, as a cell of a table needs them."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text).strip()


def _title(config: type[BaseModel]) -> str:
    kind = config.model_fields.get("kind")
    names = get_args(kind.annotation) if kind is not None else ()
    return f"`kind: {names[0]}`" if names else _words(config.__name__.removesuffix("Config"))


def _anchor(config: type[BaseModel]) -> str:
    return _words(config.__name__).lower().replace(" ", "-")


def _words(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).strip("_")
    for split, spelled in _SPELLED.items():
        words = words.replace(split, spelled)
    return words

"""README.md of a dataset: the metadata that the Hugging Face hub and `datasets` read, and how it was made, for people.

The keys are those of huggingface/hub-docs, datasetcard.md; `configs` and `dataset_info` make `load_dataset(folder)`
work.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import yaml

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats.format import Column, Format
from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.dataset.training.tools import TrainingFile

CARD_NAME = "README.md"
_MARK = "nat-dpo-pipeline"
_MOST_FILES = 20
_SIZES = ((1_000, "1K"), (10_000, "10K"), (100_000, "100K"), (1_000_000, "1M"), (10_000_000, "10M"))
_CITATION = """\
```bibtex
@inproceedings{rafailov2023direct,
  title     = {Direct Preference Optimization: Your Language Model is Secretly a Reward Model},
  author    = {Rafailov, Rafael and Sharma, Archit and Mitchell, Eric and Ermon, Stefano and Manning, Christopher D. and
               Finn, Chelsea},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  url       = {https://arxiv.org/abs/2305.18290}
}
```"""
_RECIPE_CITATION = """
The recipe (subtopics, questions, two responses each, scores of a reward model) is NVIDIA's: NeMo Curator,
tutorials on synthetic preference data, https://github.com/NVIDIA-NeMo/Curator"""


class Origin(StrEnum):
    """Origin of the candidates: NVIDIA's recipe, another workflow, or files recorded by something else."""

    RECIPE = "recipe"
    WORKFLOW = "workflow"
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class About:
    """What only the user knows of a dataset. `license` is an identifier of the hub, such as `cc-by-4.0`."""

    title: str = "Preference pairs"
    license: str = "unknown"
    languages: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WrittenFormat:
    """The files of one format: path relative to the dataset's folder, by side. `training` is one of `extra`."""

    format: Format
    lines: Mapping[SplitName, WrittenFile]
    parquet: Mapping[SplitName, WrittenFile] = field(default_factory=dict)
    extra: Sequence[WrittenFile] = ()
    training: TrainingFile | None = None
    has_calls: bool = False

    @property
    def files(self) -> tuple[WrittenFile, ...]:
        return (*self.lines.values(), *self.parquet.values(), *self.extra)

    @property
    def has_rows(self) -> bool:
        return any(file.rows for file in self.lines.values())


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says of a dataset. `configuration` and `skipped` are those of the manifest."""

    about: About
    formats: Sequence[WrittenFormat]
    pairs: Mapping[SplitName, int]
    configuration: Mapping[str, object]
    skipped: Mapping[str, object]
    seed: int

    @property
    def origin(self) -> Origin:
        """The origin of the candidates, by the configuration; recorded where the configuration names no workflow."""
        builder = self.configuration.get("trajectory_builder")
        source = builder.get("source") if isinstance(builder, Mapping) else None
        workflow = _workflow(self)
        # The workflow beside a source is required by NAT, and not run; this one replays rows.
        if source or _recorded(self) or workflow in ("", "scored_candidates"):
            return Origin.RECORDED
        return Origin.RECIPE if workflow == "preference_data" else Origin.WORKFLOW


def is_our_card(path: Path) -> bool:
    """Whether this package wrote the card."""
    try:
        return f"<!-- {_MARK} -->" in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def card_text(facts: CardFacts) -> str:
    """The whole README.md."""
    block = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{block}---\n\n<!-- {_MARK} -->\n" + "\n".join(_body(facts)) + "\n"


def _metadata(facts: CardFacts) -> dict[str, object]:
    about = facts.about
    # `datasets` cannot load a configuration without rows.
    filled = [one for one in facts.formats if one.has_rows]
    language = {"language": list(about.languages)} if about.languages else {}
    return {
        "license": about.license,
        **language,
        "pretty_name": about.title,
        "task_categories": ["text-generation"],
        "size_categories": [size_category(sum(facts.pairs.values()))],
        "tags": ["dpo", "preference", "rlhf", *([] if facts.origin is Origin.RECORDED else ["synthetic"]), _MARK],
        "configs": _configs(filled),
        "dataset_info": [_info(one) for one in filled if one.format.columns is not None],
    }


def size_category(rows: int) -> str:
    """The hub's name for so many rows."""
    if rows < _SIZES[0][0]:
        return "n<1K"
    named = ((above, below) for above, below in pairwise(_SIZES) if rows < below[0])
    above, below = next(named, (_SIZES[-1], None))
    return f"n>{above[1]}" if below is None else f"{above[1]}<n<{below[1]}"


def _configs(formats: Sequence[WrittenFormat]) -> list[dict[str, object]]:
    # `datasets` reads all files of a folder the same way.
    is_parquet = all(one.parquet for one in formats)
    return [
        _config(one, one.parquet if is_parquet else one.lines, is_default=place == 0)
        for place, one in enumerate(formats)
    ]


def _config(written: WrittenFormat, files: Mapping[SplitName, WrittenFile], *, is_default: bool) -> dict[str, object]:
    # `datasets` cannot read a JSONL file without rows.
    splits = [{"split": str(side), "path": file.path} for side, file in files.items() if file.rows]
    return {
        "config_name": written.format.name,
        "data_files": splits,
        **({"default": True} if is_default else {}),
    }


def _info(one: WrittenFormat) -> dict[str, object]:
    columns = one.format.columns or {}
    if one.has_calls and one.format.takes_calls:
        # What calls hold differs from row to row, which `datasets` reads as JSON from 4.7 on.
        features = [_feature(name, column) for name, column in {**columns, "tools": "string"}.items()]
        features = [{"name": found["name"], "list": "json"} if "list" in found else found for found in features]
    else:
        features = [_feature(name, column) for name, column in columns.items()]
    return {"config_name": one.format.name, "features": features}


def _feature(name: str, column: Column) -> dict[str, object]:
    return {"name": name, **_typed(column)}


def _typed(column: Column) -> dict[str, object]:
    if isinstance(column, str):
        return {"dtype": column}
    if isinstance(column, list):
        inner = column[0]
        return {"list": inner if isinstance(inner, str) else _typed(inner).get("struct", _typed(inner))}
    return {"struct": [_feature(name, inner) for name, inner in column.items()]}


def _body(facts: CardFacts) -> Iterator[str]:
    yield f"# {_plain(facts.about.title)}"
    yield ""
    yield (
        "Pairs of answers to the same prompt, the chosen one with the strictly higher score. Made with "
        "nat-dpo-pipeline; `manifest.json` holds the whole configuration, the versions and the SHA-256 of each file."
    )
    yield from ("", "## How it was made", "", *_made(facts))
    yield from ("", "## What is in it", "", *_contents(facts))
    yield from _training(facts.formats)
    yield from ("", "## What was left out", "", *_left_out(facts.skipped))
    yield from ("", "## Limits", "", _LIMITS[facts.origin], _TERMS)
    yield from ("", "## Citation", "", _CITATION)
    if facts.origin is Origin.RECIPE:
        yield _RECIPE_CITATION


_LIMITS = {
    Origin.RECIPE: "The answers are synthetic and were not checked by people; a score is the opinion of a reward model "
    "or a judge.",
    Origin.WORKFLOW: "The answers were made by the workflow and were not checked by people; prompts and answers may "
    "hold what users said.",
    Origin.RECORDED: "The answers and their scores were recorded elsewhere and were not checked; they may hold what "
    "users said.",
}
_TERMS = "The terms of the models that wrote them apply to their use."


def _recorded(facts: CardFacts) -> list[Mapping[str, object]]:
    files = facts.configuration.get("recorded")
    return [file for file in files if isinstance(file, Mapping)] if isinstance(files, list) else []


def _workflow(facts: CardFacts) -> str:
    workflow = facts.configuration.get("workflow")
    kind = workflow.get("_type", workflow.get("type")) if isinstance(workflow, Mapping) else workflow
    return str(kind or "")


def _made(facts: CardFacts) -> Iterator[str]:
    if facts.origin is not Origin.RECORDED:
        yield f"- Workflow: `{_plain(_workflow(facts))}`"
        for name, model in _items(facts.configuration.get("llms")):
            yield f"- Model `{name}`: {_listed(model)}"
    files = _recorded(facts)
    for file in files[:_MOST_FILES]:
        # The name alone: the folders of a machine concern nobody else.
        kind = f", {file['format']}" if file.get("format") else ""
        yield f"- Recorded candidates: `{_plain(Path(str(file.get('path'))).name)}`{kind}"
    if (more := len(files) - _MOST_FILES) > 0:
        yield f"- and {more:,} more files of recorded candidates"
    builder = facts.configuration.get("trajectory_builder")
    if isinstance(builder, Mapping):
        yield f"- Pairs: {_listed(builder)}"
    yield f"- Split by prompt, seed {facts.seed}: no prompt is on both sides, also when it differs in white space only."


def _contents(facts: CardFacts) -> Iterator[str]:
    yield ", ".join(f"{count:,} pairs in {side}" for side, count in facts.pairs.items()) + "."
    yield from ("", "| format | file | rows | read by |", "|---|---|---|---|")
    for one in facts.formats:
        for file in (*one.lines.values(), *one.parquet.values()):
            if file.rows:
                yield f"| `{one.format.name}` | `{file.path}` | {file.rows:,} | {one.format.read_by} |"
        for file in one.extra:
            yield f"| `{one.format.name}` | `{file.path}` |  | {one.format.read_by} |"
    if empty := ", ".join(f"`{one.format.name}`" for one in facts.formats if not one.has_rows):
        yield from ("", f"Formats without any row, which `load_dataset` does not know: {empty}.")
    first = next((one.format.name for one in facts.formats if one.has_rows), None)
    if first is not None:
        yield from (
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            f'dataset = load_dataset("…", "{first}")',
            "```",
        )


def _training(formats: Iterable[WrittenFormat]) -> Iterator[str]:
    files = [one.training for one in formats if one.training is not None]
    if files:
        yield from ("", "## How to train on it", "", "In this folder:")
    for file in files:
        yield from ("", f"- `{file.format}`, by `{file.path}`. First: {file.needs}.", "", "  ```sh")
        yield from (f"  {command}" for command in file.commands)
        yield "  ```"


def _left_out(skipped: Mapping[str, object]) -> Iterator[str]:
    rows = [(stage, reasons) for stage, reasons in _items(skipped) if reasons]
    if not rows:
        yield "Nothing."
    for stage, reasons in rows:
        yield f"- {_plain(stage)}: {_listed(reasons)}"


def _items(values: object) -> Iterable[tuple[str, object]]:
    return [(str(name), value) for name, value in values.items()] if isinstance(values, Mapping) else []


def _listed(values: object) -> str:
    shown = [
        f"{_plain(name)} {_plain(value)}" for name, value in _items(values) if isinstance(value, str | int | float)
    ]
    return ", ".join(shown) or "nothing told"


def _plain(value: object) -> str:
    """On one line, without what Markdown or HTML would read."""
    text = " ".join(str(value).split()).encode(errors="replace").decode()
    return text.translate({ord(character): None for character in "<>`|"})

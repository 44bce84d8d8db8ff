"""The reference speaks of all there is, and of nothing else."""

import importlib.util
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import pytest

from nat_dpo_pipeline import errors
from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.pairs import SkipReason
from nat_dpo_pipeline.dataset.formats.format import RowRefusal
from nat_dpo_pipeline.generation.record import FailureReason
from nat_dpo_pipeline.report.dangers import DangerKind

DOCS = Path(__file__).parents[1] / "docs"
ERRORS = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")


def _first_cells(title: str) -> set[str]:
    """What stands in code in the first column of the table under a heading."""
    section = ERRORS.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(
    ("title", "reasons"),
    [
        ("Why a candidate is refused", RefusalReason),
        ("Why two candidates of a turn are no pair", SkipReason),
        ("Why something did not become a candidate", FailureReason),
        ("Why a row is not in a format", RowRefusal),
        ("What the report warns of", DangerKind),
    ],
)
def test_every_reason_is_explained(title: str, reasons: Iterable[StrEnum]) -> None:
    assert _first_cells(title) == {str(reason) for reason in reasons}


def test_every_error_is_explained() -> None:
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    known = {name for name, value in classes.items() if issubclass(value, Exception)} - {"DPOPipelineError"}
    assert _first_cells("Errors") == known


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """What makes the pages of the reference when the site is built."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "hooks" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_of_every_component_is_explained(reference: ModuleType) -> None:
    page = reference.configuration()
    named = set(re.findall(r"^### (`.*`)$", page, re.MULTILINE))
    types = {name for one in named for name in re.findall(r"`(\w+)`", one)}
    assert types >= {"preference_data", "dpo_demo", "dpo_traj_builder", "dpo_pipeline_traj_builder", "dpo_trainer"}
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if not row.rsplit("|", 2)[1].strip()] == []
    # As YAML has it, where that is another name than Python's.
    assert [row.split("|")[1].strip() for row in rows if "`best`, `first`" in row] == ["`return`"]
    # A link to a setting that is described further down leads somewhere.
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) == set(re.findall(r"\{#([^}]+)\}", page))


def test_every_command_says_what_it_does(reference: ModuleType) -> None:
    page = reference.commands()
    assert set(re.findall(r"^## `nat dpo (\w+)`$", page, re.MULTILINE)) == set(dpo.commands)
    assert page.count("Usage: nat dpo ") == len(dpo.commands)

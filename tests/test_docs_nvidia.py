"""Every defect in the table names a test that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (D\d\d) \|(.*)\|$", (ROOT / "docs" / "nvidia.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_all_defects_are_in_the_table() -> None:
    assert [name for name, _ in ROWS] == [f"D{number:02}" for number in range(1, 30)]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_the_tests_of_a_defect_are_there(name: str, row: str) -> None:
    named = re.findall(r"`(tests/[^`]+)::(test_\w+)`", row)
    assert named, f"{name} names no test"
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert test in there, f"{file} has no {test}"

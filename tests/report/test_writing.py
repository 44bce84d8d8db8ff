"""Whatever a run holds, its report is written, and says the same in all its parts."""

import json
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.cli.report import run_report, written
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from tests.report.odd_runs import OddRun, odd_runs

_JSON = re.compile(r'<script type="application/json" (?:id|class)="(\w+)">(.*?)</script>', re.DOTALL)
_builders = st.builds(
    BuilderSettings, pair_flawed=st.booleans(), drop_contradictions=st.booleans(), exhaustive_pairs=st.booleans()
)


@settings(max_examples=40)
@given(odd_runs(), _builders)
def test_whatever_is_in_a_run_its_report_agrees_with_it(run: OddRun, builder: BuilderSettings) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        dataset = run.write(folder, builder)
        written(folder)
        run_report(folder, None, text=True)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
        _agrees(report, run, dataset.pairs.values())
        _page_agrees((folder / "report.html").read_text(encoding="utf-8"), report)
        for file in folder.rglob("*.json*"):
            for line in [file.read_bytes()] if file.suffix == ".json" else file.read_bytes().splitlines():
                parse_json(line)


def _agrees(report: dict[str, Any], run: OddRun, pairs: Any) -> None:
    flow = report["flow"]
    assert flow["responses"] == run.responses
    assert flow["possible_pairs"] == flow["pairs"] + sum(flow["left_out"].values())
    assert report["flaws"]["counts"] == run.flaws
    failed = sum((Counter(reasons) for reasons in report["run"]["failed"].values()), Counter[str]())
    assert failed == Counter(str(one.reason) for one in run.failures)
    assert report["run"]["train_pairs"] + report["run"]["validation_pairs"] == sum(pairs)


def _page_agrees(page: str, report: dict[str, Any]) -> None:
    found = [(name, json.loads(text)) for name, text in _JSON.findall(page)]
    numbers, index = dict(found)["numbers"], dict(found)["index"]
    assert numbers == {name: value for name, value in report.items() if name != "warnings"}
    assert index["pairReasons"].count(0) == report["flow"]["pairs"]
    shown = sum(len(chunk) for name, chunk in found if name == "chunk")
    assert shown == len(index["turnSubtopics"])

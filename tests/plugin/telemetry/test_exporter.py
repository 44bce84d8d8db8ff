"""Candidates that a workflow emits are in the file when the step is over, whatever they hold and however it ends."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from nat.builder.context import Context, ContextState
from nat.data_models.evaluator import EvalInputItem
from nat.data_models.intermediate_step import IntermediateStep, StreamEventData
from nat.observability.exporter_manager import ExporterManager
from nat.utils.reactive.subject import Subject

from nat_dpo_pipeline.core.redaction import PLACEHOLDER
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.plugin.capture import emit_candidates, turn
from nat_dpo_pipeline.plugin.exporter_config import CandidateExporterConfig
from nat_dpo_pipeline.plugin.nat_api import IntermediateStepPayload, IntermediateStepType, TTCEventData
from nat_dpo_pipeline.plugin.register import dpo_candidates
from nat_dpo_pipeline.plugin.telemetry.evaluation_items import EvaluationItems
from nat_dpo_pipeline.plugin.telemetry.exporter import CandidateExporter

Row = dict[str, Any]
Make = Callable[..., CandidateExporter]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recorded" / "candidates.jsonl"


@pytest.fixture
def make_exporter(path: Path) -> Make:
    def make(**settings: object) -> CandidateExporter:
        return CandidateExporter(CandidateExporterConfig.model_validate({"path": path, **settings}))

    return make


@asynccontextmanager
async def _running(
    exporter: CandidateExporter, run_id: str | None = "run", given: object = "in"
) -> AsyncIterator[None]:
    """What NAT does around a run of a workflow."""
    with Context.scope(workflow_run_id=run_id, input_message=given):
        state = ContextState.get()
        state.event_stream.set(Subject())
        async with ExporterManager.from_exporters({"candidates": exporter}).start(state):
            yield


def _rows(path: Path) -> list[Row]:
    files = sorted(path.parent.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


async def test_a_candidate_is_a_flat_row_of_the_contract(make_exporter: Make, path: Path) -> None:
    async with _running(make_exporter()):
        async with turn(prompt="Which move?", turn_id="t", turn_index=3) as candidates:
            candidates.add("e4", score=0.4, model="m", attributes={"truth": 1.5}, metadata={"topic": "chess"})
        # Before the run is over.
        (row,) = _rows(path)
    when = row.pop("recorded_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", when)
    assert row == {
        "run_id": "run",
        "example_id": "run",
        "turn_id": "t",
        "turn_index": 3,
        "candidate_index": 0,
        "prompt": [{"role": "user", "content": "Which move?"}],
        "response": "e4",
        "score": 0.4,
        "model": "m",
        "attributes": {"truth": 1.5},
        "metadata": {"topic": "chess"},
        "input": "in",
        "step_name": "dpo_candidate_move",
    }


async def test_what_is_recorded_becomes_pairs(make_exporter: Make, path: Path, tmp_path: Path) -> None:
    exporter = make_exporter(max_bytes=2_000)
    for number in range(20):
        async with _running(exporter, f"run-{number}"):
            emit_candidates(prompt=f"q {number}", responses=["a", "b", "c"], scores=[1, 2, None], turn_id="turn-0")
    exporter.log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) > 3
    settings = BuilderSettings(), SplitSettings(validation_fraction=0.0), DatasetSettings()
    found = pair_as_set(list(map(str, files)), str(tmp_path / "out"), settings)
    assert (found.candidates, found.turns, found.refused) == (40, 20, {"missing_score": 20})
    rows = [json.loads(line) for line in (tmp_path / "out" / "trl" / "train.jsonl").read_text().splitlines()]
    pairs = {(row["prompt"][0]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows}
    assert pairs == {(f"q {number}", "b", "a") for number in range(20)}


async def test_only_the_steps_of_the_given_names_are_recorded(make_exporter: Make, path: Path) -> None:
    async with _running(make_exporter(ttc_step_name=["mine", "also mine"])):
        for name in ("mine", "also mine", "dpo_candidate_move"):
            emit_candidates(prompt="p", responses=[name], scores=[1], step_name=name)
    assert [(row["response"], row["step_name"]) for row in _rows(path)] == [("mine",) * 2, ("also mine",) * 2]


async def test_four_hundred_of_four_hundred_also_of_runs_that_fail(make_exporter: Make, path: Path) -> None:
    exporter, places = make_exporter(max_bytes=10_000), asyncio.Semaphore(8)

    async def run(number: int) -> None:
        async with places, _running(exporter, f"run-{number}", {"number": number}):
            emit_candidates(prompt=f"q {number}", responses=["a", "b"], scores=[1, 2])
            await asyncio.sleep(0)
            if number % 3 == 0:
                raise ZeroDivisionError
            if number % 3 == 1:
                raise asyncio.CancelledError

    await asyncio.gather(*(run(number) for number in range(200)), return_exceptions=True)
    rows = _rows(path)
    assert len(rows) == 400
    assert len({row["run_id"] for row in rows}) == 200
    assert all(row["run_id"] == f"run-{row['input']['number']}" for row in rows)
    assert all(row["prompt"][0]["content"] == f"q {row['input']['number']}" for row in rows)


async def test_threads_and_tasks_of_a_run_are_in_it(make_exporter: Make, path: Path) -> None:
    def emit(name: str) -> None:
        emit_candidates(prompt="p", responses=[name], scores=[1])

    async with _running(make_exporter()):
        await asyncio.gather(*(asyncio.to_thread(emit, str(number)) for number in range(20)))
    assert {row["response"] for row in _rows(path)} == {str(number) for number in range(20)}
    assert {row["run_id"] for row in _rows(path)} == {"run"}


def _item(name: object, given: object) -> EvalInputItem:
    return EvalInputItem(id=name, input_obj=given, expected_output_obj="", full_dataset_entry={})


async def test_an_evaluation_tells_which_item_a_run_is_of(make_exporter: Make, path: Path) -> None:
    exporter = make_exporter()
    items = [_item("q1", ["first"]), _item(2, ["second"]), _item("", ["no id"])]
    EvaluationItems().on_dataset_loaded(dataset_name="d", items=items)
    for number, given in enumerate([*(item.input_obj for item in items), ["of no item"]]):
        async with _running(exporter, f"run-{number}", given):
            emit_candidates(prompt="p", responses=["a"], scores=[1])
    assert [(row.get("item_id"), row["example_id"]) for row in _rows(path)] == [
        ("q1", "q1"),
        ("2", "2"),
        (None, "run-2"),
        (None, "run-3"),
    ]


async def test_items_whose_inputs_cannot_be_told_apart_have_no_id(make_exporter: Make, path: Path) -> None:
    given = "X"
    EvaluationItems().on_dataset_loaded(dataset_name="d", items=[_item("q1", given), _item("q2", given)])
    async with _running(make_exporter(), given=given):
        emit_candidates(prompt="p", responses=["a"], scores=[1])
    assert [row["example_id"] for row in _rows(path)] == ["run"]


async def test_without_a_run_there_is_still_an_example(make_exporter: Make, path: Path) -> None:
    async with _running(make_exporter(), run_id=None, given=None):
        emit_candidates(prompt="p", responses=["a"], scores=[1])
    (row,) = _rows(path)
    assert row["example_id"] == ""
    assert not {"run_id", "item_id", "input"} & set(row)


@pytest.mark.parametrize("score", [None, float("nan"), float("inf")])
async def test_what_has_no_finite_score_is_recorded_without_one(
    make_exporter: Make, path: Path, as_delivered: Callable[..., IntermediateStep], score: float | None
) -> None:
    data = TTCEventData(turn_id="t", candidate_index=0, input="p", output="a").model_copy(update={"score": score})
    async with _running(make_exporter()):
        make_exporter().export(as_delivered(data))
    (row,) = _rows(path)
    assert row["score"] is None
    assert (row["prompt"], row["response"]) == ("p", "a")


_UNFIT: list[dict[str, object]] = [
    {"output": "half a pair \ud83d"},
    {"output": {"content": "", "tool_calls": [{"id": "1"}]}},
    {"output": object()},
    {"input": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
    {"input": SimpleNamespace(messages="none")},
    {"turn_id": None},
    {"candidate_index": "third"},
]


@pytest.mark.parametrize("changes", [*_UNFIT, {}])
async def test_what_a_reader_will_refuse_is_recorded_as_it_is(
    make_exporter: Make, path: Path, make_step: Callable[..., IntermediateStep], changes: dict[str, object]
) -> None:
    step = make_step()
    step.payload.data = StreamEventData.model_validate({**step.payload.data.model_dump(), **changes})  # type: ignore[union-attr]
    step.payload.metadata = {"score": float("nan"), "held": object(), "text": "\ud83d", 3: {1, 2}}  # type: ignore[dict-item]
    exporter = make_exporter()
    exporter.export(step)
    (row,) = _rows(path)
    assert row["metadata"]["score"] is None
    assert row["metadata"]["text"] == "\ud83d"
    assert row["metadata"]["3"] == [1, 2]
    if changes.get("output") and isinstance(changes["output"], str | dict):
        assert row["response"] == changes["output"]
    assert exporter.log.lost == 0


async def test_a_step_without_data_is_recorded(
    make_exporter: Make, path: Path, as_delivered: Callable[..., IntermediateStep]
) -> None:
    make_exporter().export(as_delivered(None))
    (row,) = _rows(path)
    assert row["score"] is None
    assert (row["prompt"], row["response"]) == (None, None)


def test_other_steps_are_not_even_looked_at(make_exporter: Make, path: Path) -> None:
    make_exporter().export(SimpleNamespace(payload=SimpleNamespace(event_type=IntermediateStepType.LLM_END)))  # type: ignore[arg-type]
    assert not path.exists()


class _Broken:
    @property
    def data(self) -> object:
        raise ZeroDivisionError("what a step may do")

    event_type = IntermediateStepType.TTC_END
    name = "dpo_candidate_move"


async def test_nothing_in_a_step_ends_the_workflow(make_exporter: Make, caplog: pytest.LogCaptureFixture) -> None:
    exporter = make_exporter()
    exporter.export(SimpleNamespace(payload=_Broken()))  # type: ignore[arg-type]
    assert exporter.log.lost == 1
    assert any("what a step may do" in told for told in caplog.messages)


async def test_a_conversation_is_recorded_without_the_response_it_ends_with(make_exporter: Make, path: Path) -> None:
    step_data = TTCEventData(
        turn_id="t",
        input=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        output="a",
        score=1,
    )
    payload = IntermediateStepPayload(
        event_type=IntermediateStepType.TTC_END, name="dpo_candidate_move", data=step_data
    )
    make_exporter().export(SimpleNamespace(payload=payload))  # type: ignore[arg-type]
    assert _rows(path)[0]["prompt"] == [{"role": "user", "content": "q"}]


async def test_what_is_to_be_redacted_is_nowhere_in_the_file(make_exporter: Make, path: Path) -> None:
    exporter = make_exporter(
        redact=[r"[\w.]+@[\w.]+", r"sk-\w+"], redact_fields=["metadata.user", "input.token", "metadata.model"]
    )
    given = {"token": "T0K3N", "text": "from ann@example.org"}
    async with _running(exporter, given=given), turn(prompt="I am ann@example.org. What is sk-abc?") as candidates:
        metadata = {"user": {"name": "Ann"}, "ann@example.org": ["sk-abc"], "topic": "t"}
        candidates.add("Your key is sk-abc.", score=1.0, model="m", attributes={"truth": 0.5}, metadata=metadata)
    (row,) = _rows(path)
    assert not [secret for secret in ("ann@", "sk-", "T0K3N", "Ann") if secret in repr(row)]
    assert row["prompt"][0]["content"] == f"I am {PLACEHOLDER} What is {PLACEHOLDER}?"
    assert row["response"] == f"Your key is {PLACEHOLDER}."
    assert row["metadata"] == {"user": PLACEHOLDER, PLACEHOLDER: [PLACEHOLDER], "topic": "t"}
    assert row["input"] == {"token": PLACEHOLDER, "text": f"from {PLACEHOLDER}"}
    assert row["model"] == PLACEHOLDER
    assert row["attributes"] == {"truth": 0.5}


async def test_a_sample_holds_whole_runs(make_exporter: Make, path: Path) -> None:
    exporter = make_exporter(sample_rate=0.3)
    for number in range(300):
        async with _running(exporter, f"run-{number}"):
            emit_candidates(prompt="p", responses=["a", "b", "c"], scores=[1, 2, 3])
    counts: dict[str, int] = {}
    for row in _rows(path):
        counts[row["run_id"]] = counts.get(row["run_id"], 0) + 1
    assert set(counts.values()) == {3}
    assert 60 < len(counts) < 120


async def test_a_place_that_cannot_be_written_to_is_told_at_the_start_and_the_workflow_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = CandidateExporterConfig(path=tmp_path / "file" / "candidates.jsonl")
    config.path.parent.touch()
    async with asynccontextmanager(dpo_candidates)(config, Mock()) as exporter:
        assert len(caplog.messages) == 1
        assert isinstance(exporter, CandidateExporter)
        async with _running(exporter):
            emit_candidates(prompt="p", responses=["a", "b"], scores=[1, 2])
        assert len(caplog.messages) == 1
    assert caplog.messages[-1] == f"2 candidates were not recorded in {config.path}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"redact": ["("]}, "dpo_candidates.redact.0 is '(': not a regular expression"),
        ({"redact": ["x*"]}, "dpo_candidates.redact.0 is 'x*': matches the empty text"),
        ({"redact_fields": ["score"]}, "dpo_candidates.redact_fields.0 is 'score': must be one of prompt"),
        ({"redact_fields": ["metadata."]}, "dpo_candidates.redact_fields.0 is 'metadata.': must be one of prompt"),
        ({"sample_rate": 0}, "dpo_candidates.sample_rate is 0"),
        ({"max_bytes": 0}, "dpo_candidates.max_bytes is 0"),
        ({"ttc_step_name": []}, "dpo_candidates.ttc_step_name is []: must name the steps to record"),
        ({"ttc_step_name": ["mine", ""]}, "must name the steps to record"),
        ({"path": "."}, "dpo_candidates.path is '.': must name a file, not a folder"),
        ({"paths": "x"}, "dpo_candidates has no 'paths'; did you mean 'path'?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        CandidateExporterConfig.model_validate(settings)

"""How a generation run is shared; tests/test_generate_on_ray.py runs one."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord, ModelUsage, StepProgress
from nat_dpo_pipeline.plugin.commands.generation import Outcome, RunStatus
from nat_dpo_pipeline.plugin.distributed import (
    GenerationWorker,
    Source,
    WorkerState,
    merge,
    shares_of,
    sharing_limits,
)
from nat_dpo_pipeline.plugin.workflow_config import DemoModelConfig, PreferenceDataConfig
from nat_dpo_pipeline.plugin.workflows.recipe import limits_of


@given(st.lists(st.text(max_size=2)), st.integers(1, 5))
def test_every_input_is_of_one_worker_in_order_and_equal_texts_stay_together(texts: list[str], workers: int) -> None:
    inputs = [(f"input-{number}", text) for number, text in enumerate(texts)]
    shares = shares_of(inputs, workers)
    assert len(shares) == min(workers, len(set(texts)))
    assert Counter(one for share in shares for one in share) == Counter(inputs)
    assert all(share == sorted(share, key=inputs.index) for share in shares)
    assert sum(len({text for _, text in share}) for share in shares) == len(set(texts))
    # No worker has more than one distinct text more than another.
    distinct = [len({text for _, text in share}) for share in shares]
    assert max(distinct, default=0) - min(distinct, default=0) <= 1


def _workflow(**settings: object) -> PreferenceDataConfig:
    return PreferenceDataConfig.model_validate({"writer_llm": "writer", "reward_llm": "reward", **settings})


@given(st.integers(1, 6), st.integers(6, 40), st.floats(0.5, 1e4), st.integers(6, 10**6))
def test_workers_together_ask_for_no_more_than_one_may(
    workers: int, concurrency: int, requests: float, tokens: int
) -> None:
    own = {"max_concurrency": concurrency, "requests_per_minute": requests, "tokens_per_minute": tokens}
    workflow = _workflow(limits={"reward": own}, max_concurrency=7)
    shared = sharing_limits(workflow, workers)
    llm = DemoModelConfig(model_name="demo/stdlib-reward")
    for name in ("writer", "reward"):
        whole, part = (limits_of(name, llm, one) for one in (workflow, shared))
        assert 1 <= part.max_concurrency <= whole.max_concurrency / workers
        assert (part.requests_per_minute or 0) * workers <= (whole.requests_per_minute or 0) * (1 + 1e-9)
        assert (part.tokens_per_minute or 0) * workers <= (whole.tokens_per_minute or 0)
        assert (part.max_retries, part.max_wait_seconds) == (whole.max_retries, whole.max_wait_seconds)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_concurrency": 2}, "max_concurrency"),
        ({"limits": {"reward": {"tokens_per_minute": 2}}}, "tokens_per_minute"),
    ],
)
def test_a_limit_that_is_too_small_to_share_is_told(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"3 workers cannot share the {named} of '\\w+', which is 2"):
        sharing_limits(_workflow(**settings), 3)
    with pytest.raises(ValidationError):
        _workflow(max_concurrency=0)


def _left(folder: Path, *names: str) -> Outcome:
    """What a worker leaves, with a row and a failure for each input."""
    folder.mkdir(parents=True)
    rows = [{"example_id": name, "turn_id": f"question-{number}"} for name in names for number in range(2)]
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "failures.jsonl").write_text("".join(json.dumps({"subject": name}) + "\n" for name in names))
    record = GenerationRecord(counts=Counter(candidates=len(rows)), lost=1)
    record.add(Failure("rewards", names[0], FailureReason.MODEL_ERROR, "no answer"))
    record.usage[("rewards", "reward")] = ModelUsage("model", requests=len(rows), prompt_tokens=10)
    record.progress["rewards"] = StepProgress(done=len(rows))
    return Outcome(RunStatus.INCOMPLETE if "c" in names else RunStatus.COMPLETE, record, folder)


def test_what_workers_leave_is_merged_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    outcomes = [_left(tmp_path / "0", "a", "c"), _left(tmp_path / "1", "b")]
    record = GenerationRecord()
    with RunFolder(tmp_path / "run") as folder:
        merged = merge(outcomes, [tmp_path / "0", tmp_path / "1"], ["a", "b", "c", "without-rows"], folder, record)
        folder.write_candidates()
    rows = [json.loads(line) for line in (tmp_path / "run" / "candidates.jsonl").read_text().splitlines()]
    assert [(row["example_id"], row["turn_id"]) for row in rows] == [
        (name, f"question-{number}") for name in "abc" for number in range(2)
    ]
    failures = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["subject"] for line in failures] == ["a", "c", "b"]
    assert merged.status is RunStatus.INCOMPLETE
    assert (record.counts["candidates"], record.lost) == (6, 2)
    assert record.skips() == {"rewards": {"model_error": 2}}
    assert record.usage == {("rewards", "reward"): ModelUsage("model", requests=6, prompt_tokens=20)}
    assert record.progress == {"rewards": StepProgress(done=6)}


async def test_a_configuration_that_a_worker_cannot_use_is_told_by_what_runs_it(tmp_path: Path) -> None:
    """Ray tells of what a constructor raises only that a worker died."""
    worker = GenerationWorker(Source(tmp_path / "elsewhere.yml"), [("a", "Text")], 1, tmp_path / "run")
    assert await worker.state() == WorkerState({}, {})
    with pytest.raises(ConfigurationError, match=r"elsewhere.yml' cannot be used"):
        await worker.run()

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.config import Config
from nat.data_models.finetuning import (
    DPOItem,
    EpisodeItem,
    EpisodeItemRole,
    FinetuneConfig,
    FinetuneRunConfig,
    OpenAIMessage,
    TrainingJobRef,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryCollection,
)
from nat.data_models.function import FunctionBaseConfig
from nat.llm.openai_llm import OpenAIModelConfig

from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.errors import OutputError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.dataset_adapter import DatasetTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.submissions import SPLIT_KEY, PairSubmission, by_side, decoded, held_out_prompts
from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
)
from nat_dpo_pipeline.report.summary import CollectionReport


def _trajectory(prompt: object, *, side: str | None = None, chosen: str = "good") -> Trajectory:
    metadata = {"example_id": "e", "turn_id": "t", "chosen_score": 2.0, "rejected_score": 1.0}
    item = DPOItem.model_validate({"prompt": prompt, "chosen_response": chosen, "rejected_response": "bad"})
    return Trajectory(episode=[item], reward=1.0, metadata=metadata | ({SPLIT_KEY: side} if side else {}))


def _collection(trajectories: Iterable[Trajectory]) -> TrajectoryCollection:
    return TrajectoryCollection(trajectories=[list(trajectories)], run_id="run")


async def _adapter(folder: Path, run_config: FinetuneConfig, **settings: Any) -> DatasetTrainerAdapter:
    adapter = DatasetTrainerAdapter(DatasetTrainerAdapterConfig(output_dir=folder, **settings))
    await adapter.initialize(run_config)
    return adapter


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trl" / f"{name}.jsonl").read_text().splitlines()]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _prompts(folder: Path, name: str) -> set[str]:
    return {row["prompt"][0]["content"] for row in _rows(folder, name)}


def _split(trajectories: list[Trajectory], **settings: Any) -> dict[SplitName, list[PreferenceRow]]:
    config = DatasetTrainerAdapterConfig(output_dir=Path("unused"), **settings)
    pairs = decoded(_collection(trajectories))
    held_out = held_out_prompts(pairs, config.validation_fraction, config.seed, stratify=config.stratify)
    return by_side((pair.row for pair in pairs), held_out)


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


async def test_pairs_become_a_dataset(
    tmp_path: Path, run_config: FinetuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = await _adapter(tmp_path / "out", run_config)
    messages = [OpenAIMessage(role="system", content="Be brief."), OpenAIMessage(role="user", content="Why?")]
    with caplog.at_level(logging.INFO, "nat_dpo_pipeline"):
        ref = await adapter.submit(
            _collection([_trajectory(messages, side="train"), _trajectory("How?", side="train")])
        )
    assert _rows(tmp_path / "out", "train") == [
        {
            "prompt": prompt,
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
            "chosen_score": 2.0,
            "rejected_score": 1.0,
            "example_id": "e",
            "turn_id": "t",
        }
        for prompt in (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
            [{"role": "user", "content": "How?"}],
        )
    ]
    assert _rows(tmp_path / "out", "validation") == []
    assert (ref.run_id, ref.backend) == ("run", "dataset")
    files = [str(tmp_path / "out" / name) for name in ("trl/train.jsonl", "trl/validation.jsonl", "manifest.json")]
    _, *told, how_to_train = caplog.messages[-1].splitlines()
    assert [line.split()[0] for line in told] == files
    assert how_to_train == f"  to train with trl, in {tmp_path / 'out'}: trl dpo --config trl/dpo.yaml"


async def test_the_trainers_split_is_kept(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path, run_config, validation_fraction=0.9)
    sides = {"a": "train", "b": "validation", "c": "train", "d": "train"}
    await adapter.submit(_collection(_trajectory(prompt, side=side) for prompt, side in sides.items()))
    assert _prompts(tmp_path, "train") == {"a", "c", "d"}
    assert _prompts(tmp_path, "validation") == {"b"}


async def test_what_no_trainer_split_is_split_by_prompt(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path, run_config, validation_fraction=0.3, seed=5)
    trajectories = [_trajectory(f"prompt {n}", chosen=f"good {m}") for n in range(10) for m in range(3)]
    await adapter.submit(_collection(trajectories))
    held_out = _prompts(tmp_path, "validation")
    assert len(held_out) == 3
    assert not held_out & _prompts(tmp_path, "train")
    assert len(_rows(tmp_path, "validation")) == 9
    assert len(_rows(tmp_path, "train")) == 21


@given(
    prompts=st.lists(st.text(), min_size=1),
    sides=st.lists(st.none() | st.sampled_from(["train", "validation"])),
    fraction=st.floats(0, 0.99),
    seed=st.integers(),
)
def test_no_row_is_lost_and_no_unmarked_prompt_is_on_both_sides(
    prompts: list[str], sides: list[str | None], fraction: float, seed: int
) -> None:
    marks = dict(zip(map(prompt_key, prompts), sides, strict=False))
    trajectories = [_trajectory(prompt, side=marks.get(prompt_key(prompt))) for prompt in prompts]
    split = _split(trajectories, validation_fraction=fraction, seed=seed)
    assert sum(map(len, split.values())) == len(prompts)
    keys = {name: {prompt_key(row.prompt) for row in rows} for name, rows in split.items()}
    assert not keys[SplitName.TRAIN] & keys[SplitName.VALIDATION]
    assert split == _split(trajectories, validation_fraction=fraction, seed=seed)


@pytest.mark.parametrize(
    "trajectories",
    [[], [Trajectory(episode=[EpisodeItem(role=EpisodeItemRole.USER, content="Why?")], reward=1.0)]],
)
async def test_without_pairs_nothing_is_written(
    tmp_path: Path, run_config: FinetuneConfig, trajectories: list[Trajectory]
) -> None:
    adapter = await _adapter(tmp_path / "out", run_config)
    with pytest.raises(TrainingError, match="no preference pair"):
        await adapter.submit(_collection(trajectories))
    assert _names(tmp_path / "out") == set()


async def test_an_output_that_cannot_be_written_fails_before_the_work(
    tmp_path: Path, run_config: FinetuneConfig
) -> None:
    (tmp_path / "out").write_text("a file in the way")
    adapter = DatasetTrainerAdapter(DatasetTrainerAdapterConfig(output_dir=tmp_path / "out"))
    with pytest.raises(OutputError, match=f"cannot write to '{tmp_path / 'out'}'"):
        await adapter.initialize(run_config)
    assert not await adapter.is_healthy()


async def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path, run_config: FinetuneConfig) -> None:
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl" / "precious.jsonl").write_text("{}")
    with pytest.raises(OutputError, match="was not written by this package"):
        await _adapter(tmp_path, run_config)
    assert (tmp_path / "trl" / "precious.jsonl").exists()


async def test_a_dataset_of_ours_is_replaced(tmp_path: Path, run_config: FinetuneConfig) -> None:
    for prompt in ("first", "second"):
        adapter = await _adapter(tmp_path, run_config)
        assert await adapter.is_healthy()
        await adapter.submit(_collection([_trajectory(prompt)]))
    assert _prompts(tmp_path, "train") == {"second"}
    assert _names(tmp_path) == {".lock", "README.md", "manifest.json", "trl"}


async def test_the_job_is_complete_as_long_as_its_dataset_is_there(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path / "out", run_config)
    ref = await adapter.submit(_collection([_trajectory("Why?")]))
    for status in (await adapter.status(ref), await adapter.wait_until_complete(ref)):
        assert status.status is TrainingStatusEnum.COMPLETED
        assert status.progress == 100.0
        assert str(tmp_path / "out") in (status.message or "")
    shutil.rmtree(tmp_path / "out")
    status = await adapter.wait_until_complete(ref, poll_interval=1e9)
    assert status.status is TrainingStatusEnum.FAILED
    assert status.progress is None
    assert "manifest.json" in (status.message or "")


async def test_the_status_of_a_job_of_somebody_else_is_failed(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path, run_config)
    status = await adapter.status(TrainingJobRef(run_id="other", backend="dataset"))
    assert status.status is TrainingStatusEnum.FAILED


async def test_progress_is_one_json_line(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path / "out", run_config)
    ref = await adapter.submit(_collection([_trajectory("Why?")]))
    adapter.log_progress(ref, {"pairs": 1})
    adapter.log_progress(ref, {"pairs": 2}, output_dir=str(tmp_path / "elsewhere"))
    for folder, pairs in ((run_config.output_dir, 1), (tmp_path / "elsewhere", 2)):
        (line,) = (folder / "dataset_trainer_adapter_run.jsonl").read_text().splitlines()
        entry = json.loads(line)
        assert (entry["run_id"], entry["pairs"]) == ("run", pairs)
        assert entry["job"]["output_dir"] == str(tmp_path / "out")


async def test_the_manifest_says_what_the_files_hold(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path, run_config, seed=11, validation_fraction=0.5)
    await adapter.submit(_collection(_trajectory(f"prompt {n}") for n in range(4)))
    manifest = _manifest(tmp_path)
    assert manifest["seed"] == 11
    assert manifest["counts"] == {"train_pairs": 2, "validation_pairs": 2}
    assert {"python", "nat-dpo-pipeline", "nvidia-nat", "openai", "pydantic"} <= set(manifest["versions"])
    assert manifest["configuration"]["trainer_adapter"]["validation_fraction"] == 0.5
    assert manifest["skipped"] == {}
    for file in manifest["files"]:
        content = (tmp_path / file["path"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert (file["size"], file["rows"]) == (len(content), 2 if file["path"].endswith(".jsonl") else 0)


async def test_the_manifest_says_what_the_trainer_knows(tmp_path: Path, run_config: FinetuneConfig) -> None:
    adapter = await _adapter(tmp_path, run_config, seed=11)
    report = CollectionReport(
        candidates=5,
        refused=Counter({"missing_score": 1}),
        skipped=Counter({"tie": 2}),
        failed={"rewards": Counter({"model_error": 3})},
    )
    submission = PairSubmission.of(_collection([_trajectory("Why?")]))
    known = {"report": report, "seed": 3, "dropped": {"duplicate_pairs": 4}}
    await adapter.submit(submission.model_copy(update=known))
    manifest = _manifest(tmp_path)
    assert manifest["seed"] == 3
    assert manifest["report"]["candidates"] == 5
    assert manifest["skipped"] == {
        "candidates": {"missing_score": 1},
        "pairs": {"tie": 2},
        "rewards": {"model_error": 3},
        "trainer": {"duplicate_pairs": 4},
    }


SECRET = "nvapi-do-not-write-me-down"


class SearchingWorkflowConfig(FunctionBaseConfig, name="workflow_of_a_test_with_a_key"):
    api_key: str
    prompt_key: str = "prompt"


@pytest.fixture
def run_with_secrets(tmp_path: Path) -> FinetuneConfig:
    """As `nat finetune` makes it, of a configuration with a key in an llm entry and one in the workflow's."""
    llm = {
        "model_name": "writer-1",
        "api_key": SECRET,
        "base_url": f"https://user:{SECRET}@example.com/v1",
        "temperature": 0.5,
        "default_headers": {"Authorization": SECRET},
        "extra_body": {"token": SECRET},
    }
    sections = {
        "llms": {"writer": OpenAIModelConfig.model_validate(llm)},
        "workflow": SearchingWorkflowConfig(api_key=SECRET),
        "trajectory_builders": {"pairs": DPOTrajectoryBuilderConfig(min_score_diff=0.25)},
        "trainers": {"trainer": DPOTrainerConfig(seed=9)},
    }
    config = Config().model_copy(update=sections)
    finetuning = FinetuneConfig(output_dir=tmp_path / "run", trainer="trainer", trajectory_builder="pairs")
    finetuning.run_configuration = FinetuneRunConfig(config_file=config)
    return finetuning


async def test_the_manifest_holds_the_configuration_without_secrets(
    tmp_path: Path, run_with_secrets: FinetuneConfig
) -> None:
    adapter = await _adapter(tmp_path / "out", run_with_secrets)
    await adapter.submit(_collection([_trajectory("Why?")]))
    configuration = _manifest(tmp_path / "out")["configuration"]
    assert configuration["llms"] == {"writer": {"type": "openai", "model_name": "writer-1", "temperature": 0.5}}
    assert configuration["trajectory_builder"]["min_score_diff"] == 0.25
    assert configuration["trainer"]["seed"] == 9
    assert configuration["trainer_adapter"]["output_dir"] == str(tmp_path / "out")
    assert configuration["workflow"]["api_key"] == "***"
    assert configuration["workflow"]["prompt_key"] == "prompt", "its name only looks like a secret's"
    assert SECRET not in (tmp_path / "out" / "manifest.json").read_text()


@pytest.mark.parametrize(
    "sides",
    [("train", "validation"), ("train", None), (None, "validation"), (["train"], "train"), ("test", "train")],
)
def test_marks_that_do_not_make_a_split_are_left_aside(sides: tuple[object, object]) -> None:
    trajectories = [_trajectory("same"), _trajectory("same", chosen="other"), _trajectory("different")]
    for trajectory, side in zip(trajectories, (*sides, "train"), strict=True):
        trajectory.metadata = {**(trajectory.metadata or {}), SPLIT_KEY: side}
    splits = _split(trajectories, validation_fraction=0.5)
    prompts = {name: {prompt_key(row.prompt) for row in rows} for name, rows in splits.items()}
    assert prompts[SplitName.TRAIN].isdisjoint(prompts[SplitName.VALIDATION])
    assert sum(map(len, splits.values())) == 3
    assert all(splits.values())


def _of_subtopic(prompt: str, subtopic: str, side: str | None) -> Trajectory:
    trajectory = _trajectory(prompt, side=side)
    facts = {"subtopic": subtopic, "llm": "writer", "attributes": {"helpfulness": 3.0}}
    trajectory.metadata = {**(trajectory.metadata or {}), "chosen_raw_metadata": facts, "rejected_raw_metadata": facts}
    return trajectory


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_stratified_split_takes_its_share_of_every_subtopic(is_marked: bool) -> None:
    """A trainer's own draw only says how many prompts are held out."""
    trajectories = [
        _of_subtopic(f"{subtopic} {n}", subtopic, ("validation" if n < 8 and subtopic == "tea" else "train"))
        for subtopic, count in (("tea", 24), ("milk", 8))
        for n in range(count)
    ]
    if not is_marked:
        trajectories = [
            _of_subtopic(f"{subtopic} {n}", subtopic, None) for subtopic in ("tea", "milk") for n in range(8)
        ]
    splits = _split(trajectories, validation_fraction=0.5, stratify=True)
    held_out = Counter(row.subtopic for row in splits[SplitName.VALIDATION])
    assert held_out == ({"tea": 6, "milk": 2} if is_marked else {"tea": 4, "milk": 4})


async def test_several_formats_are_written_at_once(tmp_path: Path, run_config: FinetuneConfig) -> None:
    formats = ["openai", "trl", "kto", "steerlm"]
    settings = {"formats": formats, "parquet": True, "license": "cc-by-4.0", "title": "Tea", "languages": ["en"]}
    adapter = await _adapter(tmp_path, run_config, **settings)
    ref = await adapter.submit(_collection([_trajectory("Why?", side="train")]))
    assert _names(tmp_path) == {".lock", "README.md", "manifest.json", *formats}
    assert (tmp_path / "trl" / "train.parquet").is_file()
    assert {"openai/training.jsonl", "trl/train.parquet", "kto/train.jsonl"} <= set((ref.metadata or {})["files"])
    assert _manifest(tmp_path)["skipped"] == {"rows_steerlm": {"no_attributes": 2}}
    card = (tmp_path / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "# Tea" in card


def test_an_unknown_format_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="formats: there is no format 'trll'; there are trl,"):
        DatasetTrainerAdapterConfig(output_dir=Path("x"), formats=["trll"])
    with pytest.raises(ValueError, match="name a format at least"):
        DatasetTrainerAdapterConfig(output_dir=Path("x"), formats=[])

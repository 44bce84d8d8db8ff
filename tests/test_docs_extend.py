"""The package that the guide shows is found, and each of its parts is used."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from nat.data_models.finetuning import DPOItem, FinetuneConfig, TrainingStatusEnum, Trajectory, TrajectoryCollection
from pydantic import ValidationError

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName, formats_named
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.saved_job import read_saved_job
from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig
from nat_dpo_pipeline.plugin.workflows.scorer_settings import scorer_of

GUIDE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("site")
    (toml,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    groups = tomllib.loads(toml)["project"]["entry-points"]
    broken = {
        "nat_dpo_pipeline.formats": {"missing": "my_package.extras:MISSING", "odd": "my_package.extras:Shortness"}
    }
    lines: list[str] = []
    for group, names in groups.items():
        both = {**names, **broken.get(group, {})}
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in both.items())]
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines))
    package = folder / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "extras.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
    for name in ("my_package", "my_package.extras"):
        sys.modules.pop(name, None)


def test_a_format_is_written(tmp_path: Path) -> None:
    rows = {SplitName.TRAIN: [PreferenceRow("Why?", "So.", "No.")], SplitName.VALIDATION: []}
    written = write_dataset(tmp_path / "out", rows, Provenance(0, {}, skipped={}), Target(("tab_separated", "trl")))
    text = (written.folder / "tab_separated" / "train.jsonl").read_text()
    assert json.loads(text) == {"text": "So.\tNo."}
    write_dataset(tmp_path / "out", rows, Provenance(0, {}, skipped={}), Target(("trl",)))
    assert not (tmp_path / "out" / "tab_separated").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tabs", "there is no format 'tabs'; there are trl, .*, missing, odd, tab_separated"),
        ("missing", "'missing' of the entry points nat_dpo_pipeline.formats cannot be imported: .*MISSING"),
        ("odd", "'odd' of the entry points nat_dpo_pipeline.formats is no Format: <class"),
    ],
)
def test_a_format_that_is_none_is_refused_in_a_line(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        formats_named([name])


async def test_a_scorer_is_opened_out_of_a_configuration() -> None:
    given = {"writer_llm": "writer", "scorer": {"kind": "shortness", "best": 3}}
    config = PreferenceDataConfig.model_validate(given).scorer_config()

    async def no_function(_: str) -> object:
        raise AssertionError

    scorer = config.open(lambda _: pytest.fail("it asks no model"), no_function)
    score = await scorer.score((Message("user", "Why?"),), "So it is.", lambda _: None)  # type: ignore[union-attr]
    assert score.value == -6
    assert list(config.asks(lambda _: pytest.fail("it asks no model"))) == []
    with pytest.raises(ValueError, match="ShortnessConfig has no 'bst'; did you mean 'best'"):
        scorer_of({"kind": "shortness", "bst": 3})
    with pytest.raises(ValidationError, match=r"no scorer of kind 'length'; there are .*, ensemble, shortness"):
        PreferenceDataConfig.model_validate({**given, "scorer": {"kind": "length"}})


async def test_a_back_end_trains_and_its_job_is_found_again(tmp_path: Path) -> None:
    from my_package.extras import MyTrainerAdapterConfig  # type: ignore[import-not-found]

    config = MyTrainerAdapterConfig(poll_interval=0.001)
    adapter = BackendTrainerAdapter(config, config.backend())
    await adapter.initialize(FinetuneConfig(output_dir=tmp_path))
    item = DPOItem(prompt="Why?", chosen_response="So.", rejected_response="No.")
    collection = TrajectoryCollection(trajectories=[[Trajectory(episode=[item], reward=1.0)]], run_id="run")
    ref = await adapter.submit(collection)
    status = await adapter.wait_until_complete(ref)
    assert (status.status, status.metadata["result"]) == (TrainingStatusEnum.COMPLETED, "my-model")
    saved = read_saved_job(tmp_path)
    assert saved.ref.metadata == {"job_id": "job-1", "pairs": 1}
    assert type(saved.config()) is MyTrainerAdapterConfig

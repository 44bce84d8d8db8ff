import json
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.atif import check_scores
from nat_dpo_pipeline.records.places import Place


def _trajectories(folder: Path, *names: dict[str, str]) -> list[Place]:
    paths = []
    for place, name in enumerate(names):
        steps = [{"source": "user", "message": "Hi"}, {"source": "agent", "message": "Hello"}]
        item: dict[str, Any] = {"schema_version": "ATIF-v1.7", "steps": steps, **name}
        paths.append(folder / f"{place}.json")
        paths[-1].write_text(json.dumps(item))
    return [Place(str(path)) for path in paths]


@pytest.mark.parametrize("key", ["trajectory_id", "session_id"])
def test_one_match_is_enough(tmp_path: Path, key: str) -> None:
    check_scores({"b": 1}, _trajectories(tmp_path, {key: "a"}, {key: "b"}))


def test_an_item_of_an_evaluation_is_matched_by_its_id(tmp_path: Path) -> None:
    (place,) = _trajectories(tmp_path, {"session_id": "x"})
    Path(place.path).write_text(json.dumps({"item_id": 7, "trajectory": json.loads(place.read())}))
    check_scores({"7": 1}, [place])


def test_a_table_without_a_match_is_an_error_with_the_first_ids_of_both(tmp_path: Path) -> None:
    paths = _trajectories(tmp_path, *({"session_id": f"session-{one}"} for one in range(5)))
    with pytest.raises(InputError) as error:
        check_scores({f"run-{one}": 1.0 for one in range(5)}, paths)
    said = str(error.value)
    assert "the first ids of the table are 'run-0', 'run-1', 'run-2', those of the trajectories 'session-0'," in said
    assert "'run-3'" not in said
    assert "\n" not in said


def test_without_a_table_or_trajectories_there_is_nothing_to_match(tmp_path: Path) -> None:
    check_scores({}, _trajectories(tmp_path, {"session_id": "a"}))
    check_scores({"a": 1}, [])

import json
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.report.training import Curves, is_training, read_training, training_page, write_training_report

FIGURES = {
    "held_out_accuracy_before": 0.5,
    "held_out_accuracy_after": 0.9,
    "held_out_margin_before": 0.1,
    "held_out_margin_after": 12.5,
    "held_out_pairs": 40,
    "held_out_prompts": 8,
}
RESULT = {
    "sentence": "learned: held-out preference accuracy 0.50 → 0.90",
    "learned": True,
    "figures": FIGURES,
    "training": {"pairs": 300, "steps": 20, "first_loss": 0.6931},
    "model": {"base": "tiny"},
    "settings": {"model": "tiny", "loss_type": ["sigmoid", "sft"], "lora": {"r": 8, "merge": True}, "max_steps": None},
    "versions": {"trl": "1.16.0"},
}
LINES = (
    {"step": 1, "loss": 0.69, "rewards/accuracies": 0.0},
    {"step": 10, "loss": 0.4, "rewards/accuracies": 0.75},
    {"step": 10, "eval_accuracy": 0.7, "eval_margin": 5.0},
    {"step": 20, "eval_accuracy": 0.8, "eval_margin": 11.0},
)


def _folder(path: Path, *lines: str, **changes: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps(RESULT | changes))
    (path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in (*map(json.dumps, LINES), *lines)))
    return path


def test_the_curves_begin_before_the_training_and_end_after_it(tmp_path: Path) -> None:
    assert read_training(_folder(tmp_path)).curves == Curves(
        loss=((1, 0.69), (10, 0.4)),
        training_accuracy=((1, 0.0), (10, 0.75)),
        held_out_accuracy=((0, 0.5), (10, 0.7), (20, 0.9)),
        held_out_margin=((0, 0.1), (10, 5.0), (20, 12.5)),
    )


def test_settings_are_told_in_words_and_what_is_not_set_is_not(tmp_path: Path) -> None:
    assert dict(read_training(_folder(tmp_path)).settings) == {
        "model": "tiny",
        "loss_type": "sigmoid, sft",
        "lora": "r 8, merge true",
    }


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        f'{{"step": {10**30}, "loss": 3, "other": NaN}}',
        '{"step": "1", "loss": 3}',
        '{"loss": 3}',
        '{"step": 30, "loss": null}',
    ],
)
def test_a_damaged_line_is_passed_over(tmp_path: Path, line: str) -> None:
    assert read_training(_folder(tmp_path, line)).curves.loss == ((1, 0.69), (10, 0.4))


def test_without_held_out_pairs_there_is_a_page_all_the_same(tmp_path: Path) -> None:
    folder = _folder(tmp_path, figures={}, learned=None, sentence="not known whether it learned")
    page = training_page(read_training(folder))
    assert "not known whether it learned" in page
    assert "held-out pairs ranked right" not in page


@pytest.mark.parametrize("steps", [1e300, -1e300])
def test_more_steps_than_a_page_can_hold_cost_no_page(tmp_path: Path, steps: float) -> None:
    assert training_page(read_training(_folder(tmp_path, training={"steps": steps})))


@pytest.mark.parametrize("gone", FIGURES)
def test_a_figure_that_is_missing_costs_no_page(tmp_path: Path, gone: str) -> None:
    figures = {name: value for name, value in FIGURES.items() if name != gone}
    assert training_page(read_training(_folder(tmp_path, figures=figures)))


def test_what_the_worker_wrote_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    folder = _folder(tmp_path, sentence=evil, model={"base": evil}, settings={evil: evil}, versions={"x": evil})
    assert "<script>alert(1)" not in write_training_report(folder).read_text()


def test_a_folder_is_a_training_when_it_has_a_result(tmp_path: Path) -> None:
    assert not is_training(tmp_path)
    assert is_training(_folder(tmp_path))


def test_a_result_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (_folder(tmp_path) / "result.json").write_text("{")
    with pytest.raises(InputError, match="holds no training that can be read"):
        read_training(tmp_path)

"""The page of a local training: the learning curves, what was measured before and after, and what that means."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import mapping, numbers
from nat_dpo_pipeline.dataset.files import check_writable, replace_file
from nat_dpo_pipeline.errors import InputError, OutputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.report.document import json_for_html, page
from nat_dpo_pipeline.report.paired import clean

# More is damage, and no number that a page holds exactly.
_MOST_STEPS = 2**53
RESULT, METRICS, PAGE = "result.json", "metrics.jsonl", "report.html"

Point = tuple[int, float]
_Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Curves:
    """Values by training step. Accuracies are shares of pairs with the chosen answer ahead; margins are in nats."""

    loss: tuple[Point, ...] = ()
    training_accuracy: tuple[Point, ...] = ()
    held_out_accuracy: tuple[Point, ...] = ()
    held_out_margin: tuple[Point, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "loss": self.loss,
            "trainingAccuracy": self.training_accuracy,
            "heldOutAccuracy": self.held_out_accuracy,
            "heldOutMargin": self.held_out_margin,
        }


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What the worker left in its folder; None is what it did not measure."""

    name: str
    sentence: str
    learned: bool | None
    figures: Mapping[str, float]
    training: Mapping[str, float]
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    curves: Curves


def is_training(folder: Path) -> bool:
    """Whether a local training left its result there."""
    return (folder / RESULT).is_file() and (folder / METRICS).is_file()


def read_training(folder: Path) -> TrainingRun:
    """Raises InputError when the result cannot be read; a damaged line of the curves is passed over."""
    try:
        result = parse_json((folder / RESULT).read_bytes())
        lines = (folder / METRICS).read_bytes().splitlines()
    except (OSError, InputError) as error:
        raise InputError(f"{str(folder)!r} holds no training that can be read: {error}") from error
    found = mapping(result)
    figures, training = numbers(found.get("figures")), numbers(found.get("training"))
    learned = found.get("learned")
    return TrainingRun(
        name=clean(str(mapping(found.get("model")).get("base") or folder.resolve().name)),
        sentence=clean(str(found.get("sentence") or "the training did not end")),
        learned=learned if isinstance(learned, bool) else None,
        figures=figures,
        training=training,
        settings=_texts(found.get("settings")),
        versions=_texts(found.get("versions")),
        curves=_curves(list(_read(lines)), figures, int(max(0, min(training.get("steps", 0), _MOST_STEPS)))),
    )


def write_training_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of the training in `folder`, to `output` or there. Raises InputError and OutputError."""
    text = training_page(read_training(folder))
    path = output or folder / PAGE
    check_writable(path.parent)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise OutputError(f"cannot write the report to {str(path)!r}: {error}") from error
    return path


def training_page(run: TrainingRun) -> str:
    """The page, whole."""
    return "".join(page("training.html.j2", "training.js", run=run, curves=json_for_html(run.curves.to_json())))


def _read(lines: list[bytes]) -> Iterator[_Json]:
    for line in lines:
        try:
            found = parse_json(line)
        except InputError:
            continue
        if isinstance(found, dict) and isinstance(step := found.get("step"), int) and abs(step) < _MOST_STEPS:
            yield found


def _curves(logged: list[_Json], figures: Mapping[str, float], last: int) -> Curves:
    def curve(name: str) -> tuple[Point, ...]:
        return tuple(
            (step, number)
            for line in logged
            if isinstance(step := line["step"], int) and (number := finite_number(line.get(name))) is not None
        )

    def with_ends(name: str, measured: str) -> tuple[Point, ...]:
        ends = ((0, f"held_out_{measured}_before"), (last, f"held_out_{measured}_after"))
        found = {step: figures[figure] for step, figure in ends if figure in figures}
        return tuple(sorted((dict(curve(name)) | found).items()))

    return Curves(
        loss=curve("loss"),
        training_accuracy=curve("rewards/accuracies"),
        held_out_accuracy=with_ends("eval_accuracy", "accuracy"),
        held_out_margin=with_ends("eval_margin", "margin"),
    )


def _texts(value: object) -> dict[str, str]:
    return {clean(name): clean(_said(one)) for name, one in mapping(value).items() if one is not None}


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return str(value).lower() if isinstance(value, bool) else str(value)

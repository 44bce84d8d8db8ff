"""Which checkpoint a training goes on from. TRL takes the one with the highest number, whole or not."""

import json
import re
import shutil
import zipfile
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")
_INDEX = "model.safetensors.index.json"
#: What torch saves is a zip file, whose directory is at its end: a file that was cut off is none.
_TORCH_FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth")
_SCALER = "scaler.pt"
_SECONDS_BETWEEN = 600.0


def is_due(seconds_since_last: float, step: int, steps: int) -> bool:
    """Whether it is time for one where nobody said after how many steps: after so long that writing it, many seconds
    for a billion weights, costs little. None is due after the last step, whose model is written at once."""
    return seconds_since_last >= _SECONDS_BETWEEN and step < steps


def newest_valid(folder: Path) -> Path | None:
    """The checkpoint with the highest step that a training can go on from; None: there is none."""
    return next((path for path in _newest_first(folder) if damage(path) is None), None)


def remove_damaged(folder: Path) -> dict[str, str]:
    """Remove checkpoints that nobody can go on from, and say why each was; they would push out the good ones."""
    damaged = {path: reason for path in _newest_first(folder) if (reason := damage(path)) is not None}
    for path in damaged:
        shutil.rmtree(path)
    return {path.name: reason for path, reason in damaged.items()}


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which it was written."""
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise ValueError(f"{checkpoint.name!r} is not the name of a checkpoint")
    return int(match[1])


def damage(checkpoint: Path) -> str | None:
    """Why a training cannot go on from it, or None. `trainer_state.json` is written last."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        if state["global_step"] != step_of(checkpoint):
            return f"trainer_state.json is of step {state['global_step']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "trainer_state.json is missing or damaged"
    for name in _TORCH_FILES:
        if not zipfile.is_zipfile(checkpoint / name):
            return f"{name} is missing or damaged"
    # Of a training in fp16 alone.
    if (checkpoint / _SCALER).exists() and not zipfile.is_zipfile(checkpoint / _SCALER):
        return f"{_SCALER} is damaged"
    return _damaged_weights(checkpoint)


def _damaged_weights(checkpoint: Path) -> str | None:
    found = {path.name for path in checkpoint.glob("*.safetensors")}
    try:
        index = checkpoint / _INDEX
        expected = set(json.loads(index.read_bytes())["weight_map"].values()) if index.exists() else found
    except (OSError, ValueError, KeyError, AttributeError):
        return f"{_INDEX} is damaged"
    if not found or expected - found:
        return "weights are missing"
    return next((f"{name} is damaged" for name in sorted(found) if not _is_whole(checkpoint / name)), None)


def _is_whole(weights: Path) -> bool:
    """Whether the header parses and the tensors it names end where the file ends.

    The format: https://github.com/huggingface/safetensors, "Format". Read here because the check must not load torch.
    """
    try:
        with weights.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > weights.stat().st_size:
                return False
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
    return bool(ends) and 8 + length + max(ends) == weights.stat().st_size


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)

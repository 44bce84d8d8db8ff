"""The door from Python: rows, frames or files of scored answers to pairs, and back to frames or files."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from weakref import finalize

from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.dataset.writer import WrittenDataset
from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.json_text import json_line
from nat_dpo_pipeline.pairing.api import Settings, pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.options import PairedFiles
from nat_dpo_pipeline.strict import checked

Row = dict[str, Any]
_FORMAT = "trl"
#: Column of `Pairs.to_arrow` and its like: `train` or `validation`.
SPLIT = "split"


def pair(
    source: object,
    *,
    prompt: str | None = None,
    response: str | None = None,
    score: str | None = None,
    group: str | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    deduplicate_pairs: bool = True,
    max_pairs: int | None = None,
    **rules: Any,
) -> "Pairs":
    """Pair scored answers: those of the same prompt, and of the same group where there are groups, compete.

    `source` holds rows: an iterable of mappings, a frame of pandas or polars, a table of Arrow, or a
    `datasets.Dataset`; or the path, pattern or URI of files of recorded candidates in any format, or several of these.
    Columns with usual names are known (docs/recorded_candidates.md); `prompt`, `response`, `score` and `group` name
    others, and `map={...}` every other role. `rules` are the fields of `dpo_traj_builder`, such as `strategy` and
    `min_score_diff`. The pairs, and the sides they are on, are those of `nat dpo pairs`.

    Raises ConfigurationError for rules that cannot be, and InputError for a source without these columns.
    """
    named = {"prompt": prompt, "response": response, "score": score, "group": group}
    columns = {role: name for role, name in named.items() if name is not None} | (rules.pop("map", None) or {})
    builder = checked(BuilderSettings, {"seed": seed, "map": columns or None, **rules})
    rest = {"seed": seed, "deduplicate_pairs": deduplicate_pairs, "max_pairs": max_pairs}
    split = checked(SplitSettings, {**rest, "validation_fraction": validation_fraction})
    return Pairs(source, (builder, split, DatasetSettings(formats=[_FORMAT])))


class Pairs:
    """Pairs of a train and a validation side. Their rows are those of TRL: lists of messages with role and content.

    `result` counts what was read, paired and left out. The files behind the pairs go with the object.
    """

    def __init__(self, source: object, settings: Settings) -> None:
        """Pair a source; see `pair`."""
        self._folder = Path(mkdtemp(prefix="nat-dpo-"))
        finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._settings = settings
        self._inputs = _files(source, self._folder)
        self.result: PairedFiles = pair_as_set(self._inputs, str(self._folder / "pairs"), settings)

    def __len__(self) -> int:
        return sum(self.result.pairs.values())

    def __iter__(self) -> Iterator[Row]:
        yield from self.train
        yield from self.validation

    def __repr__(self) -> str:
        sides = ", ".join(f"{count:,} {side}" for side, count in self.result.pairs.items())
        return f"<{len(self):,} pairs ({sides}) of {self.result.candidates:,} candidates>"

    @cached_property
    def train(self) -> list[Row]:
        """The rows to train on."""
        return self._rows(SplitName.TRAIN)

    @cached_property
    def validation(self) -> list[Row]:
        """The rows of the prompts that are held out."""
        return self._rows(SplitName.VALIDATION)

    def _rows(self, side: SplitName) -> list[Row]:
        path = self._folder / "pairs" / _FORMAT / f"{side}.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def to_arrow(self) -> Any:
        """Return all rows as a table of Arrow, with a column `split`."""
        pyarrow = _imported("pyarrow", "nat-dpo-pipeline[scale]")
        sides = {SplitName.TRAIN: self.train, SplitName.VALIDATION: self.validation}
        return pyarrow.Table.from_pylist([{**row, SPLIT: str(side)} for side, rows in sides.items() for row in rows])

    def to_pandas(self) -> Any:
        """Return all rows as a frame of pandas, with a column `split`."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """Return all rows as a frame of polars, with a column `split`."""
        return _imported("polars", "polars").from_arrow(self.to_arrow())

    def to_datasets(self) -> Any:
        """Return a `datasets.DatasetDict` that TRL's trainers take; a side without rows is left out of it."""
        datasets = _imported("datasets", "datasets")
        sides = {SplitName.TRAIN: self.train, SplitName.VALIDATION: self.validation}
        return datasets.DatasetDict(
            {str(side): datasets.Dataset.from_list(rows) for side, rows in sides.items() if rows}
        )

    def write(self, folder: str | Path, formats: Sequence[str] = (_FORMAT,), **adapter: Any) -> WrittenDataset:
        """Write the dataset that `nat dpo pairs` writes, in formats of docs/datasets.md.

        `adapter` are more fields of `dataset_trainer_adapter`. Raises ConfigurationError and OutputError.
        """
        builder, split, _ = self._settings
        chosen = checked(DatasetSettings, {"formats": list(formats), **adapter})
        result = pair_as_set(self._inputs, str(folder), (builder, split, chosen), with_candidates=True)
        assert result.dataset is not None  # noqa: S101 - of a run in this process
        return result.dataset


def _files(source: object, folder: Path) -> list[str]:
    """Return files that are named, or else one with the rows."""
    if isinstance(source, str | Path):
        return [str(source)]
    if isinstance(source, list | tuple) and source and all(isinstance(one, str | Path) for one in source):
        return list(map(str, source))
    table = _table(source)
    if table is not None:
        path = folder / "rows.parquet"
        _imported("pyarrow.parquet", "nat-dpo-pipeline[scale]").write_table(table, path)
    elif isinstance(source, Iterable):
        path = folder / "rows.jsonl"
        with path.open("wb") as file:
            file.writelines(json_line(_row(row)) for row in source)
    else:
        raise InputError(f"no rows in {type(source).__name__}: give rows, a frame, a table, a Dataset, or a path")
    return [str(path)]


def _row(row: object) -> Mapping[str, object]:
    if not isinstance(row, Mapping):
        raise InputError(f"a row must be a mapping, got {type(row).__name__}: {row!r:.80}")
    return row


def _table(source: object) -> Any:
    """Return a frame as a table of Arrow; None for what is none."""
    if hasattr(source, "__arrow_c_stream__"):
        return _imported("pyarrow", "nat-dpo-pipeline[scale]").table(source)
    # A datasets.Dataset; a DatasetDict has the method, and no features of its own.
    return source.with_format("arrow")[:] if hasattr(source, "features") and hasattr(source, "with_format") else None


def _imported(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(f"this needs {module.partition('.')[0]}: pip install '{package}'") from error

"""A NAT dataset of rows: JSONL or JSON, read line by line so that one bad row does not cost the others."""

import json
from collections.abc import Iterator
from pathlib import Path

from nat_dpo_pipeline.dataset.input_rows import is_json, unused_name
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_document, parse_json
from nat_dpo_pipeline.plugin.nat_api import EvalInput, EvalInputItem


def load_rows(file_path: str | Path, id_key: str = "id") -> EvalInput:
    """Rows as workflow inputs (their JSON text), for `dataset: {_type: custom, function: ….load_rows}`.

    A line that is not JSON goes to the workflow as it is, which counts it with its reason. Raises InputError for a
    file that cannot be read or holds no rows.
    """
    path = Path(file_path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the dataset {str(path)!r}: {error}; "
            "name another with --dataset or eval.general.dataset.file_path"
        ) from error
    used: set[str] = set()
    items = [_item(row, _unique_id(row, number, id_key, used)) for number, row in _rows(text)]
    if not items:
        raise InputError(f"the dataset {str(path)!r} holds no rows")
    return EvalInput(eval_input_items=items)


def _rows(text: str) -> Iterator[tuple[int, str]]:
    if text.lstrip().startswith("[") and (rows := _listed(text)) is not None:
        yield from enumerate((json.dumps(row, ensure_ascii=False) for row in rows), start=1)
        return
    # Only \n ends a line: JSON text may hold other characters that str.splitlines takes for line ends.
    yield from ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def _listed(text: str) -> list[object] | None:
    """The rows of a JSON list; None for lines of which the first happens to hold a list."""
    try:
        return list(parse_document(text))
    except InputError as error:
        if is_json(text.strip().split("\n", 1)[0]):
            return None
        raise InputError(f"the dataset starts like a JSON list, but is none: {error}") from error


def _unique_id(row: str, number: int, id_key: str, used: set[str]) -> str:
    """The row's id, or `row-<number>`; NAT drops rows whose id it has seen, so a repeated id gets a suffix."""
    try:
        name = str(parse_json(row)[id_key])
    except (InputError, KeyError, TypeError):
        name = f"row-{number}"  # what is wrong with the row is for the workflow to say
    return unused_name(name, used)


def _item(row: str, name: str) -> EvalInputItem:
    return EvalInputItem(
        id=name,
        input_obj=row,
        expected_output_obj="",
        output_obj="",
        trajectory=[],
        expected_trajectory=[],
        full_dataset_entry={},
    )

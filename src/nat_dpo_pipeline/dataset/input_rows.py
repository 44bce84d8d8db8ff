"""A file of topics, questions or messages: JSON, JSONL or plain lines."""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_document, parse_json

#: Keys whose text is read like an input on the command line, as `nat eval` does with its `question`.
_TEXT_KEYS = ("question", "input")


def read_inputs(
    path: Path, *, id_key: str = "id", text_key: str | None = None, used: set[str] | None = None
) -> Iterator[tuple[str, str]]:
    """The inputs as id and text, read as they are asked for (a JSON list is read whole).

    A row is a text or an object with `text_key`, `topic`, `question`, `input` or `messages`; its id, or
    `row-<number>`, is made unique, also among those `used` before. A line that looks like JSON and is none goes on as
    something that no reader of inputs accepts. Raises InputError for a file that cannot be read.
    """
    taken = set() if used is None else used
    text_keys = _TEXT_KEYS if text_key is None else (text_key, *_TEXT_KEYS)
    for number, row in enumerate(_rows(path), start=1):
        name = row.get(id_key) if isinstance(row, dict) else None
        yield unused_name(str(name) if name not in (None, "") else f"row-{number}", taken), _text(row, text_keys)


def _rows(path: Path) -> Iterator[object]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            first, second = _first_lines(file)
            file.seek(0)
            # Lines of message lists start with a bracket too, but the first of them is JSON by itself.
            if first.startswith("[") and not (second and is_json(first)):
                yield from _listed(path, file.read())
            else:
                yield from (_row(line) for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the inputs in {str(path)!r}: {error}") from error


def _first_lines(lines: Iterable[str]) -> tuple[str, str]:
    filled = (line.strip() for line in lines if line.strip())
    return next(filled, ""), next(filled, "")


def _listed(path: Path, text: str) -> list[object]:
    try:
        rows = parse_document(text)
    except InputError as error:
        raise InputError(f"{str(path)!r} starts like a JSON list, but is none: {error}") from error
    is_one_conversation = all(isinstance(row, dict) and "role" in row for row in rows)
    return [rows] if rows and is_one_conversation else list(rows)


def _row(line: str) -> object:
    text = line.strip()
    try:
        return parse_json(text)
    except InputError:
        # A topic that starts with a brace is a broken row more often than a topic.
        return {"not JSON": text} if text.startswith("{") else text


def is_json(text: str) -> bool:
    """Whether the text is JSON, of any kind."""
    try:
        parse_json(text)
    except InputError:
        return False
    return True


def _text(row: object, keys: Iterable[str]) -> str:
    if isinstance(row, str):
        return row
    if isinstance(row, dict) and not ({"topic", "messages"} & row.keys()):
        for key in keys:
            if isinstance(row.get(key), str):
                return str(row[key])
    return json.dumps(row, ensure_ascii=False)


def unused_name(name: str, used: set[str]) -> str:
    """`name`, with a number behind it when it is among those that are `used`, which it is from then on."""
    unused = next(one for one in _with_suffixes(name) if one not in used)
    used.add(unused)
    return unused


def _with_suffixes(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}#{number}" for number in count(2))

"""The prompts of an evaluation set: JSON, JSONL or plain lines."""

from collections.abc import Iterator
from pathlib import Path

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json

_KEYS = ("prompt", "question", "instruction", "problem", "query", "input", "text", "messages", "turns")


def read_evaluation_texts(path: Path) -> Iterator[str]:
    """What the rows of the file ask: a text, or an object with one of the usual keys, holding texts or messages.

    What an assistant says in messages is left out. Raises InputError for a file that cannot be read and for a row
    without any of the keys.
    """
    for number, row in enumerate(_rows(path), start=1):
        texts = list(_texts(row))
        if not texts:
            held = f"an object with {', '.join(map(repr, row))}" if isinstance(row, dict) else f"{row!r:.80}"
            raise InputError(f"{str(path)!r}, row {number}: nothing asked in {held}; expected {', '.join(_KEYS)}")
        yield from texts


def _rows(path: Path) -> Iterator[object]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the evaluation set {str(path)!r}: {error}") from error
    whole = _json(text)
    if isinstance(whole, list | dict):
        yield from whole if isinstance(whole, list) else [whole]
        return
    # Not splitlines: texts hold other line ends, such as U+2028, as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _row(path, number, line.strip())


def _row(path: Path, number: int, line: str) -> object:
    row = _json(line)
    if isinstance(row, str | list | dict):
        return row
    if line.startswith("{"):
        raise InputError(f"{str(path)!r}, line {number}: starts like a JSON object, but is none: {line!r:.80}")
    return line


def _json(text: str) -> object:
    try:
        return parse_json(text)
    except InputError:
        return None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict) and "role" in value:
        if value["role"] != "assistant":
            yield from _texts(value.get("content"))
    elif isinstance(value, dict):
        for key in _KEYS:
            yield from _texts(value.get(key))

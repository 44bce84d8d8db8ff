"""Damage to files, drawn: what disks, editors, crashes, other tools and ill will do to bytes."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.yaml_text import parse_yaml

# JSON as it stands, of which Python's own writer makes only some.
ODD_VALUES = (
    *(
        "null",
        "true",
        "0",
        "-1",
        "1e999",
        "-0.0",
        "NaN",
        "-Infinity",
        "1" * 25,
        "9" * 400,
        "9" * 5000,
        "9223372036854775808",
    ),
    *(
        '""',
        '" "',
        '"\\ud83d"',
        '"\\u0000"',
        '"\\u001b[2J\\r\\u202e\\u2028"',
        '"NaN"',
        '"1e400"',
        '"%s"' % ("9" * 4301),
    ),
    *(
        "[]",
        "{}",
        "[[]]",
        "[null]",
        '["a", 1]',
        '{"": null}',
        '{"\\ud83d": 1}',
        '{"a": {"a": {"a": []}}}',
        '"%s"' % ("long " * 20_000),
    ),
    *("[" * depth + "]" * depth for depth in (90, 195, 205, 600, 1100, 60_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (90, 195, 205, 600, 1100)),
    *('[{"role": "user"}]', '[{"role": null, "content": 1}]', '[{"role": "tool", "content": [{"type": "text"}]}]'),
)
ODD_BYTES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n\n", b"\x1b[2J", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\t"),
    *(b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"[" * 5000, b"{}", b"null\n", b"[]\n", b'"text"\n', b"data: \n"),
)
ODD_YAML = (
    *(
        "null",
        "~",
        "true",
        "-1",
        "1e999",
        ".inf",
        ".nan",
        "0x1F",
        "0o17",
        "190:20:30",
        "9" * 5000,
        "!!int ''",
        "!!bool no way",
    ),
    *("2024-13-45", "2024-01-02", "!!timestamp 'nope'", "!!binary '%'", "!!set {a, b}", "!!python/object:os.system {}"),
    *(
        "&a [*a]",
        "&a {b: *a}",
        "&a {<<: *a}",
        "*missing",
        "{[a]: 1}",
        "{1: 2, null: 3, a: 4}",
        "{2024-01-02: x, true: y}",
    ),
    *(
        '"\\0"',
        '"\\e[2J\\r"',
        '"\\ud83d"',
        "'%'",
        "''",
        "'${HOME'",
        "'${}'",
        "[]",
        "{}",
        "[[]]",
        "[1, a, null]",
        "{a: {b: {c: []}}}",
    ),
    *("[" * depth + "]" * depth for depth in (90, 110, 5000)),
    "[&l0 [x, x], &l1 [*l0, *l0], "
    + ", ".join(f"&l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(2, 10))
    + "]",
)
ODD_KEYS = (
    "1",
    "null",
    "2024-01-02",
    "2024-13-45",
    "true",
    "[a]",
    "''",
    '"\\e[2J"',
    "<<",
    "=",
    "_type",
    "base",
    "1e999",
)
_PLACEHOLDER = "\N{SNOWMAN}"

Damage = Callable[[bytes, Random], bytes]


def _cut(content: bytes, draw: Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _without_a_piece(content: bytes, draw: Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 10, 100, 1000)) :]


def _flipped(content: bytes, draw: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 30)) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _with_more(content: bytes, draw: Random) -> bytes:
    place = draw.choice((0, len(content), draw.randrange(len(content) + 1)))
    return content[:place] + draw.choice(ODD_BYTES) + content[place:]


def _other_lines(content: bytes, draw: Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(4)
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(one, lines[other])
    elif kind == 2:
        lines[one] = lines[one].rstrip(b"\n")
    else:
        del lines[one]
    return b"".join(lines)


def _disguised(content: bytes, draw: Random) -> bytes:
    text = content.decode(errors="replace")
    return draw.choice(
        (
            b"",
            content.replace(b"\n", b"\r\n"),
            text.encode("utf-16"),
            text.encode("latin-1", "replace"),
            gzip.compress(content),
            _cut(gzip.compress(content), draw),
            b"\x1f\x8b" + content,
            b"\x28\xb5\x2f\xfd" + content,
            b"PAR1" + content + b"PAR1",
            b"PK\x03\x04" + content,
            b"SQLite format 3\x00" + content,
            content * 2,
        )
    )


def _other_json(content: bytes, draw: Random) -> bytes:
    """Another value, key or neither somewhere in one line, or in the whole where that is JSON."""
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines)) if lines else 0
    text = lines[place] if lines else b""
    start = text.find(b"{") if text.startswith((b"data:", b"intermediate_data:")) else 0
    for first, last, before, inner in ((place, place + 1, text[:start], text[start:]), (0, len(lines), b"", content)):
        try:
            value = json.loads(inner)
            if isinstance(value, dict | list) and value:
                return b"".join((*lines[:first], before, _changed(value, draw), b"\n", *lines[last:]))
        except (ValueError, RecursionError):
            continue
    return _flipped(content, draw)


def _changed(value: Any, draw: Random) -> bytes:
    places = list(_places(value))
    for _ in range(draw.choice((1, 1, 1, 4))):
        holder, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind < 3 and _has(holder, key):
            holder[key] = f"{_PLACEHOLDER}{draw.randrange(len(ODD_VALUES))}{_PLACEHOLDER}"
        elif kind == 3 and isinstance(holder, dict) and key in holder:
            holder[draw.choice((f"{key}_", "", "\x1b[2J", "metadata", "flaw", "set_aside", "role", key.upper()))] = (
                holder.pop(key)
            )
        elif kind == 4 and isinstance(holder, dict):
            holder.pop(key, None)
        elif isinstance(holder, list):
            holder.append(holder[0] if holder else None)
    text = json.dumps(value)
    for number, odd in enumerate(ODD_VALUES):
        text = text.replace(json.dumps(f"{_PLACEHOLDER}{number}{_PLACEHOLDER}"), odd)
    return text.encode()


def _other_yaml(content: bytes, draw: Random) -> bytes:
    """Another value or key somewhere."""
    try:
        value = parse_yaml(content.decode(), "it")
    except (UnicodeDecodeError, ConfigurationError):  # damaged before
        return _with_more(content, draw)
    places = list(_places(value)) if isinstance(value, dict | list) and value else []
    if not places:
        return _with_more(content, draw)
    holder, key = draw.choice(places)
    if isinstance(holder, dict) and draw.random() < 0.3:
        holder[_PLACEHOLDER] = holder.pop(key)
        odd = draw.choice(ODD_KEYS)
    else:
        holder[key] = _PLACEHOLDER
        odd = draw.choice(ODD_YAML)
    return yaml.safe_dump(value, allow_unicode=True).replace(_PLACEHOLDER, odd).encode(errors="surrogatepass")


def _other_table(content: bytes, draw: Random) -> bytes:
    """Other columns, or other types in them."""
    try:
        table = parquet.read_table(pyarrow.BufferReader(content))
        place = draw.randrange(table.num_columns)
        changed = draw.choice(_TABLES)(table, place, draw)
    except Exception:  # noqa: BLE001 - damaged before, or a type that has no such values
        return _flipped(content, draw)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(changed, sink, row_group_size=draw.choice((1, 3, 1000)))
    return sink.getvalue().to_pybytes()


def _of_type(table: Any, place: int, draw: Random) -> Any:
    kind = draw.choice(
        (
            *(
                pyarrow.null(),
                pyarrow.bool_(),
                pyarrow.int8(),
                pyarrow.uint64(),
                pyarrow.float16(),
                pyarrow.large_string(),
            ),
            *(pyarrow.binary(), pyarrow.timestamp("ns"), pyarrow.date32(), pyarrow.time64("us"), pyarrow.duration("s")),
            *(
                pyarrow.decimal128(38, 10),
                pyarrow.list_(pyarrow.string()),
                pyarrow.map_(pyarrow.string(), pyarrow.int64()),
            ),
            *(pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), pyarrow.struct([("a", pyarrow.int64())])),
        )
    )
    odd: dict[str, Any] = {"string": "2", "large_string": "\x1b", "binary": b"\xff", "bool": True}
    for one in (odd.get(str(kind)), 1, "a", [], ["a"], [("a", 1)], {"a": 1}, None):
        try:
            column = pyarrow.array([one] * table.num_rows, kind)
        except (pyarrow.ArrowException, TypeError):
            continue
        return table.set_column(place, table.schema.field(place).name, column)
    return table


_TABLES: tuple[Callable[[Any, int, Random], Any], ...] = (
    _of_type,
    _of_type,
    lambda table, place, _: table.append_column(table.schema.field(place).name, table.column(place)),
    lambda table, place, _: table.remove_column(place),
    lambda table, place, draw: table.rename_columns(
        [
            draw.choice(("", "\x1b[2J", "metadata", "flaw", "candidates")) if one == place else name
            for one, name in enumerate(table.column_names)
        ]
    ),
    lambda table, place, _: table.select([place]),
    lambda table, _place, _draw: table.slice(0, 0),
    lambda table, place, _: table.set_column(
        place, table.schema.field(place).name, pyarrow.array([None] * table.num_rows, table.schema.field(place).type)
    ),
    lambda table, place, draw: table.set_column(
        place,
        table.schema.field(place).name,
        pyarrow.array([draw.choice((float("nan"), float("inf"), 1e308, -0.0)) for _ in range(table.num_rows)]),
    ),
    lambda table, place, _: table.set_column(
        place,
        table.schema.field(place).name,
        pyarrow.array([b"\xff\xfe"] * table.num_rows, pyarrow.binary()).view(pyarrow.string()),
    ),
)


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


_DAMAGE: tuple[tuple[int, Damage], ...] = (
    (1, _cut),
    (1, _without_a_piece),
    (2, _flipped),
    (2, _with_more),
    (1, _other_lines),
    (1, _disguised),
)
_BY_SUFFIX: Mapping[str, Damage] = {".yml": _other_yaml, ".parquet": _other_table}


def damaged(content: bytes, draw: Random, suffix: str) -> bytes:
    """The content of a file whose name ends so, with one to three things wrong with it."""
    kinds = ((8, _BY_SUFFIX.get(suffix, _other_json)), *_DAMAGE)
    for kind in draw.choices([one for _, one in kinds], [weight for weight, _ in kinds], k=draw.choice((1, 1, 2, 3))):
        content = kind(content, draw)
    return content

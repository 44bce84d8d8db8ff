"""What is in the files of a dataset, and what a trainer would choke on or drop without a word."""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.messages import Message, Prompt, is_blank, messages_of, prompt_key
from nat_dpo_pipeline.dataset.formats.format import roles_problem
from nat_dpo_pipeline.dataset.formats.reading import ReadRow, read, recognised
from nat_dpo_pipeline.dataset.manifest import ManifestKind, is_ours
from nat_dpo_pipeline.dataset.rendered import ChatTemplate, calls_in, lost_call, tools_in
from nat_dpo_pipeline.dataset.run_files import CANDIDATES
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_document, parse_json

_LINES_TOLD = 5
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
# Folders of one side of a split each, such as nemo_customizer has.
_SIDES = ("train", "valid", "dev", "eval", "test")
# What stands for what when roles take turns: one reader has developers, others have results of tools.
_ROLES = {"developer": "system", "tool": "user"}


class Problem(StrEnum):
    """What may be wrong with a row, a file, or a folder."""

    NOT_JSON = "not_json"
    UNKNOWN_FORMAT = "unknown_format"
    WRONG_SHAPE = "wrong_shape"
    EMPTY_PROMPT = "empty_prompt"
    EMPTY_ANSWER = "empty_answer"
    EQUAL_SIDES = "equal_sides"
    ROLES_DO_NOT_ALTERNATE = "roles_do_not_alternate"
    OVER_LONG = "over_long"
    PROMPT_ON_BOTH_SIDES = "prompt_on_both_sides"
    DUPLICATE_ROW = "duplicate_row"
    CONTRADICTION = "contradiction"
    NO_ROWS = "no_rows"
    ARGUMENTS_AS_TEXT = "arguments_as_text"
    NULL_CONTENT = "null_content"
    NOT_RENDERED = "not_rendered"
    CALL_LOST = "call_lost"
    ALIKE_WHEN_RENDERED = "alike_when_rendered"

    @property
    def is_fatal(self) -> bool:
        """Whether a trainer stops, drops the row, or learns nothing from it; the others are worth a look."""
        return self not in (Problem.DUPLICATE_ROW, Problem.CONTRADICTION)

    @property
    def meaning(self) -> str:
        """In words."""
        return _MEANINGS[self]


_MEANINGS = {
    Problem.NOT_JSON: "it is not a JSON object in UTF-8",
    Problem.UNKNOWN_FORMAT: "no known format, or another one than the file's first row",
    Problem.WRONG_SHAPE: "a key is missing or holds something else than the format has there",
    Problem.EMPTY_PROMPT: "the prompt says nothing",
    Problem.EMPTY_ANSWER: "an answer is empty",
    Problem.EQUAL_SIDES: "chosen and rejected are the same: nothing is learnt from it",
    Problem.ROLES_DO_NOT_ALTERNATE: "user and assistant do not take turns, or the user does not speak last",
    Problem.OVER_LONG: "prompt and answer are longer than the limit: trainers cut or drop them",
    Problem.PROMPT_ON_BOTH_SIDES: "the prompt is in another file of the split too: the validation is no test",
    Problem.DUPLICATE_ROW: "the same row was there before",
    Problem.CONTRADICTION: "the same was there the other way round: two answers, or the label of one",
    Problem.NO_ROWS: "the file holds no rows",
    Problem.ARGUMENTS_AS_TEXT: "arguments of a call are JSON text, which most chat templates encode a second time",
    Problem.NULL_CONTENT: "the content of a message is null, which some chat templates refuse or write as None",
    Problem.NOT_RENDERED: "the chat template refuses the row",
    Problem.CALL_LOST: "the chat template leaves a call out, or encodes its arguments twice",
    Problem.ALIKE_WHEN_RENDERED: "chosen and rejected are the same text by the chat template",
}


@dataclass
class FileReport:
    """What is in one file. `lines` are the first ones with each problem, from 1, counted in `unit`.

    `first_row` is the first row of a file whose format is not known.
    """

    path: Path
    unit: str = "line"
    format: str | None = None
    rows: int = 0
    prompts: set[bytes] = field(default_factory=set)
    problems: Counter[Problem] = field(default_factory=Counter)
    lines: dict[Problem, list[int]] = field(default_factory=dict)
    first_row: Mapping[str, object] = field(default_factory=dict)

    def add(self, problem: Problem, line: int) -> None:
        self.problems[problem] += 1
        told = self.lines.setdefault(problem, [])
        if line and len(told) < _LINES_TOLD:
            told.append(line)

    @property
    def is_fit(self) -> bool:
        return not any(problem.is_fatal for problem in self.problems)


@dataclass(frozen=True, slots=True)
class Looking:
    """How rows are looked at: with a limit of characters, and as a chat template renders them."""

    max_characters: int | None = None
    template: ChatTemplate | None = None


_PLAINLY = Looking()


def inspect(paths: Sequence[Path], looking: Looking = _PLAINLY) -> list[FileReport]:
    """Look at files, and at all JSONL and Parquet in folders: what has one format there are the sides of a split.

    Memory grows with the number of rows by some bytes for each; a JSON array is read whole. Raises
    InputError for what cannot be read.
    """
    reports = []
    for path in paths:
        if path.is_dir():
            for files in _splits_in(path):
                sides = [_inspected(file, looking) for file in files]
                _compare(sides)
                reports += sides
        else:
            reports.append(_inspected(path, looking))
    return reports


def _splits_in(folder: Path) -> list[list[Path]]:
    found = [path for path in sorted(folder.rglob("*")) if path.name.endswith(_SUFFIXES) and path.is_file()]
    # What a killed run left behind is hidden.
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    # `nat dpo pairs` leaves what it paired beside the dataset.
    found = [path for path in found if path != folder / CANDIDATES or not is_ours(folder, ManifestKind.DATASET)]
    if not found:
        raise InputError(f"{str(folder)!r} holds no .jsonl, .jsonl.gz or .parquet file")
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in found:
        top, *below = path.relative_to(folder).parts
        dataset = top if below and not top.lower().startswith(_SIDES) else ""
        groups.setdefault((dataset, path.suffix), []).append(path)
    return list(groups.values())


def _compare(sides: Sequence[FileReport]) -> None:
    # An empty side of a split is a small dataset's; the other one says so.
    if any(side.rows for side in sides):
        for side in sides:
            del side.problems[Problem.NO_ROWS]
    for place, side in enumerate(sides):
        others = set().union(*(other.prompts for other in sides[:place] if _side_of(other) != _side_of(side)))
        if shared := len(side.prompts & others):
            side.problems[Problem.PROMPT_ON_BOTH_SIDES] += shared


def _side_of(report: FileReport) -> str:
    """Return the file without the number of a shard: `train-00000-of-00002` and `train-00001` are one side."""
    stem = report.path.name.partition(".")[0]
    return str(report.path.with_name(_SHARD.sub("", stem)))


_SHARD = re.compile(r"[-_.]\d{3,}(?:-of-\d+)?$")


def _inspected(path: Path, looking: Looking) -> FileReport:
    report = FileReport(path)
    seen: set[bytes] = set()
    try:
        report.unit, rows = _numbered_rows(path)
        for line, row in rows:
            report.rows += 1
            _look_at(row, line, report, seen, looking)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if not report.rows:
        report.add(Problem.NO_ROWS, 0)
    return report


def _numbered_rows(path: Path) -> tuple[str, Iterable[tuple[int, Mapping[str, object] | None]]]:
    """What is counted in the file, and its rows with their numbers."""
    if path.suffix == ".parquet":
        return "row", enumerate(_parquet_rows(path), start=1)
    if path.suffix == ".json" and _starts_an_array(path):
        return "element", enumerate(_array_rows(path), start=1)
    return "line", _line_rows(path)


def _line_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object] | None]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json(line)


def _parquet_rows(path: Path) -> Iterator[Mapping[str, object]]:
    from nat_dpo_pipeline.dataset.parquet import read_rows

    yield from read_rows(path)


def _starts_an_array(path: Path) -> bool:
    with path.open("rb") as file:
        filled = next((line for line in file if line.strip()), b"")
    return filled.lstrip().startswith(b"[")


def _array_rows(path: Path) -> list[Mapping[str, object] | None]:
    try:
        elements = parse_document(path.read_bytes(), strict=True)
    except InputError as error:
        raise InputError(f"{str(path)!r} starts like a JSON array, but cannot be read as one: {error}") from error
    return [element if isinstance(element, dict) else None for element in elements]


def _json(line: bytes) -> Mapping[str, object] | None:
    try:
        row = parse_json(line, strict=True)
    except InputError:
        return None
    return row if isinstance(row, dict) else None


def _look_at(
    row: Mapping[str, object] | None, line: int, report: FileReport, seen: set[bytes], looking: Looking
) -> None:
    if row is None:
        report.add(Problem.NOT_JSON, line)
        return
    name = recognised(row)
    report.format = report.format or name
    if name is None or name != report.format:
        if report.format is None and not report.first_row:
            report.first_row = row
        report.add(Problem.UNKNOWN_FORMAT, line)
        return
    try:
        found = read(name, row)
    except InputError:
        report.add(Problem.WRONG_SHAPE, line)
        return
    key = _digest(prompt_key(found.prompt))
    report.prompts.add(key)
    problems = (*_problems(found, looking.max_characters), *_repeats(key, found, seen))
    for problem in (*problems, *_problems_of_messages(name, row, looking.template)):
        report.add(problem, line)


# Formats whose trainer renders messages by a chat template: the names of prompt and answers.
_RENDERED = {"trl": ("prompt", "chosen", "rejected"), "kto": ("prompt", "completion")}


def _problems_of_messages(name: str, row: Mapping[str, Any], template: ChatTemplate | None) -> Iterator[Problem]:
    """Yield what a chat template would do to a row; without one, what most templates do."""
    if name not in _RENDERED or isinstance(row["prompt"], str):
        return
    prompt, *answers = (row[side] for side in _RENDERED[name])
    messages = [*prompt, *(message for answer in answers for message in answer)]
    if any(isinstance(function["arguments"], str) for function in calls_in(messages)):
        yield Problem.ARGUMENTS_AS_TEXT
    if any(message["content"] is None for message in messages):
        yield Problem.NULL_CONTENT
    if template is not None:
        yield from _problems_when_rendered(prompt, answers, tools_in(row), template)


def _problems_when_rendered(
    prompt: list[Any], answers: Sequence[list[Any]], tools: list[Any] | None, template: ChatTemplate
) -> Iterator[Problem]:
    texts = [template.text([*prompt, *answer], tools) for answer in answers]
    if None in texts:
        yield Problem.NOT_RENDERED
        return
    if any(lost_call([*prompt, *answer], text or "") for answer, text in zip(answers, texts, strict=True)):
        yield Problem.CALL_LOST
    if len(texts) == 2 and texts[0] == texts[1]:
        yield Problem.ALIKE_WHEN_RENDERED


def _problems(row: ReadRow, max_characters: int | None) -> Iterator[Problem]:
    if is_blank(row.prompt):
        yield Problem.EMPTY_PROMPT
    elif roles_problem(_in_turns(row.prompt)):
        yield Problem.ROLES_DO_NOT_ALTERNATE
    if not row.answers or not all(answer.strip() for answer in row.answers):
        yield Problem.EMPTY_ANSWER
    elif row.is_pair and row.answers[0].strip() == row.answers[1].strip():
        yield Problem.EQUAL_SIDES
    if max_characters is not None and _length(row.prompt) + max(map(len, row.answers), default=0) > max_characters:
        yield Problem.OVER_LONG


def _in_turns(prompt: Prompt) -> Prompt:
    """The prompt with the results of tools in the place of the user, several of them as one turn."""
    turns: list[Message] = []
    before = ""
    for message in messages_of(prompt):
        if not (message.role == before == "tool"):
            turns.append(Message(_ROLES.get(message.role, message.role), ""))
        before = message.role
    return tuple(turns)


def _length(prompt: Prompt) -> int:
    return sum(len(message.content) for message in messages_of(prompt))


def _repeats(prompt: bytes, row: ReadRow, seen: set[bytes]) -> Iterable[Problem]:
    own, opposite = (_digest("\x1f".join(texts), prompt) for texts in _both_ways(row))
    is_known = own in seen
    seen.add(own)
    if is_known:
        return (Problem.DUPLICATE_ROW,)
    return (Problem.CONTRADICTION,) if own != opposite and opposite in seen else ()


def _both_ways(row: ReadRow) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a row says, and its opposite; the same again where there is none."""
    if row.label is not None:
        return (*row.answers, str(row.label)), (*row.answers, str(not row.label))
    return row.answers, row.answers[::-1] if row.is_pair else row.answers


def _digest(text: str, key: bytes = b"") -> bytes:
    return blake2b(text.encode(), digest_size=12, key=key).digest()

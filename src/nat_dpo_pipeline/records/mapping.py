"""Rows of other people's tables → rows of candidates, by a mapping of columns that is given or guessed, and said.

A role has one column, or several for a row with several answers. `response` may hold a list of answers, as `score` may
hold their scores; `completions` a list of objects. What a question has beside its prompt (system, context, input,
history) is part of the prompt.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.errors import ConfigurationError, InputError

Row = Mapping[str, object]
PROMPT, RESPONSE, SCORE, GROUP = "prompt", "response", "score", "group"
CHOSEN, REJECTED, CHOSEN_SCORE, REJECTED_SCORE = "chosen", "rejected", "chosen_score", "rejected_score"
MESSAGES, COMPLETIONS, WINNER = "messages", "completions", "winner"
ROLES = (
    *(PROMPT, RESPONSE, SCORE, GROUP, MESSAGES, COMPLETIONS, WINNER),
    *(CHOSEN, REJECTED, CHOSEN_SCORE, REJECTED_SCORE),
)
# Usual names of a role's column, in the datasets of the Hugging Face hub and in tools' exports. The name of a role
# itself goes before the others; two others are an ambiguity.
_NAMES: Mapping[str, tuple[str, ...]] = {
    PROMPT: ("prompt", "instruction", "question", "query", "problem", "user_prompt", "user_input", "input_prompt"),
    RESPONSE: (
        *("response", "output", "answer", "completion", "generation", "reply", "model_output", "generated_text"),
        *("responses", "outputs", "answers", "completions", "generations", "replies"),
    ),
    SCORE: (
        *("score", "reward", "rating", "overall_score", "quality", "judge_score", "grade", "preference_score"),
        *("scores", "rewards", "ratings"),
    ),
    GROUP: (
        *("example_id", "group_id", "group", "task_id", "problem_id", "question_id", "prompt_id", "uid", "doc_id"),
        "sample_id",
    ),
    MESSAGES: ("messages", "conversation", "conversations"),
    WINNER: ("winner", "preferred", "preference", "vote"),
    CHOSEN_SCORE: ("chosen_score", "score_chosen", "chosen_rating"),
    REJECTED_SCORE: ("rejected_score", "score_rejected", "rejected_rating"),
}
#: Columns that are part of the question.
SYSTEM, HISTORY = ("system", "system_prompt"), ("history",)
ADDED = ("context", "input", "document", "documents", "passage")
QUESTION = frozenset((*SYSTEM, *HISTORY, *ADDED))
#: Columns that name the task, where no example is named.
GROUPS = frozenset(_NAMES[GROUP]) - {"example_id"}
_SIDE = re.compile(r"(?P<base>.+?)_?(?P<side>[a-h]|\d)")
_FIRST_WINS = frozenset(("model_a", "a", "1", "left", "first", "response_a", "response_1", "chosen_a"))
_SECOND_WINS = frozenset(("model_b", "b", "2", "right", "second", "response_b", "response_2", "chosen_b"))
_TIES = ("tie", "both", "draw", "equal", "neither")


@dataclass(frozen=True)
class Table:
    """Columns of a table by role."""

    columns: Mapping[str, tuple[str, ...]]

    @property
    def label(self) -> str:
        """The mapping in words."""
        return "table: " + ", ".join(
            f"{role} from {' and '.join(map(repr, names))}" for role, names in self.columns.items()
        )

    def row(self, record: Row) -> Row:
        """Return a flat row of a candidate, or a turn row of several; a value that is missing is None."""
        own = _question(record, self._prompt(record), self._used)
        if GROUP in self.columns and (group := self._value(record, GROUP)) is not None:
            own["example_id"] = str(group)
        if MESSAGES in self.columns:
            *asked, reply = _list(self._value(record, MESSAGES)) or [None]
            return {**own, "prompt": asked, "response": reply, "score": self._value(record, SCORE)}
        candidates = self._candidates(record)
        if candidates is None:
            rest = {name: value for name, value in record.items() if name not in self._used | QUESTION}
            return {**rest, **own, "response": self._value(record, RESPONSE), "score": self._value(record, SCORE)}
        return {**own, "candidates": candidates}

    @property
    def _used(self) -> frozenset[str]:
        names = [name for names in self.columns.values() for name in names]
        return frozenset((*names, *(name.partition(".")[0] for name in names)))

    def _prompt(self, record: Row) -> object:
        return self._value(record, PROMPT) if PROMPT in self.columns else None

    def _value(self, record: Row, role: str) -> object:
        names = self.columns.get(role)
        return at(record, names[0]) if names else None

    def _candidates(self, record: Row) -> object:
        """Return the candidates in a row that has several; None for a row with one. Anything else is refused."""
        if CHOSEN in self.columns:
            sides = ((CHOSEN, CHOSEN_SCORE, 1.0), (REJECTED, REJECTED_SCORE, 0.0))
            return [
                {
                    "response": self._value(record, side),
                    "score": self._value(record, score) if score in self.columns else plain,
                }
                for side, score, plain in sides
            ]
        if COMPLETIONS in self.columns:
            return [_completion(one) for one in _list(self._value(record, COMPLETIONS))]
        responses = self.columns.get(RESPONSE, ())
        if len(responses) > 1:
            return _both([at(record, name) for name in responses], self._scores(record))
        found = self._value(record, RESPONSE)
        scores = self._value(record, SCORE)
        return _both(found, scores) if isinstance(found, list) and isinstance(scores, list) else None

    def _scores(self, record: Row) -> list[object]:
        if WINNER in self.columns:
            return _votes(self._value(record, WINNER))
        return [at(record, name) for name in self.columns.get(SCORE, ())]


def _both(responses: list[object], scores: list[object]) -> object:
    """Return candidates; what is no list is refused as malformed."""
    if len(responses) != len(scores):
        return "lists of different lengths"
    return [{"response": one, "score": score} for one, score in zip(responses, scores, strict=True)]


def _completion(one: object) -> Row:
    row = mapping(one)
    response = next((row[name] for name in (*_NAMES[RESPONSE], "text", "content") if name in row), None)
    score = next((row[name] for name in _NAMES[SCORE] if name in row), None)
    return {"response": response, "score": score, **{name: row[name] for name in ("model",) if name in row}}


def _votes(winner: object) -> list[object]:
    said = str(winner).strip().lower()
    if said in _FIRST_WINS:
        return [1.0, 0.0]
    if said in _SECOND_WINS:
        return [0.0, 1.0]
    return [0.5, 0.5] if any(word in said for word in _TIES) else []


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def at(record: Row, path: str) -> object:
    """Return the value of a column, or at a dotted path below one; None where there is none."""
    if path in record:
        return record[path]
    first, _, rest = path.partition(".")
    inner = record.get(first)
    return at(inner, rest) if rest and isinstance(inner, Mapping) else None


def with_question(row: Row) -> Row:
    """Return a row of candidates with what else is part of its question in its prompt, and named by its task."""
    own = _question(row, row.get("prompt"), frozenset({"prompt"}))
    group = next((row[name] for name in _NAMES[GROUP] if name != "example_id" and row.get(name) is not None), None)
    named = {} if row.get("example_id") is not None or group is None else {"example_id": str(group)}
    return {**row, **own, **named}


def _question(record: Row, prompt: object, used: frozenset[str]) -> dict[str, object]:
    columns = {name: record[name] for name in record.keys() & QUESTION - used if record[name] not in (None, "", [])}
    if not columns:
        return {"prompt": prompt}
    added = [_text(columns[name]) for name in ADDED if name in columns]
    before: list[Row] = [{"role": "system", "content": _text(columns[name])} for name in SYSTEM if name in columns]
    before += [message for name in HISTORY if name in columns for message in _history(columns[name])]
    if isinstance(prompt, str):
        text = "\n".join([prompt, *added])
        return {"prompt": [*before, {"role": "user", "content": text}] if before else text}
    messages = [*before, *_list(prompt)]
    return {"prompt": [*messages, {"role": "user", "content": "\n".join(added)}] if added else messages}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _history(value: object) -> Iterator[Row]:
    """Yield the messages of an Alpaca history, a list of questions with their answers."""
    for turn in _list(value):
        for role, text in zip(("user", "assistant"), _list(turn), strict=False):
            yield {"role": role, "content": text}


def parse_mapping(text: str) -> dict[str, tuple[str, ...]]:
    """Return the columns by role in `prompt=question,response=a+b`. Raises ConfigurationError."""
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        role, _, names = part.partition("=")
        found[role.strip()] = tuple(name.strip() for name in names.split("+") if name.strip())
    check_mapping(found)
    return found


def check_mapping(given: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigurationError for a role that there is not, or one without a column."""
    for role, names in given.items():
        if role not in ROLES:
            raise ConfigurationError(f"there is no role {role!r} in a mapping; there are {', '.join(ROLES)}")
        if not names:
            raise ConfigurationError(f"the mapping names no column for {role!r}: write {role}=COLUMN")


def table_of(record: Row, given: Mapping[str, tuple[str, ...]], where: str) -> Table | None:
    """Return the table that a record is a row of: by the mapping, and by usual names for what it leaves out.

    None where it is no table of scored answers. Raises InputError for two columns that could have one role, and for a
    column of the mapping that is not there.
    """
    for role, names in given.items():
        for name in names:
            if record.keys().isdisjoint((name, name.partition(".")[0])):
                raise InputError(f"{where} has no column {name!r} for {role}; it has {_listed(record)}")
    found = dict(given)
    for shape in (_pairs, _sides, _completions, _long, _conversation):
        if (columns := shape(record, found, where)) is not None:
            return Table(columns)
    return None


_Columns = dict[str, tuple[str, ...]]


def _pairs(record: Row, found: _Columns, where: str) -> _Columns | None:
    if not ({CHOSEN, REJECTED} <= found.keys() or {CHOSEN, REJECTED} <= record.keys()) or RESPONSE in found:
        return None
    columns = {CHOSEN: (CHOSEN,), REJECTED: (REJECTED,), **found}
    for role in (CHOSEN_SCORE, REJECTED_SCORE):
        if role not in columns and (name := _usual(record, role, where)) is not None:
            columns[role] = (name,)
    return _with_prompt(record, columns, where)


def _sides(record: Row, found: _Columns, where: str) -> _Columns | None:
    """Return the columns of answers side by side, with their scores or the winner."""
    if len(found.get(RESPONSE, ())) > 1:
        return _with_prompt(record, found, where) if SCORE in found or WINNER in found else None
    sides = _side_by_side(record, RESPONSE)
    if len(sides) < 2 or RESPONSE in found:
        return None
    columns = {**found, RESPONSE: tuple(sides.values())}
    scores = _side_by_side(record, SCORE)
    winner = _usual(record, WINNER, where)
    if WINNER not in found and SCORE not in found:
        if scores.keys() >= sides.keys():
            columns[SCORE] = tuple(scores[side] for side in sides)
        elif winner is not None:
            columns[WINNER] = (winner,)
        else:
            return None
    return _with_prompt(record, columns, where)


def _side_by_side(record: Row, role: str) -> dict[str, str]:
    """Return the columns of a role whose names end with a side: `response_a`, `response_b`."""
    found = {}
    for name in record:
        side = _SIDE.fullmatch(name)
        if side is not None and side["base"] in _NAMES[role]:
            found[side["side"]] = name
    return dict(sorted(found.items()))


def _completions(record: Row, found: _Columns, where: str) -> _Columns | None:
    value = record.get(COMPLETIONS)
    is_scored = isinstance(value, list) and bool(value) and _completion(value[0])["score"] is not None
    if COMPLETIONS not in found and (RESPONSE in found or not is_scored):
        return None
    return _with_prompt(record, {COMPLETIONS: (COMPLETIONS,), **found}, where)


def _long(record: Row, found: _Columns, where: str) -> _Columns | None:
    columns = dict(found)
    for role in (RESPONSE, SCORE):
        if role not in columns:
            name = _usual(record, role, where)
            if name is None:
                return None
            columns[role] = (name,)
    return _with_prompt(record, columns, where)


def _conversation(record: Row, found: _Columns, where: str) -> _Columns | None:
    columns = dict(found)
    for role in (MESSAGES, SCORE):
        name = _usual(record, role, where) if role not in columns else None
        if name is not None:
            columns[role] = (name,)
    if not columns.keys() >= {MESSAGES, SCORE} or PROMPT in columns or RESPONSE in columns:
        return None
    return _with_group(record, columns)


def _with_prompt(record: Row, columns: _Columns, where: str) -> _Columns | None:
    if PROMPT not in columns:
        name = _usual(record, PROMPT, where)
        if name is None:
            return None
        columns = {PROMPT: (name,), **columns}
    return _with_group(record, columns)


def _with_group(record: Row, columns: _Columns) -> _Columns:
    if GROUP not in columns and (name := next((one for one in _NAMES[GROUP] if one in record), None)):
        columns = {**columns, GROUP: (name,)}
    order = {role: place for place, role in enumerate(ROLES)}
    return dict(sorted(columns.items(), key=lambda item: order[item[0]]))


def _usual(record: Row, role: str, where: str) -> str | None:
    """Return the column with a usual name of the role, that of the role itself first. Raises InputError for two."""
    names = [name for name in _NAMES[role] if name in record]
    if role == RESPONSE and len(names) > 1:
        # Beside a response an `answer` is the right one, as in rollouts of verifiers and TRL.
        names = [name for name in names if name not in ("answer", "answers")]
    if not names and role == SCORE:
        # Logs of trainers have a column for each reward function, such as `accuracy_reward`.
        names = [name for name in record if name.endswith(("_reward", "_score", "_rating"))]
    if not names or names[0] == role or len(names) == 1:
        return names[0] if names else None
    raise InputError(
        f"{where} has two columns that could be the {role}, {names[0]!r} and {names[1]!r}: say which one it is, with "
        f"--map {role}={names[0]}"
    )


def _listed(record: Row) -> str:
    return ", ".join(map(repr, list(record)[:12]))


_PREFIX = "table "


def name_of(table: Table) -> str:
    """Return a name that `table_named` reads."""
    return _PREFIX + json.dumps(table.columns)


@cache
def table_named(name: str) -> Table | None:
    """Return the table that a name describes; None for the name of anything else."""
    if not name.startswith(_PREFIX):
        return None
    return Table({role: tuple(names) for role, names in json.loads(name.removeprefix(_PREFIX)).items()})

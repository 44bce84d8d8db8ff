"""Replies of judges and generative reward models → ratings and comparisons. What does not fit raises ParseError.

A judged response may hold a verdict of its own, and a judge may quote it. So a verdict counts only where the judge was
asked to put it: it ends the reply, or begins it, on lines of its own, and the two must not differ.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.comparisons import Comparison, Winner
from nat_dpo_pipeline.core.rewards import GenRMFormat
from nat_dpo_pipeline.errors import ParseError

T = TypeVar("T")

# A server may leave out the tag that opens the thoughts, and a reply that was cut the one that closes them.
_THOUGHTS = re.compile(r"\A.*</think>|\A\s*<think>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_OPENING_BRACE = re.compile(r"^[ \t]*(?=\{)", re.MULTILINE)
_REST_OF_LINE = re.compile(r"[ \t]*(?:\n|\Z)")
_BOXED = re.compile(
    r"^[ \t]*\[The Begin of Individual Scores\]\s*\\boxed\{([^{}]*)\}[^\[\]]*\[The End of Individual Scores\]"
    r"\s*\[The Begin of Ranking Score\]\s*\\boxed\{([^{}]*)\}[^\[\]]*(?:\[The End of Ranking Score\]\s*)?\Z",
    re.MULTILINE,
)
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)?\s*")
_SCORES = (1.0, 5.0)
_RANKINGS = (1.0, 6.0)
_MIDDLE_RANKING = 3.5


def parse_rating(reply: str, lowest: float, highest: float) -> float:
    """The number in `{"rating": 7}`, between `lowest` and `highest`."""
    return _verdict(reply, "rating", lambda found: _within(found["rating"], (lowest, highest), "rating", reply))


def parse_winner(reply: str) -> Comparison:
    """The winner in `{"winner": "A"}`, which is A, B or tie."""
    return _verdict(reply, "winner", lambda found: Comparison(_winner(found["winner"], reply)))


def parse_genrm(reply: str, form: GenRMFormat) -> Comparison:
    """The scores from 1 to 5 that a generative reward model gives to each of two responses, and which it ranks higher.

    It ranks from 1, the first is much better, to 6, the second is, without a middle. The formats are those on the cards
    of Llama-3.3-Nemotron-Super-49B-GenRM (sections with `\\boxed{…}`) and Qwen3-Nemotron-235B-A22B-GenRM (JSON with
    `score_1`, `score_2` and `ranking`, at times under `overall`).
    """
    return _boxed(reply) if form is GenRMFormat.NEMOTRON_SUPER_49B else _in_json(reply)


def _boxed(reply: str) -> Comparison:
    found = _BOXED.search(_without_thoughts(reply))
    if found is None:
        raise ParseError("the reply does not end with the sections of individual scores and ranking", reply)
    scores = found[1].split(",")
    if len(scores) != 2:
        raise ParseError(f"expected two individual scores, found {found[1]!r}", reply)
    first, second, ranking = (float(text) if _NUMBER.fullmatch(text) else text for text in (*scores, found[2]))
    return _ranked(first, second, ranking, reply)


def _in_json(reply: str) -> Comparison:
    def read(found: Mapping[str, object]) -> Comparison:
        return _ranked(found.get("score_1"), found.get("score_2"), found["ranking"], reply)

    return _verdict(reply, "ranking", read)


def _ranked(first: object, second: object, ranking: object, reply: str) -> Comparison:
    scores = (
        _within(first, _SCORES, "score of response 1", reply),
        _within(second, _SCORES, "score of response 2", reply),
    )
    rank = _within(ranking, _RANKINGS, "ranking", reply)
    if not rank.is_integer():
        raise ParseError(f"the ranking {ranking!r} is not one of 1, 2, … 6", reply)
    winner = Winner.FIRST if rank < _MIDDLE_RANKING else Winner.SECOND
    return Comparison(winner, scores, lead=abs(rank - _MIDDLE_RANKING))


def _within(value: object, bounds: tuple[float, float], what: str, reply: str) -> float:
    number = finite_number(value)
    if number is None or not bounds[0] <= number <= bounds[1]:
        raise ParseError(f"the {what} {value!r:.80} is not a number from {bounds[0]:g} to {bounds[1]:g}", reply)
    return number


def _winner(value: object, reply: str) -> Winner:
    for winner in Winner:
        if isinstance(value, str) and value.strip().casefold() == winner.casefold():
            return winner
    raise ParseError(f"the winner {value!r:.80} is none of A, B and tie", reply)


def _verdict(reply: str, key: str, read: Callable[[Mapping[str, object]], T]) -> T:
    text = _FENCE.sub("", _without_thoughts(reply)).strip()
    objects = [_nested(value, key) for value in (_object_at_start(text), _object_at_end(text)) if value is not None]
    verdicts = [read(found) for found in objects if key in found]
    if not verdicts:
        raise ParseError(f"the reply neither ends nor begins with a JSON object that has a {key!r}", reply)
    if verdicts[0] != verdicts[-1]:
        raise ParseError(f"the reply begins with one {key!r} and ends with another", reply)
    return verdicts[-1]


def _nested(found: Mapping[str, object], key: str) -> Mapping[str, object]:
    overall = found.get("overall")
    return overall if key not in found and isinstance(overall, dict) else found


def _without_thoughts(reply: str) -> str:
    return _THOUGHTS.sub("", reply).strip()


def _object_at_start(text: str) -> Mapping[str, object] | None:
    value, end = _object(text, 0)
    return value if _REST_OF_LINE.match(text, end) else None


def _object_at_end(text: str) -> Mapping[str, object] | None:
    for brace in _OPENING_BRACE.finditer(text):
        value, end = _object(text, brace.end())
        if value is not None and end == len(text):
            return value
    return None


def _object(text: str, position: int) -> tuple[dict[str, Any] | None, int]:
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError):
        return None, len(text)
    return (value, end) if isinstance(value, dict) else (None, len(text))

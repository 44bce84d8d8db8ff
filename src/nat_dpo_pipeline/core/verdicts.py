"""Replies of judges and generative reward models → ratings and comparisons. What does not fit raises ParseError.

A judged response may hold a verdict of its own, and a judge may quote it. So a verdict counts only where the judge was
asked to put it: it ends the reply, or begins it, on lines of its own, and all verdicts in these places are the same. A
verdict behind words or marks, or in a fence with a note behind it, counts only where no judged text holds one to quote.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.comparisons import Comparison, Winner
from nat_dpo_pipeline.core.rewards import GenRMFormat
from nat_dpo_pipeline.core.thoughts import split_thoughts
from nat_dpo_pipeline.core.written_json import read_object
from nat_dpo_pipeline.errors import ParseError

T = TypeVar("T")
_Object = Mapping[str, object]

_FENCE_LINE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
# Bold, code, headings, bullets. A quotation (`>`, quotation marks) is none of the judge's own. All repeats are bounded,
# since some of these characters are also part of a word, and a reply may hold thousands of them.
_MARKS = r"[ \t*_`#-]{0,40}(?:```\w{1,20}[ \t]{0,9})?"
_NAMES = "rating|score|verdict|winner|ranking|answer|judge?ment|result|conclusion|output|json"
_LABEL = (
    rf"(?:[^\W\d]\w{{0,40}}|(?:(?:my|the|final|overall|{_NAMES})[ \t]{{1,9}}){{1,4}}(?:{_NAMES}))"
    r"[ \t]{0,9}[*_`]{0,3}[:\uff1a=]"
)
_CONCLUSION = rf"[^{{}}\n]*\b(?:so|thus|hence|therefore|(?:{_NAMES})[ \t]{{1,9}}is)[:,]?"
_BEFORE_OWN_LINE = re.compile(r"^[ \t]*(?=\{)", re.MULTILINE)
_BEFORE_INLINE = re.compile(rf"^{_MARKS}(?:(?:{_LABEL}|{_CONCLUSION}){_MARKS})?(?=\{{)", re.MULTILINE | re.IGNORECASE)
_LABEL_AT_START = re.compile(rf"{_MARKS}(?:{_LABEL}{_MARKS})?(?=\{{)", re.IGNORECASE)
_BEHIND = " \t\r\n*_`.!"
_END_OF_TEXT = r"(?:</s>|<\|[^|<>]{1,40}\|>)"
_END_OF_REPLY = re.compile(rf"{_END_OF_TEXT}\Z")
_END_OF_LINE = re.compile(rf"\}}(?=[ \t*_`.!]{{0,40}}{_END_OF_TEXT}?[ \t]{{0,40}}(?:\n|\Z))")
# A note behind a fenced verdict that neither goes on with its sentence nor could name another verdict.
_NOTE = re.compile(r"(?!\s*[a-z])(?:(?!\b(?:[AB]|tie)\b)[^\d{}]){0,300}")
# Braces that are tried as the beginning or the end of a verdict: an object with more lines is none.
_MOST_BRACES = 64
_BOXED = re.compile(
    r"^[\s*_#]*\[The Begin of Individual Scores\][\s*_$`]*\\boxed\{([^{}]*)\}[^\[\]]*"
    r"\[The End of Individual Scores\][\s*_#]*\[The Begin of Ranking Score\][\s*_$`]*\\boxed\{([^{}]*)\}[^\[\]]*"
    r"(?:\[The End of Ranking Score\][\s*_.]*)?\Z",
    re.MULTILINE | re.IGNORECASE,
)
_NUMBER = re.compile(r"\s*[-+]?\d+(?:\.\d*)?\s*")
_WINNER = re.compile(
    r"[\s\[\]()*_'\"`.]*(?:(?:(?:the[\s_-]+)?(?:response|assistant|reply|answer|model|option|candidate)[\s_-]*)?(?P<place>[ab])"
    r"|(?P<tie>tie))[\s\[\]()*_'\"`.]*",
    re.IGNORECASE,
)
_SCORES = (1.0, 5.0)
_RANKINGS = (1.0, 6.0)
_MIDDLE_RANKING = 3.5


def parse_rating(reply: str, lowest: float, highest: float, judged: Sequence[str] = ()) -> float:
    """Return the number in `{"rating": 7}`, between `lowest` and `highest`; `judged` are the texts the judge saw."""
    return _verdict(reply, "rating", judged, lambda found: _within(found["rating"], (lowest, highest), "rating", reply))


def parse_scores(reply: str, count: int, judged: Sequence[str] = ()) -> list[float]:
    """Return the numbers from 0 to 1 in `{"scores": [0.8, 0.1]}`, one for each of `count` responses, in their order.

    `judged` are the texts the judge saw.
    """

    def read(found: _Object) -> list[float]:
        scores = found["scores"]
        if not isinstance(scores, list) or len(scores) != count:
            raise ParseError(f"expected a list of {count} scores, found {scores!r:.80}", reply)
        return [_within(score, (0.0, 1.0), "score", reply) for score in scores]

    return _verdict(reply, "scores", judged, read)


def parse_winner(reply: str, judged: Sequence[str] = ()) -> Comparison:
    """Return the winner in `{"winner": "A"}`, which is A, B or tie; `judged` are the texts the judge saw."""
    return _verdict(reply, "winner", judged, lambda found: Comparison(_winner(found["winner"], reply)))


def parse_genrm(reply: str, form: GenRMFormat, judged: Sequence[str] = ()) -> Comparison:
    """Return the scores from 1 to 5 that a generative reward model gives to each of two responses, and its ranking.

    It ranks from 1, the first is much better, to 6, the second is, without a middle. The formats are those on the cards
    of Llama-3.3-Nemotron-Super-49B-GenRM (sections with `\\boxed{…}`) and Qwen3-Nemotron-235B-A22B-GenRM (JSON with
    `score_1`, `score_2` and `ranking`, at times under `overall`). `judged` are the texts the model saw.
    """
    return _boxed(reply) if form is GenRMFormat.NEMOTRON_SUPER_49B else _in_json(reply, judged)


def _boxed(reply: str) -> Comparison:
    found = _BOXED.search(split_thoughts(reply).answer.strip())
    if found is None:
        raise ParseError("the reply does not end with the sections of individual scores and ranking", reply)
    scores = found[1].split(",")
    if len(scores) != 2:
        raise ParseError(f"expected two individual scores, found {found[1]!r:.80}", reply)
    return _ranked(scores[0], scores[1], found[2], reply)


def _in_json(reply: str, judged: Sequence[str]) -> Comparison:
    def read(found: _Object) -> Comparison:
        return _ranked(found.get("score_1"), found.get("score_2"), found["ranking"], reply)

    return _verdict(reply, "ranking", judged, read)


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
    is_number = isinstance(value, str) and _NUMBER.fullmatch(value)
    number = finite_number(float(str(value)) if is_number else value)
    if number is None or not bounds[0] <= number <= bounds[1]:
        raise ParseError(f"the {what} {value!r:.80} is not a number from {bounds[0]:g} to {bounds[1]:g}", reply)
    return number


def _winner(value: object, reply: str) -> Winner:
    found = _WINNER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ParseError(f"the winner {value!r:.80} is none of A, B and tie", reply)
    return Winner(found["place"].upper()) if found["place"] else Winner.TIE


def _verdict(reply: str, key: str, judged: Sequence[str], read: Callable[[_Object], T]) -> T:
    answer = split_thoughts(reply).answer.strip()
    may_be_quoted = any(re.search(rf"{key}\W{{0,5}}[:\uff1a]", text, re.IGNORECASE) for text in judged)
    verdicts = _read_all(_in_their_places(answer, inline=not may_be_quoted), key, read)
    if not (verdicts or may_be_quoted):
        verdicts = _read_all(_fenced(answer), key, read)
    if not verdicts:
        raise ParseError(f"the reply neither ends nor begins with a JSON object that has a {key!r}", reply)
    if any(verdict != verdicts[-1] for verdict in verdicts):
        raise ParseError(f"the reply begins with one {key!r} and ends with another", reply)
    return verdicts[-1]


def _read_all(found: Iterable[_Object], key: str, read: Callable[[_Object], T]) -> list[T]:
    return [read(value) for value in (_nested(value, key) for value in found) if key in value]


def _nested(found: _Object, key: str) -> _Object:
    overall = found.get("overall")
    return overall if key not in found and isinstance(overall, dict) else found


def _in_their_places(answer: str, *, inline: bool) -> Iterator[_Object]:
    """Yield the objects at the beginning and at the end of an answer, and the one right before the one at the end."""
    text = _FENCE_LINE.sub("", answer).strip()
    if (first := _at_start(text, inline=inline)) is not None:
        yield first
    for _ in range(2):
        if (last := _at_end(text, inline=inline)) is None:
            return
        found, begins = last
        yield found
        text = text[:begins]


def _at_start(text: str, *, inline: bool) -> _Object | None:
    before = (_LABEL_AT_START if inline else _BEFORE_OWN_LINE).match(text)
    if before is None:
        return None
    braces = islice(_END_OF_LINE.finditer(text, before.end()), _MOST_BRACES)
    objects = (read_object(text[before.end() : brace.end()]) for brace in braces)
    return next((found for found in objects if found is not None), None)


def _at_end(text: str, *, inline: bool) -> tuple[_Object, int] | None:
    """Return the object, and where its line begins."""
    text = _END_OF_REPLY.sub("", text.rstrip()).rstrip(_BEHIND)
    if not text.endswith("}"):
        return None
    starts = list((_BEFORE_INLINE if inline else _BEFORE_OWN_LINE).finditer(text))[-_MOST_BRACES:]
    objects = ((read_object(text[start.end() :]), start.start()) for start in starts)
    return next(((found, begins) for found, begins in objects if found is not None), None)


def _fenced(answer: str) -> list[_Object]:
    """Return the objects that are the whole of a fenced block, where no more than a note stands behind the last."""
    pieces = _FENCE_LINE.split(answer)
    if len(pieces) % 2 == 0 or not _NOTE.fullmatch(pieces[-1]):
        return []
    return [found for piece in pieces[1::2] if (found := read_object(piece)) is not None]

"""Model replies → lists, two responses, rewards. What does not fit raises ParseError with the reply, never a guess.

The reward reply formats are those of nemotron-4-340b-reward (attributes in `logprobs`), the NIM reward models
(`name:value,…` in the content), llama-3.1-nemotron-70b-reward (`reward:value`, or the number as a token) and plain
numbers, all inside an OpenAI chat completion; the yes-or-no tokens of Llama-3.3-Nemotron-70B-Reward-Principle; and the
bodies of vLLM's `/pooling` and `/classify`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import first, items, mapping
from nat_dpo_pipeline.core.rewards import HELPSTEER_ATTRIBUTES, Reward
from nat_dpo_pipeline.core.thoughts import split_thoughts
from nat_dpo_pipeline.errors import ConfigurationError, ParseError

_MARKER = re.compile(
    r"^\s*(?:[-*+•–]|(?P<mark>\*\*|__)?(?:\(?\d{1,3}[.):]|\(\d{1,3}\)|Q\d{1,3}[.):])(?(mark)(?P=mark)))\s+(?=\S)"
)
_NO_ITEM = re.compile(r"^(?:```|#{1,6}\s|[-=*_]{3,}$)")
_TOP_LEVEL_COMMA = re.compile(r",(?![^()\[\]]*[)\]])")
# `RESPONSE A:` at a line's start, also as a heading or in bold; a mark is taken only with the one that opened it, since
# the answer may start with marks of its own.
_RESPONSE = re.compile(
    r"^[ \t>#]*(?P<mark>\*{1,2}|_{1,2})?RESPONSE[ \t]+(?P<name>[AB])"
    r"(?(mark)(?:(?P=mark)[ \t]*:|[ \t]*:(?:(?P=mark))?)|[ \t]*:)[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_PREAMBLE = re.compile(
    r"^[*_ ]*(?:sure|certainly|of course|okay|here|below|the (?:following|list|sub-?topics)|sub-?topics)\b[^:\n]*:"
    r"(?:\*\*|__)?\s*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m sorry|i am sorry|sorry|i can['’]t|i cannot|i am unable|as an ai|unfortunately)\b", re.IGNORECASE
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WRAPPINGS = ("**", "__", "*", "`", '"', "'")
_LOG_OF_NOTHING = -9999.0
_LONGEST_TERM = 100
_LONGEST_QUESTION = 1000


def parse_terms(reply: str, expected: int) -> list[str]:
    """The comma-separated terms of a reply, or its list lines when it lists them although asked not to."""
    lines = _list_lines(_PREAMBLE.sub("", split_thoughts(reply).answer.strip()), expected)
    if len(lines) == 1 or not _is_marked(reply):
        lines = [_MARKER.sub("", piece.lstrip()) for line in lines for piece in _TOP_LEVEL_COMMA.split(line)]
        lines = [*lines[:-1], *map(_without_sentence_end, lines[-1:])]
    return _checked(lines, reply, expected, _LONGEST_TERM)


def parse_lines(reply: str, expected: int) -> list[str]:
    """The lines of a reply, without preamble, blank lines, numbers and bullets."""
    return _checked(_list_lines(reply, expected), reply, expected, _LONGEST_QUESTION)


def parse_two_responses(reply: str) -> tuple[str, str]:
    """The texts after the `RESPONSE A:` and `RESPONSE B:` markers; each marker must stand at a line's start, once."""
    markers = list(_RESPONSE.finditer(reply))
    names = "".join(marker["name"].upper() for marker in markers)
    if names != "AB":
        found = ", ".join(names) or "none"
        raise ParseError(f"expected the markers RESPONSE A: and RESPONSE B: once each, found {found}", reply)
    first, second = markers
    responses = reply[first.end() : second.start()].strip(), reply[second.end() :].strip()
    if not all(responses):
        raise ParseError("one of the two responses is empty", reply)
    return responses


def parse_reward(body: Mapping[str, object], response: str = "") -> Reward:
    """Return the reward in the JSON body of a chat completion about `response`. Raises ParseError.

    A content that begins with the response is none: a chat model goes on with a conversation that ends with the
    assistant, and llama.cpp's server repeats that turn first.
    """
    choice = mapping(first(body.get("choices")))
    tokens = [mapping(token) for token in items(mapping(choice.get("logprobs")).get("content"))]
    content = _content(choice.get("message"))
    repeated = response.strip()
    is_repeated = bool(repeated) and content.strip().startswith(repeated)
    reward = _from_attribute_tokens(tokens)
    if reward is None and not is_repeated:
        reward = _from_content(content) or _from_only_token(tokens)
    if reward is None:
        found = "the reply begins with the response" if is_repeated else "no reward in logprobs, or as content"
        raise ParseError(
            f"{found}: the model is no reward model, or its prompt is wrong; a chat model scores as a judge",
            str(dict(body)),
        )
    return reward


def parse_yes_no(body: Mapping[str, object]) -> float:
    """How much likelier a chat completion is to begin with Yes than with No: the difference of their log-probabilities.

    It equals the difference of their logits, the reward on the card of Llama-3.3-Nemotron-70B-Reward-Principle.
    Raises ParseError when either is not among the `top_logprobs`: how unlikely it is cannot be known then.
    """
    logprobs = mapping(mapping(first(body.get("choices"))).get("logprobs"))
    token = mapping(first(logprobs.get("content")))
    tops = [mapping(top) for top in items(token.get("top_logprobs"))]
    found = {str(top.get("token")): _log_probability(top.get("logprob")) for top in tops}
    yes, no = found.get("Yes"), found.get("No")
    if not tops:
        reason = "no log-probabilities: kind principle needs a server that gives `top_logprobs`, such as vLLM or NIM"
        raise ParseError(reason, str(dict(body)))
    if yes is None or no is None:
        missing = " and ".join(name for name, value in (("Yes", yes), ("No", no)) if value is None)
        raise ParseError(f"no log-probability of {missing} among the {len(tops)} top ones", str(dict(body)))
    return yes - no


def parse_pooled(body: Mapping[str, object]) -> float:
    """Return the reward in a body of vLLM's `/pooling`, `data[0].data`: a number, alone or in a list of its own.

    A model that scores every token has a list of such lists, of which the last counts.
    Raises ConfigurationError for several numbers, which are an embedding or classes, and ParseError for none.
    """
    value = mapping(first(body.get("data"))).get("data")
    rows = value if isinstance(value, list) else [value]
    if len(rows) > 1 and not isinstance(rows[-1], list):
        raise ConfigurationError(f"/pooling gives {len(rows)} numbers a response, as a model of embeddings does")
    tokens = [row if isinstance(row, list) else [row] for row in rows]
    several = (row for row in tokens if len(row) > 1)
    return _only_number(next(several, tokens[-1] if tokens else []), "data", body)


def parse_classified(body: Mapping[str, object]) -> float:
    """Return the reward in a body of vLLM's `/classify`: the only number in `data[0].probs`.

    Raises ConfigurationError for several numbers, which are classes, and ParseError for none.
    """
    return _only_number(items(mapping(first(body.get("data"))).get("probs")), "probs", body)


def _only_number(numbers: Sequence[object], name: str, body: Mapping[str, object]) -> float:
    if len(numbers) > 1:
        raise ConfigurationError(f"data[0].{name} has {len(numbers)} numbers, as a model of so many classes gives")
    number = finite_number(first(numbers))
    if number is None:
        raise ParseError(f"no number in data[0].{name}", str(dict(body)))
    return number


def _list_lines(reply: str, expected: int) -> list[str]:
    lines = [line.strip() for line in split_thoughts(reply).answer.splitlines() if line.strip()]
    lines = [line for line in lines if not _NO_ITEM.match(line)]
    marked = [line for line in lines if _MARKER.match(line)]
    if len(marked) > 1 and (len(marked) >= expected or 2 * len(marked) > len(lines)):
        lines = marked
    elif len(lines) > 1 and lines[0].rstrip("*_ ").endswith(":"):
        lines = lines[1:]
    return [_MARKER.sub("", line) for line in _without_frame(lines, expected)]


def _without_frame(lines: list[str], expected: int) -> list[str]:
    """Without first and last lines that are no questions, where all others are and there are more than asked for."""
    while len(lines) > expected and sum(not line.endswith("?") for line in lines) <= len(lines) - expected:
        if not lines[0].endswith("?"):
            lines = lines[1:]
        elif not lines[-1].endswith("?"):
            lines = lines[:-1]
        else:
            break
    return lines


def _without_sentence_end(last: str) -> str:
    """`and trees.` as `trees`, but `U.S.` as it is."""
    term = re.sub(r"^\s*and\s+", "", last).strip()
    return term[:-1] if term.endswith(".") and "." not in term[:-1] else term


def _is_marked(reply: str) -> bool:
    return sum(bool(_MARKER.match(line)) for line in reply.splitlines()) > 1


def _checked(raw: Iterable[str], reply: str, expected: int, longest: int) -> list[str]:
    items = [item for item in (_bare(piece) for piece in raw) if item]
    if not items:
        raise ParseError("the reply holds no list", reply)
    if _REFUSAL.match(items[0]):
        raise ParseError("the model refused", reply)
    if len(items) < min(expected, 2) or 2 * len(items) < expected:
        raise ParseError(f"expected a list of {expected}, found {len(items)}", reply)
    if any(len(item) > longest for item in items):
        raise ParseError(f"expected a list, found prose (an item of more than {longest} characters)", reply)
    return items


def _bare(piece: str) -> str:
    text = piece.strip().rstrip(",;").strip()
    for mark in _WRAPPINGS:
        inner = text[len(mark) : -len(mark)]
        if inner and text == mark + inner + mark and mark not in inner:
            text = inner.strip()
    return text


def _from_attribute_tokens(tokens: Sequence[Mapping[str, object]]) -> Reward | None:
    pairs = [(token.get("token"), token.get("logprob")) for token in tokens]
    return _attributes([(str(name).strip(), value) for name, value in pairs])


def _from_content(content: str) -> Reward | None:
    if (number := _number(content)) is not None:
        return Reward(scalar=number)
    fields = [piece.partition(":") for piece in content.split(",")]
    pairs = [(name.strip().strip("\"'").lower(), _number(value)) for name, _, value in fields]
    if len(pairs) == 1 and pairs[0][0] == "reward" and pairs[0][1] is not None:
        return Reward(scalar=pairs[0][1])
    return _attributes(pairs)


def _attributes(pairs: Sequence[tuple[str, object]]) -> Reward | None:
    numbers = {name: finite_number(value) for name, value in pairs}
    values = {name: number for name, number in numbers.items() if number is not None}
    known = len(values) == len(pairs) and all(name in HELPSTEER_ATTRIBUTES for name in values)
    return Reward(attributes=values) if values and known else None


def _from_only_token(tokens: Sequence[Mapping[str, object]]) -> Reward | None:
    # Only where it is the whole reply: the tokens of an ordinary answer may start with a number too.
    number = _number(str(tokens[0].get("token"))) if len(tokens) == 1 else None
    return None if number is None else Reward(scalar=number)


def _log_probability(value: object) -> float | None:
    number = finite_number(value)
    # vLLM writes -9999 for minus infinity.
    return number if number is not None and number > _LOG_OF_NOTHING else None


def _number(text: str) -> float | None:
    stripped = text.strip()
    return finite_number(float(stripped)) if _NUMBER.fullmatch(stripped) else None


def _content(message: object) -> str:
    # The hosted nemotron-4-340b-reward sends `message` as a list of one message.
    content = mapping(first(message) if isinstance(message, list) else message).get("content")
    parts = [mapping(part).get("text") for part in items(content)] if isinstance(content, list) else [content]
    return "".join(part for part in parts if isinstance(part, str))

"""Scores for answers about the standard library, by the words they share with its documentation."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache

from nat_dpo_pipeline.core.rewards import HELPSTEER_ATTRIBUTES
from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.library import Member
from nat_dpo_pipeline.errors import InputError

_HIGHEST = 4.0
# A text that claims nothing is neither right nor wrong: it counts as if it made this much of claims, this share right.
_PRIOR_CLAIMS, _PRIOR_SHARE = 6.0, 0.4
# Of a long documentation an answer need only tell this much (in the sum of its words' weights).
_ENOUGH = 60.0
_LONG_WORD = 8
_WORDS_OF_A_LONG_ANSWER = 120.0
#: Words that claim nothing about what a function does.
_NEUTRAL = frozenset(
    re.findall(
        r"\w+",
        """about after all also an and any are as at be before by call called can class come comes create do does
    documentation find for from function get has have how if import in into is it its know library method module more
    most need not of on one or other part python return returns says see short should signature so standard such that
    the their then there these this to use used uses was what when where which will with work would you your""",
    )
)


@dataclass(frozen=True, slots=True)
class _Overlap:
    """How much of what the answer claims is documented, and how much of the documentation it tells (0 to 1 each)."""

    precision: float
    recall: float


def score(question: str, response: str) -> dict[str, float]:
    """The HelpSteer attributes of the response, about 0 to 4 each.

    The question is about the last member of the library that it names in backticks. Raises InputError without one.
    """
    named = library.named_in(question)
    if not named:
        raise InputError(
            "the demo reward model scores answers to questions that name a documented member of Python's standard "
            "library in backticks, such as: What does `heapq.nlargest` do?"
        )
    words = _words(response)
    if not words:
        return dict.fromkeys(HELPSTEER_ATTRIBUTES, 0.0)
    overlap = _overlap(named[-1], words)
    coherence = _coherence(response, words)
    length = 1.0 - math.exp(-len(words) / _WORDS_OF_A_LONG_ANSWER)
    shares = (
        overlap.precision * (0.3 + 0.55 * overlap.recall + 0.1 * length + 0.05 * coherence),
        overlap.precision,
        coherence,
        sum(len(word) >= _LONG_WORD for word in words) / len(words),
        length,
    )
    return {name: round(_HIGHEST * share, 6) for name, share in zip(HELPSTEER_ATTRIBUTES, shares, strict=True)}


def _overlap(member: Member, words: list[str]) -> _Overlap:
    own_name = frozenset(_words(member.dotted))
    claimed = frozenset(words) - own_name - _NEUTRAL
    documented = _documented(member) - own_name
    shared = _weight(member.module, claimed & documented)
    right = shared + _PRIOR_SHARE * _PRIOR_CLAIMS
    told = min(_weight(member.module, documented), _ENOUGH)
    return _Overlap(
        precision=right / (_weight(member.module, claimed) + _PRIOR_CLAIMS),
        recall=min(1.0, shared / told) if told else 1.0,
    )


def _documented(member: Member) -> frozenset[str]:
    return frozenset(_words(" ".join((member.parameters, *member.paragraphs)))) - _NEUTRAL


def _weight(module: str, words: frozenset[str]) -> float:
    """Rare words weigh more: the members of a module share many, and those do not tell one from another."""
    spread, size = _spread(module), len(library.members(module))
    # Sorted, because the sum of floats depends on their order, and that of a set differs from process to process.
    return sum(math.log(1.0 + (size + 1) / (1 + spread[word])) for word in sorted(words))


@cache
def _spread(module: str) -> Counter[str]:
    return Counter(word for member in library.members(module) for word in _documented(member))


def _coherence(response: str, words: list[str]) -> float:
    """Less for repetition, and for a text that breaks off."""
    variety = len(set(words)) / len(words)
    is_finished = response.rstrip().endswith((".", "!", "?", ")", "`"))
    return 0.4 + 0.4 * math.sqrt(variety) + (0.2 if is_finished else 0.0)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]{2,}", text.lower())

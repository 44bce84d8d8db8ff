"""Which modules of the standard library a topic is about."""

import math
import re
from collections import Counter
from functools import cache
from types import MappingProxyType

from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.shelves import MODULES, SHELVES

# A shelf's subjects were written to be looked up; a word of a docstring may stand there by the way.
_NAME_WEIGHT, _SUBJECT_WEIGHT, _DOC_WEIGHT = 6.0, 3.0, 1.0


def modules_about(topic: str, count: int, chance: Chance) -> list[str]:
    """Up to `count` documented modules, those with most in common with the topic first, the others shuffled."""
    wanted = _words(topic)
    shuffled = chance.shuffled(MODULES, "topic", topic)
    ranked = sorted(shuffled, key=lambda module: -_relevance(module, wanted))
    chosen: list[str] = []
    for module in ranked:
        if len(chosen) == count:
            break
        if library.members(module):
            chosen.append(module)
    return chosen


def _relevance(module: str, wanted: frozenset[str]) -> float:
    weights, spread = _weights(module), _spread()
    return sum(weights[word] * math.log(len(MODULES) / spread[word]) for word in wanted if word in weights)


@cache
def _weights(module: str) -> MappingProxyType[str, float]:
    subjects = next(shelf.subjects for shelf in SHELVES if module in shelf.modules)
    weights = dict.fromkeys(_words(library.summary_of(module)), _DOC_WEIGHT)
    weights |= dict.fromkeys(_words(subjects), _SUBJECT_WEIGHT)
    weights |= dict.fromkeys(_words(module), _NAME_WEIGHT)
    return MappingProxyType(weights)


@cache
def _spread() -> Counter[str]:
    """By how many modules each word is used; one that all use tells nothing."""
    return Counter(word for module in MODULES for word in _weights(module))


def _words(text: str) -> frozenset[str]:
    return frozenset(map(_singular, re.findall(r"[a-z]{2,}", text.lower())))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

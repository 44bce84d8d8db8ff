"""Texts that say the same in nearly the same words."""

import re
from array import array
from math import ceil

# With an apostrophe or a dot inside, `what's` and `heapq.nlargest` are one word; `C++` and `C#` are not `C`.
_WORD = re.compile(r"\w+(?:['._]\w+)*[+#]*")
_FILLERS = frozenset(
    re.findall(r"\w+", "a an and any are be can could do does for in is it of on or some that the this to with your")
)


def content_words(text: str) -> frozenset[str]:
    """The distinct words of a text that carry meaning, without regard to case; all of them when none does."""
    folded = text.casefold().replace("’", "'")
    words = frozenset(_WORD.findall(folded)) or frozenset(folded.split())
    return words - _FILLERS or words


class NearDuplicates:
    """Texts that were added, none of them nearly identical with another.

    Two texts are nearly identical when their content words overlap by `threshold` or more (Jaccard: common words over
    all words); 1.0 asks for the same words, in any order. What is kept of a text are 64-bit hashes of its words.
    """

    def __init__(self, threshold: float) -> None:
        if not 0.0 < threshold <= 1.0:
            raise ValueError(f"the threshold must be above 0 and at most 1, got {threshold!r}")
        self._threshold = threshold
        self._by_word: dict[int, list[array[int]]] = {}

    def add(self, text: str) -> bool:
        """Whether `text` was added: False when it is nearly identical with one that is there."""
        words = content_words(text)
        hashes = frozenset(map(hash, words))
        prefix = [hash(word) for word in self._prefix(words)]
        if any(self._alike(hashes, other) for word in prefix for other in self._by_word.get(word, ())):
            return False
        kept = array("q", hashes)
        for word in prefix:
            self._by_word.setdefault(word, []).append(kept)
        return True

    def _alike(self, words: frozenset[int], other: "array[int]") -> bool:
        common = len(words.intersection(other))
        return common >= self._threshold * (len(words) + len(other) - common)

    def _prefix(self, words: frozenset[str]) -> list[str]:
        """So few words, the first in an order common to all sets, that similar sets share one of them.

        It is the prefix filter of set similarity joins (Chaudhuri, Ganti, Kaushik, ICDE 2006); long words come first,
        being rare.
        """
        count = len(words) - ceil(self._threshold * len(words)) + 1
        # Texts without a word share that they have none.
        return sorted(words, key=lambda word: (-len(word), word))[:count] or [""]

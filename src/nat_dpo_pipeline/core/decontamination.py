"""Does a prompt overlap with what a model is to be evaluated on?"""

import re
from collections.abc import Iterable, Iterator

from nat_dpo_pipeline.core.messages import Prompt, messages_of

_WORD = re.compile(r"\w+")


class EvaluationSet:
    """The n-grams of evaluation texts: words without regard to case and punctuation, as in GPT-3's appendix C.

    A prompt overlaps when it has one n-gram in common with any text; one that is shorter than n words when it is, as a
    whole, one of the texts. What is kept are 64-bit hashes. System messages are not looked at.
    """

    def __init__(self, texts: Iterable[str], ngram: int = 13) -> None:
        if ngram < 1:
            raise ValueError(f"an n-gram has at least 1 word, got {ngram!r}")
        self._ngram = ngram
        self._hashes = frozenset(number for text in texts for number in _hashes(text, ngram))

    def overlaps(self, prompt: Prompt) -> bool:
        return not self._hashes.isdisjoint(_hashes(_text(prompt), self._ngram))


def _hashes(text: str, ngram: int) -> Iterator[int]:
    folded = text.casefold()
    # What is written without letters is compared as it stands.
    words = tuple(_WORD.findall(folded) or folded.split())
    if words:
        yield from (hash(words[start : start + ngram]) for start in range(max(len(words) - ngram, 0) + 1))


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return " ".join(message.text for message in messages_of(prompt) if message.role != "system")

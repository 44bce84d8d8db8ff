"""What is shown on a terminal or in a log."""

import re
from collections import Counter
from collections.abc import Mapping

# What moves the cursor, colours, or hides and turns what is around it (Unicode 15.0): controls but the tab, separators
# of lines, marks of direction (UAX #9), annotations and tags; and halves of surrogate pairs, which cannot be written.
_NOT_SHOWN = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return `text` on one line, with what a terminal would act on as Python's escapes (`\\x1b`)."""
    return _NOT_SHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def listed(reasons: Mapping[str, int]) -> str:
    """Return `3 tie, 1 identical_text`, most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())

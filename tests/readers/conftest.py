"""Rows with everything in them that text can hold."""

from dataclasses import dataclass

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow

AWKWARD = 'a\u2028b\u2029c\x00d\x85e 😀 \ufeff \r\n "quoted" \\ שלום é'
LONG = "x " * 600_000
SYSTEM = (Message("system", "Be brief."), Message("user", "Why?"))
TURNS = (Message("user", "Why?"), Message("assistant", "Because."), Message("user", "Go on."))
ATTRIBUTES = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 1.5)

_PROMPTS = ("How?", f"What is {AWKWARD}?", SYSTEM, TURNS, "Is that long?")
_ANSWERS = (("So.", "Not so."), (AWKWARD, f"No {AWKWARD}"), ("Yes.", "No."), ("First.", "Second."), (LONG, "Short."))

ROWS = [
    PreferenceRow(prompt, chosen, rejected, 2.0, 1.0, "e", f"t{place}", ATTRIBUTES, ATTRIBUTES, "a", "b", "s")
    for place, (prompt, (chosen, rejected)) in enumerate(zip(_PROMPTS, _ANSWERS, strict=True))
]
SURROGATE = PreferenceRow("Why?", "half \ud83d of it", "No.")
_REFUSED = {"trl_standard": {2, 3}, "hh": {2}, "steerlm": {2, 3}, "ultrafeedback": {2, 3}}


@dataclass(frozen=True)
class Awkward:
    """The rows, and one that no format can carry."""

    rows: list[PreferenceRow]
    surrogate: PreferenceRow
    long: str = LONG

    def carried(self, name: str) -> list[PreferenceRow]:
        """The rows that a format carries."""
        return [row for place, row in enumerate(self.rows) if place not in _REFUSED.get(name, ())]


@pytest.fixture(scope="session")
def awkward() -> Awkward:
    return Awkward(ROWS, SURROGATE)

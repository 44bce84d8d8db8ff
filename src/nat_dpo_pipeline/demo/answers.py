"""Questions about a member of the library, and answers of different quality."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.library import Kind, Member
from nat_dpo_pipeline.demo.shelves import MODULES

QUESTION_FORMS = (
    "What does `{name}` do?",
    "When would you use `{name}`?",
    "How does `{name}` work, and how do you call it?",
    "What is `{name}` for in Python?",
    "What should I know about `{name}` before I use it?",
    "Can you explain `{name}`?",
)
_LONGEST_DETAILS = 900


class Quality(StrEnum):
    """How good an answer is, best first."""

    RIGHT = "right"
    PARTIAL = "partial"
    VAGUE = "vague"
    WRONG_MEMBER = "wrong_member"


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the ways in which a question can be answered; `wording` is an index into the quality's wordings."""

    quality: Quality
    wording: int


# Of two answers, mostly one is right; which of the two comes first is drawn apart.
_PAIRINGS = (
    (Quality.RIGHT, Quality.PARTIAL),
    (Quality.RIGHT, Quality.PARTIAL),
    (Quality.RIGHT, Quality.VAGUE),
    (Quality.RIGHT, Quality.WRONG_MEMBER),
    (Quality.PARTIAL, Quality.VAGUE),
    (Quality.PARTIAL, Quality.WRONG_MEMBER),
    (Quality.VAGUE, Quality.WRONG_MEMBER),
)


def answer(member: Member, variant: Variant, chance: Chance) -> str:
    """An answer to a question about the member."""
    told = _confused(member, chance) if variant.quality is Quality.WRONG_MEMBER else member
    return WORDINGS[variant.quality][variant.wording](told)


def one_variant(question: str, chance: Chance) -> Variant:
    """How to answer the question when it is asked alone."""
    return chance.rotated(VARIANTS, "variant", question)


def two_variants(question: str, chance: Chance) -> tuple[Variant, Variant]:
    """How to answer the question twice, with different quality."""
    better, worse = (_worded(quality, question, chance) for quality in chance.pick(_PAIRINGS, "pairing", question))
    return (better, worse) if chance.number("order", question) % 2 else (worse, better)


def _worded(quality: Quality, question: str, chance: Chance) -> Variant:
    return Variant(quality, chance.number("wording", question, quality) % len(WORDINGS[quality]))


def _confused(member: Member, chance: Chance) -> Member:
    """What another member's documentation says, under the name of this one."""
    others = [other for other in library.members(member.module) if other.paragraphs != member.paragraphs]
    alike = [other for other in others if other.kind is member.kind] or others
    elsewhere = (other for module in MODULES if module != member.module for other in library.members(module))
    other = chance.pick(alike, "confused", member.dotted) if alike else next(elsewhere)
    return replace(other, module=member.module, name=member.name, kind=member.kind)


def _docs_then_call(member: Member) -> str:
    return _paragraphs(member.summary, _details(member), _call(member))


def _call_then_docs(member: Member) -> str:
    return _paragraphs(f"`{member.dotted}{member.parameters}`", member.summary, _details(member))


def _introduced(member: Member) -> str:
    opening = f"`{member.dotted}` is a {member.kind} of Python's `{member.module}` module. {_call(member)}".strip()
    return _paragraphs(opening, f"Its documentation says: {member.summary}", _details(member))


def _first_sentence(member: Member) -> str:
    return member.first_sentence


def _in_short(member: Member) -> str:
    return f"In short: {member.first_sentence}"


def _named(member: Member) -> str:
    return f"`{member.dotted}`: {member.first_sentence}"


def _part_of(member: Member) -> str:
    return f"`{member.dotted}` is part of the `{member.module}` module, which comes with Python."


def _look_it_up(member: Member) -> str:
    return f"It is a {member.kind} in Python's `{member.module}` module. You can find more in its documentation."


def _import_it(member: Member) -> str:
    return f"That is from the standard library: `import {member.module}`, and then you can use `{member.dotted}`."


def _call(member: Member) -> str:
    if not member.parameters:
        return ""
    verb = "Create one with" if member.kind is Kind.CLASS else "Call it as"
    return f"{verb} `{member.name}{member.parameters}`."


def _details(member: Member) -> str:
    """As many of the paragraphs after the summary, whole, as make an answer and not yet a manual."""
    text = ""
    for paragraph in member.paragraphs[1:]:
        if len(text) + len(paragraph) > _LONGEST_DETAILS:
            break
        text = _paragraphs(text, paragraph)
    return text


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


WORDINGS: dict[Quality, tuple[Callable[[Member], str], ...]] = {
    Quality.RIGHT: (_docs_then_call, _call_then_docs, _introduced),
    Quality.PARTIAL: (_first_sentence, _in_short, _named),
    Quality.VAGUE: (_part_of, _look_it_up, _import_it),
    Quality.WRONG_MEMBER: (_docs_then_call, _call_then_docs, _introduced),
}
VARIANTS = tuple(Variant(quality, index) for quality, wordings in WORDINGS.items() for index in range(len(wordings)))

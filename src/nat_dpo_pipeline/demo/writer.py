"""The recipe's prompts → the replies of a writer who knows the standard library's documentation and nothing else."""

import reprlib
from collections.abc import Mapping

from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.answers import QUESTION_FORMS, answer, one_variant, two_variants
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.library import Member
from nat_dpo_pipeline.demo.topics import modules_about
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.generation import prompts

#: One reply in so many shows what language models do although the prompt asks them not to.
_ONE_LAPSE_IN = 25
_ANSWERS = (
    "the demo model answers the recipe's prompts (subtopics, questions, responses) about Python's standard library, "
    "and one-line questions that name one documented member of it in backticks, such as: What does `heapq.nlargest` do?"
)


def write(prompt: str, chance: Chance) -> str:
    """The reply to the prompt. Raises InputError when it is none of those that the demo can answer."""
    more = prompts.load("more").match(prompt)
    known = frozenset(more["known"].splitlines()) if more else frozenset()
    prompt = more["prompt"] if more else prompt
    if values := prompts.load("subtopics").match(prompt):
        return _subtopics(values, known, chance)
    if values := prompts.load("questions").match(prompt):
        return _questions(values, known, chance)
    if values := prompts.load("responses").match(prompt):
        return _two_responses(values["question"].strip(), chance)
    question = prompt.strip()
    if question == "Hello":  # asked to learn whether a model answers at all
        return f"Hello, {_ANSWERS}"
    return answer(_asked_about(question), one_variant(question, chance), chance)


def _subtopics(values: Mapping[str, str], known: frozenset[str], chance: Chance) -> str:
    topic = values["topic"].strip()
    count = _count(values, "n_subtopics")
    found = modules_about(topic, count + len(known), chance)
    modules = [module for module in found if module not in known][:count]
    opening = f"Here are {len(modules)} subtopics:"
    return _listed(modules, ", ", opening, chance, "subtopics", topic)


def _questions(values: Mapping[str, str], known: frozenset[str], chance: Chance) -> str:
    module = values["sub_topic"].strip()
    members = chance.shuffled(library.members(module), "questions", module)
    if not members:
        raise InputError(f"the demo model knows no module {reprlib.repr(module)}; {_ANSWERS}")
    count = _count(values, "n_questions")
    every = [_question(member, turn, chance) for turn in range(len(QUESTION_FORMS)) for member in members]
    questions = [question for question in every if question not in known]
    opening = f"Here are {len(questions[:count])} questions about {module}:"
    return _listed(questions[:count], "\n", opening, chance, "questions", module)


def _question(member: Member, turn: int, chance: Chance) -> str:
    form = (chance.number("form", member.dotted) + turn) % len(QUESTION_FORMS)
    return QUESTION_FORMS[form].format(name=member.dotted)


def _two_responses(question: str, chance: Chance) -> str:
    member = _asked_about(question)
    first, second = (answer(member, variant, chance) for variant in two_variants(question, chance))
    separator = chance.pick(("\n", "\n\n"), "separator", question)
    marked = f"RESPONSE A: {first}{separator}RESPONSE B: {second}"
    if not _lapses(chance, "responses", question):
        return marked
    with_preamble = f"Here are two possible responses to the question:\n\n{marked}"
    without_marker = f"RESPONSE A: {first}\n\n{second}"
    return chance.pick((with_preamble, with_preamble, without_marker), "lapse", question)


def _asked_about(question: str) -> Member:
    named = library.named_in(question)
    if len(named) != 1 or "\n" in question:
        raise InputError(f"{reprlib.repr(question)} is none of the prompts that the demo model knows: {_ANSWERS}")
    return named[0]


def _listed(items: list[str], separator: str, opening: str, chance: Chance, *key: str) -> str:
    plain = separator.join(items)
    if not _lapses(chance, *key):
        return plain
    numbered = "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))
    return chance.pick((f"{opening}\n\n{plain}", numbered), "lapse", *key)


def _lapses(chance: Chance, *key: str) -> bool:
    return chance.number("lapses", *key) % _ONE_LAPSE_IN == 0


def _count(values: Mapping[str, str], name: str) -> int:
    try:
        count = int(values[name])
    except ValueError as error:
        raise InputError(f"{name} must be a whole number, got {reprlib.repr(values[name])}") from error
    if count < 1:
        raise InputError(f"{name} must be at least 1, got {count}")
    return count

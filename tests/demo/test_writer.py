from collections import Counter
from contextlib import suppress

import pytest

from nat_dpo_pipeline.core.parsing import parse_lines, parse_terms, parse_two_responses
from nat_dpo_pipeline.demo import library
from nat_dpo_pipeline.demo.answers import QUESTION_FORMS, VARIANTS, Quality, Variant, answer, one_variant, two_variants
from nat_dpo_pipeline.demo.chance import Chance
from nat_dpo_pipeline.demo.library import Kind, Member
from nat_dpo_pipeline.demo.shelves import MODULES
from nat_dpo_pipeline.demo.writer import write
from nat_dpo_pipeline.errors import InputError, ParseError
from nat_dpo_pipeline.generation import prompts

CHANCE = Chance(0)
SOME = [member for module in MODULES for member in library.members(module)][::4]
QUESTIONS = [QUESTION_FORMS[0].format(name=member.dotted) for member in SOME]
PAIR_REPLIES = [write(prompts.load("responses").render(question=question), CHANCE) for question in QUESTIONS]


def _questions(module: str, count: int) -> str:
    return write(prompts.load("questions").render(sub_topic=module, n_questions=count), CHANCE)


@pytest.mark.parametrize("module", MODULES)
def test_every_question_can_be_answered(module: str) -> None:
    if not library.members(module):
        pytest.skip("this Python lacks the module, or its documentation")
    for question in parse_lines(_questions(module, 7), 1):
        assert write(question, CHANCE)


def test_questions_are_distinct_and_as_many_as_were_asked_for() -> None:
    for module in ("heapq", "math", "collections"):
        questions = parse_lines(_questions(module, 40), 40)
        assert len(set(questions)) == len(questions) == 40


def test_more_questions_than_there_are_gives_all_there_are() -> None:
    questions = parse_lines(_questions("heapq", 10_000), 1)
    assert len(set(questions)) == len(library.members("heapq")) * len(QUESTION_FORMS)


def _more(prompt: str, known: list[str]) -> str:
    return write(prompts.load("more").render(prompt=prompt, known="\n".join(known)), CHANCE)


def test_a_further_list_repeats_nothing_that_is_there_already() -> None:
    known = parse_lines(_questions("heapq", 5), 5)
    more = parse_lines(_more(prompts.load("questions").render(sub_topic="heapq", n_questions=4), known), 4)
    assert len(set(more)) == 4
    assert not set(more) & set(known)
    modules = parse_terms(write(prompts.load("subtopics").render(topic="Trees", n_subtopics=4), CHANCE), 4)
    further = parse_terms(_more(prompts.load("subtopics").render(topic="Trees", n_subtopics=3), modules), 3)
    assert len(set(further)) == 3
    assert not set(further) & set(modules)


def test_where_all_is_there_already_a_further_list_is_empty() -> None:
    known = parse_lines(_questions("heapq", 10_000), 1)
    more = _more(prompts.load("questions").render(sub_topic="heapq", n_questions=4), known)
    with pytest.raises(ParseError):
        parse_lines(more, 4)


@pytest.mark.parametrize("prompt", ["Hello!", prompts.load("questions").render(sub_topic="astrology", n_questions=2)])
def test_a_further_list_of_something_else_is_refused(prompt: str) -> None:
    with pytest.raises(InputError):
        _more(prompt, ["something"])


def test_few_replies_to_the_responses_prompt_lack_a_marker_and_few_have_a_preamble() -> None:
    parsed = 0
    for reply in PAIR_REPLIES:
        with suppress(ParseError):
            first, second = parse_two_responses(reply)
            assert first != second
            parsed += 1
    lacking, with_preamble = len(PAIR_REPLIES) - parsed, sum(reply.startswith("Here are") for reply in PAIR_REPLIES)
    assert 0 < lacking < 0.05 * len(PAIR_REPLIES)
    assert 0 < with_preamble < 0.1 * len(PAIR_REPLIES)


def test_few_lists_have_a_preamble_or_numbers_and_all_can_be_parsed() -> None:
    replies = [
        write(prompts.load("subtopics").render(topic=f"topic {number}", n_subtopics=4), CHANCE) for number in range(300)
    ]
    assert all(set(parse_terms(reply, 4)) <= set(MODULES) for reply in replies)
    forms = Counter("preamble" if reply.startswith("Here are") else reply[0] == "1" for reply in replies)
    assert set(forms) == {"preamble", True, False}
    assert forms[False] > 0.9 * len(replies)


def test_the_two_answers_to_a_question_differ_in_quality() -> None:
    for question in QUESTIONS:
        first, second = two_variants(question, CHANCE)
        assert first.quality is not second.quality


def test_the_better_answer_comes_first_about_half_of_the_time() -> None:
    order = list(Quality)
    pairs = [two_variants(question, CHANCE) for question in QUESTIONS]
    first = sum(order.index(one.quality) < order.index(other.quality) for one, other in pairs)
    assert 0.4 < first / len(pairs) < 0.6


def test_neighbouring_request_seeds_answer_in_different_ways() -> None:
    for question in QUESTIONS[:50]:
        assert len({one_variant(question, Chance(0, seed)) for seed in range(len(VARIANTS))}) == len(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.quality}-{variant.wording}")
def test_an_answer_tells_what_its_quality_promises(variant: Variant) -> None:
    for member in SOME:
        text = answer(member, variant, CHANCE)
        assert text == text.strip()
        if variant.quality is Quality.RIGHT:
            assert member.summary in text
            assert member.parameters in text
        if variant.quality is Quality.PARTIAL:
            assert text.endswith(member.first_sentence)
        if variant.quality is Quality.VAGUE:
            assert member.module in text
            assert member.summary not in text


def test_a_wrong_answer_is_what_the_documentation_says_of_another_member() -> None:
    wrong = next(variant for variant in VARIANTS if variant.quality is Quality.WRONG_MEMBER)
    for member in SOME:
        text = answer(member, wrong, CHANCE)
        others = [other for other in library.members(member.module) if other.paragraphs != member.paragraphs]
        assert not others or any(other.summary in text for other in others)


def test_a_member_that_is_alone_in_its_module_is_confused_with_one_of_another() -> None:
    alone = Member("nowhere", "only", Kind.FUNCTION, "", ("Tells nothing at all.",))
    text = answer(alone, Variant(Quality.WRONG_MEMBER, 0), CHANCE)
    assert text
    assert "Tells nothing" not in text


def test_all_qualities_and_wordings_occur() -> None:
    assert {one_variant(question, CHANCE) for question in QUESTIONS} == set(VARIANTS)


def test_a_greeting_is_answered() -> None:
    assert write("Hello", Chance(1)).startswith("Hello, the demo model answers")


def test_a_prompt_of_no_known_form_is_refused() -> None:
    with pytest.raises(InputError, match=r"heapq\.nlargest"):
        write("Hello!", CHANCE)

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.parsing import (
    parse_classified,
    parse_lines,
    parse_pooled,
    parse_reward,
    parse_terms,
    parse_two_responses,
    parse_yes_no,
)
from nat_dpo_pipeline.core.rewards import HELPSTEER_ATTRIBUTES
from nat_dpo_pipeline.errors import ConfigurationError, ParseError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=6) | st.just("reward:1"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "token", "logprob", "message", "role"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TOKENS = st.lists(
    st.fixed_dictionaries({"token": st.sampled_from(HELPSTEER_ATTRIBUTES) | JSON, "logprob": JSON}) | JSON, max_size=5
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "message": st.fixed_dictionaries({"content": JSON}) | JSON,
        "logprobs": st.fixed_dictionaries({"content": TOKENS | JSON}) | JSON,
    },
)
BODIES = st.fixed_dictionaries({}, optional={"choices": st.lists(CHOICES | JSON, max_size=2) | JSON, "model": JSON})
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# Words that begin neither like a list marker nor with a wrapping.
QUESTIONS = st.from_regex(r"[A-Z][a-z]{1,8}( [a-z`']{1,8}){1,6}\?", fullmatch=True)
TERMS = st.from_regex(r"[A-Z][a-z]{1,8}( [a-z]{1,8}){0,2}( \([a-z]{1,4}, [a-z]{1,4}\))?", fullmatch=True)


def _body(content: object = None, tokens: list[tuple[object, object]] | None = None) -> dict[str, Any]:
    logprobs = None if tokens is None else {"content": [{"token": name, "logprob": value} for name, value in tokens]}
    return {"choices": [{"message": {"role": "assistant", "content": content}, "logprobs": logprobs}]}


# The real replies.


def test_the_real_list_of_subtopics_is_read(notebook: Any) -> None:
    terms = parse_terms(notebook["subtopics_reply"], 10)
    assert len(terms) == 10
    assert (terms[0], terms[4], terms[-1]) == (
        "Supervised Learning",
        "Natural Language Processing",
        "Neural Networks",
    )


def test_each_real_list_of_questions_holds_ten(notebook: Any) -> None:
    lists = [parse_lines(reply, 10) for reply in notebook["question_replies"]]
    assert [len(questions) for questions in lists] == [10] * 10
    for questions, reply in zip(lists, notebook["question_replies"], strict=True):
        assert all(question.endswith("?") and question in reply for question in questions)
        assert reply.strip().endswith(questions[-1])


def test_both_real_responses_are_complete(notebook: Any) -> None:
    replies = notebook["two_response_replies"]
    assert len(replies) == 5
    for reply in replies:
        before, second = reply.split("\nRESPONSE B:")
        first = before.split("\nRESPONSE A:")[1]
        assert parse_two_responses(reply) == (first.strip(), second.strip())
        assert reply.endswith(second.strip()[-40:])


def test_preambles_and_markers_are_no_part_of_the_real_responses(notebook: Any) -> None:
    texts = [text for reply in notebook["two_response_replies"] for text in parse_two_responses(reply)]
    assert not any("RESPONSE" in text or "possible responses" in text for text in texts)


def test_the_real_reward_is_read_although_its_message_is_a_list(notebook: Any) -> None:
    body = notebook["reward_reply"]
    assert isinstance(body["choices"][0]["message"], list)
    reward = parse_reward(body)
    assert reward.scalar is None
    assert reward.attributes == {
        "helpfulness": 4.09375,
        "correctness": 4.03125,
        "coherence": 4.25,
        "complexity": 0.5703125,
        "verbosity": 1.109375,
    }


def test_the_real_reward_is_also_in_the_content_of_its_message(notebook: Any) -> None:
    choice = notebook["reward_reply"]["choices"][0]
    without_logprobs = {"choices": [{**choice, "logprobs": None}]}
    assert parse_reward(without_logprobs) == parse_reward(notebook["reward_reply"])


# Rewards.


@given(st.dictionaries(st.sampled_from(HELPSTEER_ATTRIBUTES), FINITE | st.integers(-9, 9), min_size=1))
def test_attributes_in_the_logprobs_are_a_reward(attributes: dict[str, float]) -> None:
    assert parse_reward(_body("", list(attributes.items()))).attributes == attributes


@given(st.dictionaries(st.sampled_from(HELPSTEER_ATTRIBUTES), FINITE, min_size=1))
def test_attributes_in_the_content_are_a_reward(attributes: dict[str, float]) -> None:
    content = ",".join(f"{name}:{value!r}" for name, value in attributes.items())
    assert parse_reward(_body(content)).attributes == attributes


@given(FINITE)
def test_a_named_reward_a_plain_number_and_a_number_as_token_are_a_scalar(value: float) -> None:
    for body in (_body(f"reward:{value!r}"), _body(f" {value!r}\n"), _body(None, [(repr(value), 0.0)])):
        reward = parse_reward(body)
        assert reward.scalar == value
        assert reward.attributes is None


@pytest.mark.parametrize(
    ("body", "scalar"),
    [
        (_body("reward:-25.6"), -25.6),
        (_body("Reward: 3"), 3.0),
        (_body("4.2"), 4.2),
        (_body("-12"), -12.0),
        (_body("+.5e1"), 5.0),
        (_body("", [("-25.625", -0.1)]), -25.625),
    ],
)
def test_known_forms_of_a_scalar_reward_are_read(body: dict[str, Any], scalar: float) -> None:
    assert parse_reward(body).scalar == scalar


def test_white_space_capitals_and_quotes_around_attribute_names_do_not_matter() -> None:
    assert parse_reward(_body("\"Helpfulness\": 4.1, 'correctness': 3")).attributes == {
        "helpfulness": 4.1,
        "correctness": 3.0,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "4.0", [4.0]])
def test_an_attribute_token_that_is_not_a_finite_number_is_no_reward(value: object) -> None:
    with pytest.raises(ParseError, match="no reward"):
        parse_reward(_body("", [("helpfulness", 4.0), ("correctness", value)]))


@pytest.mark.parametrize(
    "content",
    [
        "",
        None,
        [],
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "reward:nan",
        "reward:high",
        "helpfulness:4,correctness:nan",
        "helpfulness:4,helpfulness:3",
        "helpfulness:4,charm:3",
        "helpfulness",
        "The response is helpful: 4 out of 5.",
        "4 out of 5",
        "Sorry, I cannot rate this.",
        "0x10",
        "1,000",
    ],
)
def test_content_that_is_no_reward_is_refused(content: object) -> None:
    with pytest.raises(ParseError, match="no reward"):
        parse_reward(_body(content))


def test_the_logprobs_of_an_ordinary_chat_model_are_no_reward() -> None:
    with pytest.raises(ParseError, match="no reward"):
        parse_reward(_body("It is good.", [("It", -0.1), (" is", -0.2), (" good", -0.5), (".", -0.01)]))


def test_a_reply_without_a_reward_is_kept_with_the_error() -> None:
    with pytest.raises(ParseError) as error:
        parse_reward(_body("Sorry."))
    assert "Sorry." in error.value.reply


@given(BODIES)
def test_any_body_is_a_reward_or_a_parse_error(body: dict[str, Any]) -> None:
    try:
        reward = parse_reward(body)
    except ParseError:
        return
    assert (reward.scalar is None) != (reward.attributes is None)
    json.dumps([reward.scalar, dict(reward.attributes or {})], allow_nan=False)


# Lists.


@settings(max_examples=30)
@given(st.lists(QUESTIONS, min_size=1, max_size=12))
def test_questions_are_read_whatever_marks_their_lines(questions: list[str]) -> None:
    for form in (
        "{text}",
        "{n}. {text}",
        "{n}) {text}",
        "({n}) {text}",
        "- {text}",
        "* {text}",
        "• {text}",
        "**{text}**",
    ):
        lines = [form.format(n=number, text=text) for number, text in enumerate(questions, 1)]
        assert parse_lines("\n".join(lines), len(questions)) == questions
        assert parse_lines("\n\n".join(lines) + "\n", len(questions)) == questions
    if len(questions) > 1:
        assert parse_lines("Here are the questions:\n\n" + "\n".join(questions), len(questions)) == questions


@settings(max_examples=30)
@given(st.lists(TERMS, min_size=2, max_size=12))
def test_terms_are_read_from_commas_and_from_lines(terms: list[str]) -> None:
    count = len(terms)
    assert parse_terms(", ".join(terms), count) == terms
    assert parse_terms(", ".join(terms) + ".", count) == terms
    assert parse_terms(",\n".join(terms), count) == terms
    assert parse_terms("\n".join(terms), count) == terms
    assert parse_terms("Sure, here you go:\n" + ", ".join(terms), count) == terms
    numbered = "\n".join(f"{number}. {term}" for number, term in enumerate(terms, 1))
    assert parse_terms("Some subtopics are:\n\n" + numbered, count) == terms


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("Sets (union, difference), Heaps [min, max]", ["Sets (union, difference)", "Heaps [min, max]"]),
        (
            "**Sets**, *Heaps*, `heapq`, \"Queues\", 'Stacks', __Maps__",
            ["Sets", "Heaps", "heapq", "Queues", "Stacks", "Maps"],
        ),
        ("- Sets, and their laws\n- Heaps", ["Sets, and their laws", "Heaps"]),
        ("Sets,, Heaps,", ["Sets", "Heaps"]),
    ],
)
def test_terms_are_unwrapped_and_commas_inside_them_kept(reply: str, items: list[str]) -> None:
    assert parse_terms(reply, 2) == items


@pytest.mark.parametrize(
    "question",
    [
        "What does `heapq.nlargest` do?",
        "`heapq.nlargest` or `sorted`?",
        "`list` or `tuple`",
        'Who said "yes", "no" and "maybe"?',
        "Is `a` the same as `b`",
        "Which is better, A, B or C?",
        "Why is 3.14 not π?",
        "2nd or 3rd?",
        "Is **this** bold and **that**",
    ],
)
def test_marks_inside_a_question_are_kept(question: str) -> None:
    assert parse_lines(f"1. {question}\n2. {question}", 2) == [question, question]
    assert parse_lines(f"{question}\n{question}", 2) == [question, question]


def test_a_preamble_and_a_postscript_around_marked_lines_are_left_out() -> None:
    reply = "Sure! Here they are.\n\n1. What is a set?\n2. What is a heap?\n\nAsk me for more."
    assert parse_lines(reply, 2) == ["What is a set?", "What is a heap?"]


def test_a_single_line_that_ends_with_a_colon_is_an_item() -> None:
    assert parse_lines("Explain this:", 1) == ["Explain this:"]


@pytest.mark.parametrize("parse", [parse_terms, parse_lines])
@pytest.mark.parametrize("reply", ["", " \n ", ",", ";\n", "I'm sorry, but I can't help with that."])
def test_a_reply_without_a_list_is_refused(parse: Any, reply: str) -> None:
    with pytest.raises(ParseError) as error:
        parse(reply, 10)
    assert error.value.reply == reply


@pytest.mark.parametrize("parse", [parse_terms, parse_lines])
def test_a_list_of_less_than_half_of_what_was_asked_for_is_refused(parse: Any) -> None:
    assert parse("Sets\nHeaps\nMaps", 6) == ["Sets", "Heaps", "Maps"]
    with pytest.raises(ParseError, match="expected a list of 7, found 3"):
        parse("Sets\nHeaps\nMaps", 7)


@pytest.mark.parametrize("parse", [parse_terms, parse_lines])
def test_one_item_is_a_list_only_when_one_was_asked_for(parse: Any) -> None:
    assert parse("Sets", 1) == ["Sets"]
    with pytest.raises(ParseError, match="expected a list of 2, found 1"):
        parse("Sets", 2)


def test_more_items_than_were_asked_for_are_all_returned() -> None:
    assert parse_lines("A?\nB?\nC?", 2) == ["A?", "B?", "C?"]


def test_prose_is_refused() -> None:
    sentence = "a set is a collection of distinct elements and nothing is said about their order " * 2
    with pytest.raises(ParseError, match="found prose"):
        parse_terms(f"Well, {sentence}, {sentence}, {sentence}", 4)
    with pytest.raises(ParseError, match="found prose"):
        parse_lines(f"{sentence * 10}\n{sentence * 10}", 2)


@given(st.text(), st.integers(0, 12))
def test_any_reply_is_a_list_of_texts_or_a_parse_error(reply: str, expected: int) -> None:
    for parse in (parse_terms, parse_lines):
        try:
            items = parse(reply, expected)
        except ParseError:
            continue
        assert items
        assert all(item == item.strip() != "" for item in items)


# Two responses.


def _has_marker(text: str) -> bool:
    return any("response" in line.casefold() for line in text.splitlines())


ANSWERS = st.text(max_size=40) | st.lists(st.text(max_size=10), max_size=4).map("\n\n".join)


@pytest.mark.parametrize(
    "reply",
    [
        "RESPONSE A: one\nRESPONSE B: two",
        "RESPONSE A:\n\none\n\n\nRESPONSE B:\n\ntwo\n",
        "Here are two possible responses to the question:\n\nRESPONSE A: one\n\nRESPONSE B: two",
        "**RESPONSE A:** one\n\n**RESPONSE B:** two",
        "**RESPONSE A**: one\n\n**RESPONSE B**: two",
        "*Response A:* one\n*Response B:* two",
        "### Response A:\none\n### Response B:\ntwo",
        "## **RESPONSE A:**\none\n## **RESPONSE B:**\ntwo",
        "response a: one\nresponse b: two",
        "> RESPONSE A: one\n\n  RESPONSE  B : two",
    ],
)
def test_markers_are_found_however_they_are_dressed(reply: str) -> None:
    assert parse_two_responses(reply) == ("one", "two")


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("", "none"),
        ("one\n\ntwo", "none"),
        ("RESPONSE A: one", "A"),
        ("RESPONSE B: two", "B"),
        ("RESPONSE B: two\nRESPONSE A: one", "B, A"),
        ("RESPONSE A: one\nRESPONSE A: two", "A, A"),
        ("RESPONSE A: one\nRESPONSE B: two\nRESPONSE B: three", "A, B, B"),
        ("RESPONSE A: one\nRESPONSE B: two\nRESPONSE A: three", "A, B, A"),
        ("I prefer RESPONSE A: one\nRESPONSE B: two", "B"),
    ],
)
def test_markers_that_are_missing_or_doubled_are_refused(reply: str, found: str) -> None:
    with pytest.raises(ParseError, match=f"once each, found {found}$") as error:
        parse_two_responses(reply)
    assert error.value.reply == reply


@pytest.mark.parametrize(
    "reply", ["RESPONSE A:\nRESPONSE B: two", "RESPONSE A: one\nRESPONSE B: \n", "RESPONSE A:\nRESPONSE B:"]
)
def test_an_empty_response_is_refused(reply: str) -> None:
    with pytest.raises(ParseError, match="empty"):
        parse_two_responses(reply)


def test_responses_of_many_paragraphs_lists_and_code_stay_whole() -> None:
    first = "A heap is a tree.\n\n1. It is complete.\n2. It is ordered.\n\nSee RESPONSE B: below."
    second = "Use this:\n\n```python\nheapq.heapify(x)\n\n# A: done\n```\n\n**Done.**"
    assert parse_two_responses(f"RESPONSE A: {first}\n\nRESPONSE B: {second}") == (first, second)


@given(ANSWERS, ANSWERS)
def test_two_texts_come_back_as_they_were_written(first: str, second: str) -> None:
    assume(first.strip() and second.strip())
    assume(not _has_marker(first) and not _has_marker(second))
    reply = f"RESPONSE A:\n{first}\nRESPONSE B:\n{second}"
    assert parse_two_responses(reply) == (first.strip(), second.strip())


@pytest.mark.parametrize("first", ["**Bold** start", "__init__ runs", "* a bullet", "_emphasis_", "> quoted"])
@pytest.mark.parametrize(
    "form", ["RESPONSE {}: {}", "**RESPONSE {}:** {}", "**RESPONSE {}**: {}", "## RESPONSE {}: {}"]
)
def test_marks_at_the_start_of_an_answer_stay(form: str, first: str) -> None:
    reply = "\n\n".join([form.format("A", first), form.format("B", first + " too")])
    assert parse_two_responses(reply) == (first, first + " too")


def test_the_tokens_of_an_ordinary_answer_are_no_reward() -> None:
    with pytest.raises(ParseError):
        parse_reward(_body("3 things matter.", [("3", -0.1), (" things", -0.2)]))


def test_a_number_that_no_float_holds_is_no_reward() -> None:
    with pytest.raises(ParseError):
        parse_reward(_body(None, [("helpfulness", 10**400)]))


@pytest.mark.parametrize(
    ("reply", "terms"),
    [
        ("1. A, 2. B, 3. C", ["A", "B", "C"]),
        ("Here are three subtopics: A, B, C", ["A", "B", "C"]),
        ("Sure! Here they are: **A**, **B**, **C**", ["A", "B", "C"]),
        ("A, B, and C.", ["A", "B", "C"]),
        ("U.K., U.S., E.U.", ["U.K.", "U.S.", "E.U."]),
    ],
)
def test_terms_as_models_really_give_them(reply: str, terms: list[str]) -> None:
    assert parse_terms(reply, 3) == terms


@pytest.mark.parametrize("reply", ["I'm sorry, but I can't help with that.", "Unfortunately, no, never."])
def test_a_refusal_is_no_list(reply: str) -> None:
    with pytest.raises(ParseError, match="refused"):
        parse_terms(reply, 3)


def test_a_bold_preamble_is_no_question() -> None:
    assert parse_lines("**Here are two questions:**\nA?\nB?", 2) == ["A?", "B?"]


def test_lines_without_a_number_count_when_the_numbered_ones_are_too_few() -> None:
    assert parse_lines("1. A?\n2. B?\nC?\nD?", 4) == ["A?", "B?", "C?", "D?"]


@pytest.mark.parametrize(
    "reply",
    [
        "Here are 2 questions about graphs\nWhat is a?\nWhat is b?",
        "## Questions\n\n```\nWhat is a?\nWhat is b?\n```",
        "What is a?\nWhat is b?\nLet me know if you would like more!",
        "<think>\nI should list questions.\nWhat is c?\n</think>\nWhat is a?\nWhat is b?",
        "**1.** What is a?\n**2.** What is b?",
        "Q1: What is a?\nQ2: What is b?",
    ],
)
def test_questions_as_models_really_give_them(reply: str) -> None:
    assert parse_lines(reply, 2) == ["What is a?", "What is b?"]


@pytest.mark.parametrize("reply", ["Subtopics: A, B", "The subtopics are: A, B", "**Subtopics:**\n- A\n- B"])
def test_a_label_is_no_term(reply: str) -> None:
    assert parse_terms(reply, 2) == ["A", "B"]


def _first_token(*tops: tuple[object, object]) -> dict[str, Any]:
    content = [{"token": "Yes", "logprob": 0.0, "top_logprobs": [{"token": name, "logprob": p} for name, p in tops]}]
    return {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": content}}]}


def _served(**entry: object) -> dict[str, Any]:
    return {"id": "pool-1", "data": [{"index": 0, **entry}]}


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_the_reward_for_a_principle_is_the_log_odds_of_yes_against_no(yes: float, no: float) -> None:
    assert parse_yes_no(_first_token(("No", no), ("yes", 3.0), ("Yes", yes))) == yes - no


@pytest.mark.parametrize("response", ["4", "4.25", "reward:1", "It is\nso."])
def test_a_content_that_begins_with_the_response_is_no_reward(response: str) -> None:
    for content in (response, f" {response}\n", f"{response}5"):
        with pytest.raises(ParseError, match="begins with the response"):
            parse_reward(_body(content, [(content, -0.1)]), response)
    assert parse_reward(_body("-4.25"), response).scalar == -4.25
    assert parse_reward(_body(response, [("helpfulness", 3.0)]), response).attributes == {"helpfulness": 3.0}
    assert parse_reward(_body("4.25"), "  ").scalar == 4.25


@pytest.mark.parametrize(
    ("tops", "missing"),
    [
        ([("Yes", -0.01), ("YES", -5.0), (" No", -6.0)], "No among the 3 top ones"),
        ([("No", -0.01)], "Yes among the 1 top ones"),
        ([("yes", -0.01)], "Yes and No among"),
        ([], "no log-probabilities: kind principle needs a server that gives"),
        ([("Yes", -0.01), ("No", float("-inf"))], "of No among"),
        ([("Yes", None), ("No", -0.01)], "of Yes among"),
        ([("Yes", 0.0), ("No", -9999.0)], "of No among"),
        ([(["Yes"], -0.1), ("No", -0.01)], "of Yes among"),
    ],
)
def test_a_token_without_its_log_probability_is_never_guessed(tops: list[tuple[object, object]], missing: str) -> None:
    with pytest.raises(ParseError, match=missing):
        parse_yes_no(_first_token(*tops))


@pytest.mark.parametrize("data", [2.5, [2.5], [[2.5]], [[0.1], [7.0], [2.5]]])
def test_the_pooled_reward_is_the_only_number_or_that_of_the_last_token(data: object) -> None:
    assert parse_pooled(_served(data=data)) == 2.5


@pytest.mark.parametrize("data", [None, [], [1.0, []], "2.5", [True], [float("nan")], {"a": 1}, [[[2.5]]], [[]]])
def test_a_pooled_body_without_a_number_is_a_parse_error(data: object) -> None:
    with pytest.raises(ParseError, match=r"no number in data\[0\]"):
        parse_pooled(_served(data=data))


def test_the_only_probability_of_a_classified_body_is_the_reward() -> None:
    assert parse_classified(_served(label="LABEL_0", probs=[-3.25], num_classes=1)) == -3.25


@pytest.mark.parametrize(
    ("probs", "reason"),
    [([], "no number"), (None, "no number"), (["x"], "no number")],
)
def test_a_classified_body_without_a_number_is_a_parse_error(probs: object, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_classified(_served(probs=probs))


@pytest.mark.parametrize(
    ("parse", "found", "reason"),
    [
        (parse_pooled, {"data": [0.6, 0.8]}, "2 numbers a response, as a model of embeddings"),
        (parse_pooled, {"data": [[0.6, 0.8], [0.1, 0.2]]}, "2 numbers, as a model of so many classes"),
        (parse_pooled, {"data": [[0.6, 0.8], [0.1]]}, "2 numbers, as a model of so many classes"),
        (parse_classified, {"probs": [0.2, 0.8]}, "2 numbers, as a model of so many classes"),
    ],
)
def test_several_numbers_are_no_reward(parse: Callable[..., float], found: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse(_served(**found))


@given(
    st.dictionaries(
        st.sampled_from(["data", "choices"]),
        st.lists(
            st.dictionaries(st.sampled_from(["data", "probs", "logprobs", "message"]), JSON, max_size=3), max_size=2
        )
        | JSON,
        max_size=2,
    )
)
def test_any_body_of_a_scalar_server_is_a_number_or_a_parse_error(body: dict[str, Any]) -> None:
    for parse in (parse_pooled, parse_classified, parse_yes_no):
        try:
            value = parse(body)
        except (ConfigurationError, ParseError):
            continue
        assert json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    "number", [10**400, -(10**4000), float("nan"), float("inf"), None, "1" * 100_000, [[[[1]]]], {}]
)
def test_what_is_no_number_of_64_bits_is_unscored_with_a_reason(number: object) -> None:
    for body in ({"data": [{"data": number, "probs": [number]}]}, {"data": [{"data": [number], "probs": number}]}):
        for parse in (parse_pooled, parse_classified):
            with pytest.raises(ParseError):
                parse(body)
    for body in (
        _body(str(number)[:9999]),
        _body(number),
        _body("", [("helpfulness", number)]),
        _body("", [(number, number)]),
    ):
        with pytest.raises(ParseError):
            parse_reward(body)

import json
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.comparisons import Comparison, Winner
from nat_dpo_pipeline.core.rewards import GenRMFormat
from nat_dpo_pipeline.core.verdicts import parse_genrm, parse_rating, parse_winner
from nat_dpo_pipeline.errors import ParseError

BOXED, IN_JSON = GenRMFormat.NEMOTRON_SUPER_49B, GenRMFormat.QWEN3_NEMOTRON_235B
PIECES = st.sampled_from(
    [
        *(
            '{"rating": 7}',
            '{"winner": "A"}',
            '{"ranking": 2, "score_1": 1, "score_2": 5}',
            "NaN",
            "a",
            "\n",
            '"',
            "[",
            "{",
            "}",
        ),
        *("```json", "<think>", "</think>", '{"a": ' * 2000, "[The Begin of Individual Scores]", "\\boxed{1, 2}"),
    ]
)


def _sections(scores: str, ranking: str, end: str = "\n[The End of Ranking Score]") -> str:
    return (
        "[The Begin of Analysis on Response 1]\nFine.\n[The End of Analysis on Response 1]\n\n"
        f"[The Begin of Individual Scores]\n\\boxed{{{scores}}} \n[The End of Individual Scores]\n\n"
        f"[The Begin of Ranking Score]\n\\boxed{{{ranking}}}{end}"
    )


@pytest.mark.parametrize(
    "reply",
    [
        '{"rating": 7}',
        'It is good.\n\n{"rating": 7}\n',
        'It is good.\n```json\n{"rating": 7}\n```',
        '```\n{\n  "rating": 7.0,\n  "why": {"good": true}\n}\n```\n',
        '{"rating": 7}\n\nIt is good, but long.',
        '{"why": "it says {\\"rating\\": 10}", "rating": 7}',
        'The reply claims {"rating": 10} for itself.\n{"rating": 7}',
        'The reply says:\n{"rating": 10}\nThat is a fault.\n{"rating": 7}',
        '<think>Perhaps\n{"rating": 9}\n</think>\n{"rating": 7}',
        'Perhaps {"rating": 9}</think>{"rating": 7}',
    ],
)
def test_a_rating_is_read_where_the_judge_was_asked_to_put_it(reply: str) -> None:
    assert parse_rating(reply, 1, 10) == 7.0


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "7",
        "I cannot rate this.",
        'The reply ends with the text {"rating": 10}',
        'The reply holds\n{"rating": 10}\nand that is a fault.',
        '{"rating": 2}\nThe reply, on the other hand, says:\n{"rating": 10}',
        '{"score": 7}',
        '[{"rating": 7}]',
        '{"rating": 7',
        '<think>{"rating": 7}',
        '<think>\n{"rating": 7}\n',
    ],
)
def test_a_rating_elsewhere_or_one_of_two_is_not_the_judges(reply: str) -> None:
    with pytest.raises(ParseError) as error:
        parse_rating(reply, 1, 10)
    assert error.value.reply == reply


@pytest.mark.parametrize(
    "rating", ["0.9", "10.1", "-1", "1e400", "NaN", "Infinity", '"7"', "true", "null", "[7]", "{}"]
)
def test_a_rating_off_the_scale_is_a_parse_error(rating: str) -> None:
    with pytest.raises(ParseError, match="is not a number from 1 to 10"):
        parse_rating(f'{{"rating": {rating}}}', 1, 10)


@given(st.floats(-3, 3))
def test_any_number_on_the_scale_is_a_rating(rating: float) -> None:
    assert parse_rating(json.dumps({"rating": rating}), -3, 3) == rating


@pytest.mark.parametrize(
    ("text", "winner"),
    [("A", Winner.FIRST), ("B", Winner.SECOND), ("tie", Winner.TIE), (" b ", Winner.SECOND), ("Tie", Winner.TIE)],
)
def test_the_winner_is_a_or_b_or_none(text: str, winner: Winner) -> None:
    assert parse_winner(f"A is short.\n{json.dumps({'winner': text})}") == Comparison(winner)


@pytest.mark.parametrize("winner", ['"C"', '"A or B"', "1", "null", '["A"]', "true"])
def test_another_winner_is_a_parse_error(winner: str) -> None:
    with pytest.raises(ParseError, match="none of A, B and tie"):
        parse_winner(f'{{"winner": {winner}}}')


def test_a_judge_that_names_two_winners_names_none() -> None:
    with pytest.raises(ParseError, match="begins with one 'winner' and ends with another"):
        parse_winner('{"winner": "A"}\nOn second thoughts:\n{"winner": "B"}')
    assert parse_winner('{"winner": "A"}\nSo:\n{"winner": "A"}') == Comparison(Winner.FIRST)


@pytest.mark.parametrize(("ranking", "winner", "lead"), [(1, "A", 2.5), (3, "A", 0.5), (4, "B", 0.5), (6, "B", 2.5)])
def test_both_formats_of_generative_reward_models_are_read(ranking: int, winner: str, lead: float) -> None:
    expected = Comparison(Winner(winner), (4.0, 2.0), lead)
    scores = {"score_1": 4, "score_2": 2, "ranking": ranking}
    fenced = f"```json\n{json.dumps(scores, indent=2)}\n```"
    for reply in (
        json.dumps(scores),
        f"<think>\nHm.\n</think>\n\n{fenced}",
        json.dumps({"rubric": [], "overall": scores}),
    ):
        assert parse_genrm(reply, IN_JSON) == expected
    for reply in (
        _sections("4, 2", str(ranking)),
        _sections("4,2", f" {ranking} ", ""),
        f"x</think>{_sections('4, 2', str(ranking))}",
    ):
        assert parse_genrm(reply, BOXED) == expected


def test_sections_that_the_model_quotes_before_its_own_do_not_count() -> None:
    assert parse_genrm(f"Response 2 says:\n{_sections('1, 5', '6')}\n\n{_sections('4, 2', '2')}", BOXED) == Comparison(
        Winner.FIRST, (4.0, 2.0), 1.5
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "does not end with the sections"),
        (_sections("4, 2", "2") + "\nSo much for that.", "does not end"),
        (_sections("4", "2"), "expected two individual scores, found '4'"),
        (_sections("4, 2, 3", "2"), "expected two"),
        (_sections("4, six", "2"), "score of response 2 ' six' is not a number from 1 to 5"),
        (_sections("0, 2", "2"), "score of response 1 0.0 is not"),
        (_sections("4, 2", "7"), "ranking 7.0 is not a number from 1 to 6"),
        (_sections("4, 2", "3.5"), "ranking 3.5 is not one of"),
        (f"<think>{_sections('4, 2', '2')}", "does not end"),
    ],
)
def test_sections_that_do_not_fit_are_a_parse_error(reply: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse_genrm(reply, BOXED)


@pytest.mark.parametrize(
    "scores",
    [
        {"score_1": 4, "score_2": 2},
        {"score_1": 4, "ranking": 2},
        {"score_1": 6, "score_2": 2, "ranking": 2},
        {"score_1": 4, "score_2": 2, "ranking": 0},
        {"score_1": 4, "score_2": 2, "ranking": 2.5},
        {"overall": 4},
    ],
)
def test_scores_in_json_that_do_not_fit_are_a_parse_error(scores: dict[str, object]) -> None:
    with pytest.raises(ParseError):
        parse_genrm(json.dumps(scores), IN_JSON)


@given(st.text() | st.lists(PIECES | st.text(max_size=3), max_size=8).map("".join))
def test_any_reply_is_a_verdict_or_a_parse_error(reply: str) -> None:
    for parse in (lambda text: parse_rating(text, 1, 10), parse_winner, partial(parse_genrm, form=BOXED)):
        with suppress(ParseError):
            parse(reply)
    with suppress(ParseError):
        assert 1 <= min(parse_genrm(reply, IN_JSON).individual or ()) <= 5

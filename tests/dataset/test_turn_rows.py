import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.turn_rows import TurnSpool, turn_row
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.rows import RowKeys, read_row
from nat_dpo_pipeline.generation.turns import Flaw, Question, Response, Scored, Turn

QUESTION = Question((Message("system", "Be brief."), Message("user", "Why?")), "Text", "Letters")


def _turn(name: str = "question-0", text: str = "So.", **parts: Any) -> Turn:
    candidate = Candidate(
        "example",
        name,
        1,
        QUESTION.messages,
        text,
        2.5,
        {"helpfulness": 2.5},
        "served-name",
        {"topic": "Text", "subtopic": "Letters", "llm": "writer", "reward_model": "judge", "flaw": None},
    )
    return Turn(name, QUESTION, (candidate,), **parts)


def test_a_turn_is_one_line_with_all_that_is_known() -> None:
    cut = Scored(Response(QUESTION, 0, "Half", "writer", "served-name", Flaw.TRUNCATED), reason="truncated")
    row = turn_row(_turn(unscored=(cut,), set_aside="below_min_best_score"), "example")
    assert row.count(b"\n") == 1
    assert json.loads(row) == {
        "id": "example/question-0",
        "example_id": "example",
        "turn_id": "question-0",
        "topic": "Text",
        "subtopic": "Letters",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
        "candidates": [
            {
                "candidate_index": 1,
                "response": "So.",
                "score": 2.5,
                "attributes": {"helpfulness": 2.5},
                "model": "served-name",
                "llm": "writer",
                "reward_model": "judge",
                "flaw": None,
            }
        ],
        "unscored": [
            {
                "candidate_index": 0,
                "response": "Half",
                "score": None,
                "model": "served-name",
                "llm": "writer",
                "flaw": "truncated",
                "reason": "truncated",
            }
        ],
        "set_aside": "below_min_best_score",
    }


def test_a_failed_call_has_its_message_beside_the_reason() -> None:
    response = Response(QUESTION, 0, "So.", "writer", "served-name")
    failed = Scored(response, reason="request_refused", detail="judge answered 400: too long")
    (row,) = json.loads(turn_row(_turn(unscored=(failed,)), "example"))["unscored"]
    assert (row["reason"], row["detail"]) == ("request_refused", "judge answered 400: too long")


def test_a_row_is_read_by_the_workflow_for_candidates_of_ones_own() -> None:
    record = GenerationRecord()
    (candidate,) = read_row(turn_row(_turn(), "example").decode(), RowKeys(), record)
    assert (candidate.prompt, candidate.response, candidate.score) == (QUESTION.messages, "So.", 2.5)
    assert not record.failures


def test_text_without_utf_8_is_kept_as_an_escape() -> None:
    assert json.loads(turn_row(_turn(text="half \ud83d"), "example"))["candidates"][0]["response"] == "half \ud83d"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[TurnSpool]:
    spool = TurnSpool(tmp_path / "spool")
    yield spool
    spool.close()


def _names(spool: TurnSpool, *, to_pair: bool) -> list[str]:
    return [json.loads(row)["turn_id"] for row in spool.rows(to_pair=to_pair)]


def test_rows_come_in_the_order_of_their_paths(spool: TurnSpool) -> None:
    for path in [(10, 0), (2, 300), (2, 4), (0, 0, 7), (2, 3)]:
        spool.add(path, _turn(str(path)), "example")
    assert _names(spool, to_pair=True) == ["(0, 0, 7)", "(2, 3)", "(2, 4)", "(2, 300)", "(10, 0)"]


def test_a_path_has_one_row(spool: TurnSpool) -> None:
    for name in ("first", "second"):
        spool.add((1,), _turn(name), "example")
    assert _names(spool, to_pair=True) == ["second"]


def test_what_cannot_be_paired_is_apart(spool: TurnSpool) -> None:
    spool.add((0,), _turn("good"), "example")
    spool.add((1,), _turn("poor", set_aside="below_min_best_score"), "example")
    spool.add((2,), Turn("empty", QUESTION, ()), "example")
    spool.add((3,), _turn("odd", text="\ud83d"), "example")
    assert _names(spool, to_pair=True) == ["good", "odd"]
    assert _names(spool, to_pair=False) == ["poor", "empty"]


def test_rows_can_be_read_several_times_at_once(spool: TurnSpool) -> None:
    for number in range(5):
        spool.add((number,), _turn(str(number)), "example")
    one, other = spool.rows(to_pair=True), spool.rows(to_pair=True)
    assert list(zip(one, other, strict=True)) == [(row, row) for row in spool.rows(to_pair=True)]


def test_thoughts_without_an_answer_are_kept() -> None:
    response = Response(QUESTION, 0, "", "writer", "served-name", Flaw.ONLY_THOUGHTS, thoughts="Hm.")
    (row,) = json.loads(turn_row(_turn(unscored=(Scored(response, reason="only_thoughts"),)), "example"))["unscored"]
    assert (row["flaw"], row["reasoning"]) == ("only_thoughts", "Hm.")

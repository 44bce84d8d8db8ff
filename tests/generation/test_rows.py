import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.rows import RowKeys, read_row
from nat_dpo_pipeline.generation.settings import StepName

GOOD = {"response": "Because.", "score": 1.5}


def _read(row: object, keys: RowKeys | None = None) -> tuple[list[Candidate], GenerationRecord]:
    record = GenerationRecord()
    return read_row(json.dumps(row), keys or RowKeys(), record), record


def test_a_row_of_scored_responses_becomes_candidates() -> None:
    candidates, record = _read({"prompt": "Why?", "candidates": [GOOD, {"response": "No.", "score": -2}]})
    assert [(c.candidate_index, c.prompt, c.response, c.score) for c in candidates] == [
        (0, "Why?", "Because.", 1.5),
        (1, "Why?", "No.", -2.0),
    ]
    assert all(isinstance(candidate.score, float) for candidate in candidates)
    assert len({candidate.turn_id for candidate in candidates}) == 1
    assert record.failures == []


def test_a_prompt_may_be_messages() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    (candidate,), _ = _read({"prompt": messages, "candidates": [GOOD]})
    assert candidate.prompt == (Message("system", "Be brief."), Message("user", "Why?"))


def test_everything_else_becomes_metadata_and_the_candidates_own_wins() -> None:
    row = {
        "id": 7,
        "source": "row",
        "prompt": "Why?",
        "candidates": [{**GOOD, "source": "candidate", "model": "m"}, GOOD],
    }
    (first, second), _ = _read(row)
    assert first.metadata == {"id": 7, "source": "candidate", "model": "m"}
    assert second.metadata == {"id": 7, "source": "row"}


def test_the_keys_can_be_named() -> None:
    keys = RowKeys(prompt="instruction", candidates="outputs", response="text", score="reward")
    (candidate,), _ = _read({"instruction": "Why?", "outputs": [{"text": "a", "reward": 3, "score": 9}]}, keys)
    assert (candidate.prompt, candidate.response, candidate.score) == ("Why?", "a", 3.0)
    assert candidate.metadata == {"score": 9}


def test_a_response_may_be_a_message() -> None:
    (candidate,), _ = _read(
        {"prompt": "q", "candidates": [{"response": {"role": "assistant", "content": "a"}, "score": 0}]}
    )
    assert candidate.response == "a"


@pytest.mark.parametrize("text", ["", "{", "Why?", "{'prompt': 1}", "[]", "3", "null", '"text"'])
def test_a_text_that_is_no_json_object_is_an_input_error_that_shows_it(text: str) -> None:
    with pytest.raises(InputError) as error:
        read_row(text, RowKeys(), GenerationRecord())
    assert repr(text) in str(error.value)


def test_a_missing_prompt_is_an_input_error_that_names_the_keys_there_are() -> None:
    with pytest.raises(InputError, match="row 'r1' has no 'prompt'; its keys are id, question, candidates"):
        _read({"id": "r1", "question": "Why?", "candidates": [GOOD]})


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (None, "missing_prompt"),
        ([], "missing_prompt"),
        ("", "missing_prompt"),
        (" \n", "missing_prompt"),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": ""}], "missing_prompt"),
        (3, "content_not_text"),
        ([{"role": "assistant", "content": "a"}], "prompt_ends_with_assistant"),
        ("\ud800", "invalid_unicode"),
    ],
)
def test_a_prompt_that_is_none_is_an_input_error_with_the_reason(prompt: object, reason: str) -> None:
    with pytest.raises(InputError, match=rf"row 'without id': 'prompt' is not a prompt \({reason}\)"):
        _read({"prompt": prompt, "candidates": [GOOD]})


@pytest.mark.parametrize("candidates", [None, [], "a", {"response": "a", "score": 1}])
def test_a_row_without_a_list_of_candidates_is_an_input_error(candidates: object) -> None:
    with pytest.raises(InputError, match="no list of candidates under 'candidates'"):
        _read({"prompt": "q", "candidates": candidates})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("text", "must be an object, got 'text'"),
        (None, "must be an object, got None"),
        ({"response": "a"}, "'score' must be a finite number, got None"),
        ({"response": "a", "score": float("nan")}, "got nan"),
        ({"response": "a", "score": float("-inf")}, "got -inf"),
        ({"response": "a", "score": "1.5"}, "got '1.5'"),
        ({"response": "a", "score": True}, "got True"),
        ({"response": "a", "score": [1]}, "got [1]"),
        ({"response": "", "score": 1}, "'response' is empty"),
        ({"response": " \n", "score": 1}, "'response' is empty"),
        ({"score": 1}, "missing_response"),
        ({"response": None, "score": 1}, "missing_response"),
        ({"response": ["see", {"type": "image_url"}], "score": 1}, "image_audio_or_file"),
        ({"response": {"content": "", "tool_calls": [{"id": "1"}]}, "score": 1}, "malformed"),
    ],
)
def test_a_malformed_candidate_is_recorded_and_the_others_stay(bad: object, said: str) -> None:
    candidates, record = _read({"id": 5, "prompt": "q", "candidates": [GOOD, bad, GOOD]})
    assert [candidate.candidate_index for candidate in candidates] == [0, 2]
    (failure,) = record.failures
    assert (failure.step, failure.subject, failure.reason) == (StepName.INPUT, "5", FailureReason.MALFORMED_INPUT)
    assert failure.detail.startswith("candidate 1 of row '5': ")
    assert said in failure.detail


def test_a_long_value_is_shown_in_short() -> None:
    _, record = _read({"prompt": "q", "candidates": [{"response": "a", "score": "9" * 5000}]})
    assert len(record.failures[0].detail) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "response", "score"]), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(max_size=3) | JSON,
        "candidates": st.lists(st.fixed_dictionaries({"response": JSON, "score": JSON | st.floats()}) | JSON) | JSON,
        "id": JSON,
    },
)


@given(ROWS)
def test_every_candidate_of_a_row_is_read_or_recorded(row: dict[str, Any]) -> None:
    try:
        candidates, record = _read(row)
    except InputError:
        return
    assert len(candidates) + len(record.failures) == len(row["candidates"])

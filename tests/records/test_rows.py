"""Rows of this package and of NeMo Gym, and rollouts."""

from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.turn_rows import scored_turn_row
from nat_dpo_pipeline.testing import make_turn
from tests.records.helpers import read, write_lines

_ROW = {"run_id": "r", "example_id": "e", "turn_id": "t", "prompt": "Why?", "response": "So.", "score": 1.0}


def test_turn_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    turn = make_turn([1.0, 2.5], turn_id="t", example_id="e", prompt="Why?")
    (tmp_path / "candidates.jsonl").write_bytes(scored_turn_row(turn) * 2)
    found = read(tmp_path / "candidates.jsonl")
    assert found.formats == ["turn rows"]
    # Each row is a turn of its own, also when it is there twice.
    assert found.answers == [[(one.response, one.score) for one in turn.candidates]] * 2
    assert [(one.example_id, one.turn_id, one.prompt) for one in found.turns] == [
        ("e", "t", (Message("user", "Why?"),))
    ] * 2


def test_what_is_known_besides_becomes_metadata(tmp_path: Path) -> None:
    row = {
        "id": "row",
        "topic": "tea",
        "prompt": "Why?",
        "candidates": [{"response": "So.", "score": "1.5", "model": "m", "attributes": {"helpfulness": 4}}],
    }
    (turn,) = read(write_lines(tmp_path / "rows", [row])).turns
    assert turn.candidates == [
        Candidate(
            "row",
            "turn-0",
            0,
            "Why?",
            "So.",
            1.5,
            metadata={"id": "row", "topic": "tea", "model": "m", "attributes": {"helpfulness": 4}},
        )
    ]


@pytest.mark.parametrize("ids", [(1, 2), (1.0, 2.0), (True, False), ({"a": 1}, {"a": 2}), ("1", "2")])
@pytest.mark.parametrize("name", ["run_id", "example_id", "turn_id"])
def test_ids_of_any_type_tell_turns_apart(tmp_path: Path, name: str, ids: tuple[object, object]) -> None:
    rows = [{**_ROW, name: one, "response": text} for one in ids for text in ("So.", "Because.")]
    found = read(write_lines(tmp_path / "rows", rows))
    assert [len(turn.candidates) for turn in found.turns] == [2, 2]


def test_turns_that_were_set_aside_are_not_paired(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "candidates": [{"response": "So.", "score": 1.0}]}
    found = read(write_lines(tmp_path / "rows", [row, {**row, "set_aside": "low_best_score"}]))
    assert (len(found.turns), found.refused) == (1, {"set_aside": 1})


def test_flat_rows_compete_by_run_example_turn_and_prompt(tmp_path: Path) -> None:
    rows = [
        _ROW,
        {**_ROW, "turn_id": "u"},
        {**_ROW, "response": "Because.", "score": 2, "model": "m", "metadata": {"topic": "tea"}, "flaw": "truncated"},
        {**_ROW, "run_id": "s"},
        {**_ROW, "example_id": "f"},
        {**_ROW, "prompt": "Why not?"},
        {**_ROW, "response": "Why?", "candidate_index": 7, "score": None},
        {**_ROW, "response": "Why?", "turn_id": None},
    ]
    first, second = write_lines(tmp_path / "a", rows[:2]), write_lines(tmp_path / "b", rows[2:])
    found = read(first, second)
    assert found.formats == ["flat candidate rows"] * 2
    # A turn goes on in the next file, as a recorder starts a new one by size.
    assert found.answers == [[("So.", 1.0), ("Because.", 2.0)], *[[("So.", 1.0)]] * 4]
    better = found.turns[0].candidates[1]
    assert (better.candidate_index, better.metadata) == (1, {"model": "m", "topic": "tea", "flaw": "truncated"})
    assert found.files.turns_split == 1
    assert found.refused == {"missing_score": 1, "missing_turn_id": 1}


def test_metadata_that_is_no_object_is_kept_under_its_name(tmp_path: Path) -> None:
    found = read(write_lines(tmp_path / "rows", [{**_ROW, "metadata": "a text"}]))
    assert found.turns[0].candidates[0].metadata == {"metadata": "a text"}


def test_rollouts_of_one_prompt_compete(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number % 2}", "response": f"a{number}", "reward": number} for number in range(4)]
    found = read(write_lines(tmp_path / "rows", rows))
    assert found.formats == ["rollout rows"]
    assert found.answers == [[("a0", 0.0), ("a2", 2.0)], [("a1", 1.0), ("a3", 3.0)]]
    assert len({turn.example_id for turn in found.turns}) == 2
    assert found.files.turns_split == 0


def _response(*items: Any, **fields: Any) -> dict[str, Any]:
    """The body of OpenAI's Responses API, of which NeMo Gym's model is a subclass."""
    response = Response(
        id="r",
        created_at=0,
        model="policy",
        object="response",
        output=list(items),
        parallel_tool_calls=False,
        tool_choice="none",
        tools=[],
        **fields,
    )
    return response.model_dump(mode="json")


def _message(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(annotations=[], text=text, type="output_text")
    return ResponseOutputMessage(id="m", content=[part], role="assistant", status="completed", type="message")


def _gym_row(task: int, rollout: int, reward: object, response: dict[str, Any], asked: object) -> dict[str, Any]:
    """A line as `RolloutCollectionHelper` of NeMo Gym 0.4 writes it: a BaseVerifyResponse with the keys it adds."""
    return {
        "responses_create_params": {"input": asked, "tools": [], "parallel_tool_calls": True},
        "response": response,
        "reward": reward,
        "accuracy": 1.0,
        "_ng_task_index": task,
        "_ng_rollout_index": rollout,
        "agent_ref": {"type": "responses_api_agents", "name": "simple"},
    }


def test_rollouts_of_different_agents_do_not_compete(tmp_path: Path) -> None:
    rows = [_gym_row(0, index, float(index), _response(_message(str(index))), "2+2?") for index in range(4)]
    for row in rows[2:]:
        row["agent_ref"] = {"name": "another"}
    rows[0]["responses_create_params"]["instructions"] = None
    found = read(write_lines(tmp_path / "rollouts.jsonl", rows))
    assert found.answers == [[("0", 0.0), ("1", 1.0)], [("2", 2.0), ("3", 3.0)]]
    assert not any(key.startswith("_ng_") for turn in found.turns for one in turn.candidates for key in one.metadata)


def test_rollouts_of_nemo_gym_compete_by_task(tmp_path: Path) -> None:
    asked = [
        {"role": "developer", "content": "Be short.", "type": "message"},
        {"role": "user", "content": [{"type": "input_text", "text": "2+2?"}]},
    ]
    thought = ResponseReasoningItem(id="t", summary=[], type="reasoning")
    call = ResponseFunctionToolCall(arguments="{}", call_id="c", name="add", type="function_call")
    rows = [
        _gym_row(0, 0, 1.0, _response(thought, _message("4")), asked),
        _gym_row(0, 1, 0.0, _response(_message("5"), status="incomplete"), asked),
        _gym_row(1, 0, 0.0, _response(_message("6")), asked),
        _gym_row(2, 0, 1.0, _response(_message("7")), "3+4?"),
        _gym_row(2, 1, 1.0, _response(call, _message("7")), "3+4?"),
        _gym_row(2, 2, 1.0, _response(), "3+4?"),
        _gym_row(2, 3, None, _response(_message("8")), "3+4?"),
        _gym_row(2, 4, 1.0, _response(_message("one"), _message("two")), "3+4?"),
        {"_ng_failure_class": "timeout", **_gym_row(2, 5, 0.0, _response(_message("9")), "3+4?")},
    ]
    found = read(write_lines(tmp_path / "rollouts.jsonl", rows))
    assert found.formats == ["NeMo Gym rollouts"]
    # Two tasks may ask the same and want different answers.
    called = '7\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'
    assert found.answers == [
        [("4", 1.0), ("5", 0.0)],
        [("6", 0.0)],
        [("7", 1.0), (called, 1.0), ("one\ntwo", 1.0)],
    ]
    assert found.turns[0].prompt == (Message("developer", "Be short."), Message("user", "2+2?"))
    good, cut = found.turns[0].candidates
    assert (good.metadata["model"], good.metadata["accuracy"], "flaw" in good.metadata) == ("policy", 1.0, False)
    assert (cut.metadata["flaw"], cut.candidate_index) == ("truncated", 1)
    reasons = ("missing_response", "missing_score", "set_aside")
    assert found.refused == dict.fromkeys(reasons, 1)


def test_trajectories_end_with_what_the_agent_came_to(tmp_path: Path) -> None:
    def trajectory(name: str, *steps: tuple[str, str], **extra: object) -> dict[str, object]:
        told = [{"step_id": place, "source": source, "message": text} for place, (source, text) in enumerate(steps, 1)]
        told[-1].update(extra)
        return {"schema_version": "ATIF-v1.7", "trajectory_id": name, "agent": {"name": "a"}, "steps": told}

    asked = (("system", "Be short."), ("user", "Hi"))
    rows = [
        trajectory("a", *asked, ("agent", "thinking"), ("agent", "Hello")),
        trajectory("b", *asked, ("agent", "Hi"), ("user", "And?"), ("agent", "Bye")),
        trajectory("c", *asked, ("agent", "calls"), tool_calls=[{"tool_call_id": "1", "function_name": "f"}]),
        trajectory("d", *asked),
        trajectory("e", *asked, ("agent", "Good day")),
    ]
    write_lines(tmp_path / "t.jsonl", rows)
    scores = write_lines(
        tmp_path / "scores.jsonl", [{"id": name, "score": 1} for name in "abcd"] + [{"id": "e", "score": 2}]
    )
    found = read(tmp_path / "t.jsonl", scores)
    called = 'calls\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    # Where one of them calls a tool, trajectories are cut where their replies differ first.
    assert found.answers == [[("Hello", 1.0), ("Hi", 1.0), (called, 1.0), ("Good day", 2.0)]]
    assert found.turns[0].prompt == (Message("system", "Be short."), Message("user", "Hi"))
    assert found.refused == {"missing_response": 1}


@pytest.mark.parametrize(
    ("table", "refused"),
    [
        ('id,score\n"a",0.5\n', {}),
        ("score,session_id\n0.5,a\n1,\n", {"malformed": 1}),
        ('{"id": "a", "score": 0.1}\n{"item_id": "a", "reward": 0.5}\n{"id": "a"}\n', {"malformed": 1}),
        ('{"average_score": 1, "eval_output_items": [\n{"id": "a", "score": 0.5}]}', {}),
    ],
)
def test_tables_of_scores(tmp_path: Path, table: str, refused: dict[str, int]) -> None:
    steps = [{"source": "user", "message": "Hi"}, {"source": "agent", "message": "Hello"}]
    write_lines(tmp_path / "t.jsonl", [{"schema_version": "ATIF-v1.0", "session_id": "a", "steps": steps}])
    (tmp_path / "scores").write_text(table)
    found = read(tmp_path / "t.jsonl", tmp_path / "scores")
    assert (found.answers, found.refused) == ([[("Hello", 0.5)]], refused)


def _event(category: str, uuid: str, parent: str | None) -> dict[str, Any]:
    return {"atof_version": "0.1", "kind": "scope", "scope_category": category, "uuid": uuid, "parent_uuid": parent}


def _mark(parent: str | None, response: str, score: float) -> dict[str, Any]:
    data = {"turn_id": "t", "input": "Why?", "output": response, "score": score}
    return {
        "atof_version": "0.1",
        "kind": "mark",
        "uuid": response,
        "parent_uuid": parent,
        "name": "dpo_candidate_move",
        "data": data,
    }


def test_scopes_that_do_not_name_the_outermost_one_are_followed_up_to_it(tmp_path: Path) -> None:
    """ATOF 0.1 does not ask for `propagation_root_uuid`, which NeMo Relay writes."""
    events = [
        _event("start", "one", None),
        _event("start", "two", None),
        _event("start", "one.inner", "one"),
        _mark("one.inner", "a", 1.0),
        _mark("two", "b", 1.0),
        _event("end", "one.inner", "one"),
        _mark("one", "c", 2.0),
        _mark("two", "d", 2.0),
        _event("end", "one", None),
        # What is above it is not in the file, as of a part of a trace.
        _event("start", "three", "gone"),
        _mark("three", "e", 1.0),
        _mark("three", "f", 2.0),
    ]
    found = read(write_lines(tmp_path / "events.jsonl", events))
    assert found.formats == ["ATOF"]
    assert [[text for text, _ in turn] for turn in found.answers] == [["a", "c"], ["b", "d"], ["e", "f"]]
    assert [turn.example_id for turn in found.turns] == ["one", "two", "three"]

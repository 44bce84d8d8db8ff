"""What the writers of NAT and NeMo Relay wrote is read back: every candidate, in its turn, with its score."""

from collections import Counter
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.messages import Message, Reply, as_messages, has_calls
from tests.recordings import Recordings
from tests.records.helpers import read


@pytest.mark.parametrize(
    ("name", "format_name", "reason"),
    [
        ("recorded_candidates/workflow_output.json", "NAT workflow output", "score_not_finite"),
        ("recorded_candidates.jsonl", "NAT file exporter", "missing_score"),
        ("full.txt", "NAT /generate/full stream", "missing_score"),
        ("filtered.txt", "NAT /generate/full stream", "missing_score"),
        ("events.jsonl", "ATOF", "missing_score"),
    ],
)
def test_every_candidate_comes_back(recordings: Recordings, name: str, format_name: str, reason: str) -> None:
    found = read(recordings.folder / name)
    assert found.formats == [format_name]
    told = {turn.prompt: [(one.response, one.score) for one in turn.candidates] for turn in found.turns}
    assert told == recordings.turns
    # Each turn has a reply with a call, and half of them go on after one.
    replies = [one.response for turn in found.turns for one in turn.candidates]
    assert sum(isinstance(one, Reply) and bool(one.message.tool_calls[0].values()) for one in replies) == 6
    assert sum(has_calls(turn.prompt) for turn in found.turns) == 3
    assert [one.candidate_index for turn in found.turns for one in turn.candidates] == [0, 1, 2] * 6
    # Turns of one question are of one example, those of another are of another.
    assert sorted(Counter(turn.example_id for turn in found.turns).values()) == [2, 2, 2]
    assert found.refused == {reason: 3}
    assert (len(found.turns), found.files.turns_split, found.files.problems) == (6, 0, [])


def test_a_refusal_names_the_line(recordings: Recordings) -> None:
    path = recordings.folder / "recorded_candidates.jsonl"
    lines = path.read_text().split("\n")
    refused = read(path).bad
    assert [("no score" in lines[(one.line or 0) - 1], one.path) for one in refused] == [(True, str(path))] * 3
    assert str(refused[0]) == f"{path}:{refused[0].line}: missing_score"


@pytest.mark.parametrize("name", ["recorded_candidates.jsonl", "filtered.txt", "events.jsonl"])
def test_steps_of_another_name_are_told(recordings: Recordings, name: str) -> None:
    assert len(read(recordings.folder / name, step_name="another_step").turns) == 3
    none = read(recordings.folder / name, step_name="nobody")
    (problem,) = none.files.problems
    assert problem.startswith("no step is called 'nobody', but there are 'another_step', 'dpo_candidate_move': set ")


def test_without_the_filter_nat_leaves_the_steps_out_which_is_told(recordings: Recordings) -> None:
    path = recordings.folder / "unfiltered" / "recorded_candidates" / "workflow_output.json"
    (problem,) = read(path).files.problems
    assert "workflow_output_step_filter is [TTC_END]" in problem


def test_runs_of_one_item_compete_with_the_scores_of_an_evaluator(recordings: Recordings) -> None:
    folder = recordings.folder / "recorded_answers"
    found = read(folder / "workflow_output_atif.json", folder / "length_output.json")
    assert found.formats == ["ATIF trajectories", "score table"]
    # The evaluator scored the length of the answer, which is a question as often as it was asked.
    expected = [[(f"{one} " * count, float(len(f"{one} ") * count)) for count in (1, 2, 3)] for one in _QUESTIONS]
    assert [sorted(turn, key=lambda answer: answer[1]) for turn in found.answers] == expected
    assert [turn.prompt for turn in found.turns] == [(Message("user", one),) for one in _QUESTIONS]
    assert found.turns[0].candidates[0].metadata["item_id"] == "0_rep0"
    alone = read(folder / "workflow_output_atif.json")
    assert alone.refused == {"missing_score": 9}
    assert "gets its score from a table" in alone.files.problems[0]


_QUESTIONS = ("tea", "milk 🥛", "water")


def test_trajectories_of_relay_compete_with_the_scores_of_a_table(recordings: Recordings, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(
        "trajectory_id,judge,reward\nsession-0,x,0.5\nsession-1,x,1\nsession-2,y,nan\n"
    )
    found = read(recordings.folder / "relay-*.atif.json", tmp_path / "scores.csv")
    assert found.formats == ["ATIF trajectories"] * 3 + ["score table (CSV)"]
    assert found.answers == [[("A plant.", 0.5), ("A drink.", 1.0)]]
    assert as_messages(found.turns[0].prompt) == [{"role": "user", "content": "What is tea?"}]
    assert found.turns[0].candidates[0].metadata["model"] == "small"
    assert found.refused == {"score_not_finite": 1}


def test_files_of_different_formats_are_read_in_one_call(recordings: Recordings) -> None:
    names = ("full.txt", "events.jsonl", "recorded_candidates/workflow_output.json")
    found = read(*(recordings.folder / name for name in names))
    # What was recorded twice does not compete with itself: each run has its own turns.
    assert [len(turn.candidates) for turn in found.turns] == [3] * 18
    assert [file.candidates for file in found.files.files] == [18, 18, 18]

import json
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.report.run import read_facts, read_manifest, read_set_aside, read_turns


def test_the_facts_come_from_both_manifests(runs: Any) -> None:
    spending = {"step": "rewards", "llm": "judge", "model": "j/1", "requests": 4, "retries": 1, "replayed": 0}
    tokens = {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.5}
    folder = runs.write(
        runs.scored(1, 2.0, 1.0),
        sides={"train_pairs": 9, "validation_pairs": 1},
        spending=[{**spending, **tokens}],
        cost=0.5,
        skipped={"responses": {"refusal": 2}},
    )
    facts = read_facts(folder)
    assert (facts.name, facts.status, facts.cost) == ("run", "complete", 0.5)
    assert (facts.train_pairs, facts.validation_pairs) == (9, 1)
    assert (facts.spending[0].llm, facts.spending[0].requests, facts.spending[0].cost) == ("judge", 4, 0.5)
    assert facts.failed == {"responses": {"refusal": 2}}


def test_a_run_that_was_killed_has_no_manifest(runs: Any) -> None:
    folder = runs.write(runs.scored(1, 2.0, 1.0))
    (folder / "manifest.json").unlink()
    assert read_facts(folder).status == "unfinished"
    assert read_facts(folder).train_pairs is None


def test_a_count_beyond_what_can_be_written_is_damage(runs: Any) -> None:
    folder = runs.write(runs.scored(1, 2.0, 1.0), spending=[{"requests": 2**60, "retries": 3}])
    assert [(one.requests, one.retries) for one in read_facts(folder).spending] == [(0, 3)]


def test_a_folder_without_a_run_and_a_broken_manifest_are_told(runs: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no candidates\.jsonl: give a folder that `nat dpo generate` or"):
        read_facts(tmp_path)
    folder = runs.write()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(folder)


def test_the_turns_carry_what_is_known_of_each_candidate(runs: Any) -> None:
    folder = runs.write(runs.scored(1, 2.0, 1.0, llm="big"), runs.scored(2, 3.0))
    first, second = read_turns(folder)
    assert (first.example_id, first.turn_id, len(first.candidates)) == ("text", "question-1", 2)
    assert first.candidates[0].metadata["llm"] == "big"
    assert second.prompt != first.prompt


def test_what_is_damaged_or_set_aside_is_counted(runs: Any) -> None:
    unscored = [{"flaw": "refusal", "reason": "refusal"}, {"flaw": None, "reason": "no_score"}, {}, "?"]
    folder = runs.write(
        runs.row(1, runs.candidate(0, "a", 1.0), unscored=unscored),
        set_aside=[runs.row(2, runs.candidate(0, "b", 0.5), set_aside="below_min_best_score"), runs.row(3)],
    )
    with (folder / "candidates.jsonl").open("a") as file:
        file.write('{"id": "cut off", "candi\n\n[]\n')
    with (folder / "set_aside.jsonl").open("a") as file:
        file.write('{"id": "cut off", "unsco\n')
    found = read_set_aside(folder)
    assert found.turns == {"below_min_best_score": 1, "no_scored_response": 1}
    assert found.responses == {"refusal": 1, "no_score": 1, "unknown": 2}
    assert (found.scored, found.unreadable) == (1, 3)
    assert len(list(read_turns(folder))) == 1


def test_halves_of_surrogate_pairs_do_not_stop_a_report(runs: Any) -> None:
    folder = runs.write(runs.row(1, runs.candidate(0, "a", 1.0), subtopic="\ud800"))
    assert json.loads((folder / "candidates.jsonl").read_text())["subtopic"] == "\ud800"
    assert len(list(read_turns(folder))) == 1


def test_responses_with_halves_of_surrogate_pairs_are_counted_in_both_files(runs: Any) -> None:
    half = "half \ud800"
    unscored = [{"response": half, "flaw": "refusal", "reason": "refusal"}, {"response": "", "reason": half}]
    folder = runs.write(
        runs.row(1, runs.candidate(0, half, 1.0), runs.candidate(1, "whole", 2.0), unscored=unscored),
        set_aside=[
            runs.row(2, runs.candidate(0, half, 0.5), unscored=unscored[:1], set_aside="below_min_best_score"),
            runs.row(3, unscored=unscored[:1]),
        ],
    )
    (turn,) = read_turns(folder)
    found = read_set_aside(folder)
    assert [candidate.response for candidate in turn.candidates] == ["whole"]
    assert (found.responses["refusal"], found.responses.total()) == (3, 4)
    assert found.turns == {"below_min_best_score": 1, "no_scored_response": 1}
    assert (found.scored, found.unreadable) == (2, 0), "one of them could have been paired if it were text"


def test_unscored_responses_are_counted_under_the_names_of_the_manifest(runs: Any) -> None:
    unscored = [
        {"flaw": None, "reason": "request_refused", "detail": "model 'judge' answered 400: too long (request 1)"},
        {"flaw": None, "reason": "request_refused", "detail": "model 'judge' answered 400: too long (request 2)"},
        {"flaw": "truncated", "reason": "model_error", "detail": "model 'judge' is down"},
        {"flaw": "truncated", "reason": "truncated"},
        {"flaw": "empty", "reason": "empty"},
        {"flaw": None, "reason": "nothing_to_compare_with"},
    ]
    found = read_set_aside(runs.write(runs.row(1, runs.candidate(0, "a", 1.0), unscored=unscored)))
    assert found.responses == {
        "request_refused": 2,
        "model_error": 1,
        "truncated_reply": 1,
        "empty_reply": 1,
        "nothing_to_compare_with": 1,
    }
    assert found.flaws == {"truncated": 2, "empty": 1}


def test_messages_that_earlier_versions_wrote_as_reasons_are_one_count(runs: Any) -> None:
    unscored = [{"flaw": None, "reason": f"model 'judge' answered 400 (request {number})"} for number in range(3)]
    found = read_set_aside(runs.write(runs.row(1, runs.candidate(0, "a", 1.0), unscored=unscored)))
    assert found.responses == {"unknown": 3}


def test_flaws_are_those_of_all_responses_that_no_pair_is_made_of(runs: Any) -> None:
    cut, half = runs.candidate(0, "cut", 1.0, flaw="truncated"), runs.candidate(1, "\ud83d", 1.0, flaw="filtered")
    folder = runs.write(runs.row(1, cut, half), set_aside=[runs.row(2, cut, set_aside="below_min_best_score")])
    assert read_set_aside(folder).flaws == {"filtered": 1, "truncated": 1}

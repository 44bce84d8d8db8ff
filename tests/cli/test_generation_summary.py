import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.cli import generation_summary
from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, Target, WrittenDataset, write_dataset
from nat_dpo_pipeline.generation.plan import Asked, InputCounts, Plan, Scoring, make_plan
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord, ModelUsage
from nat_dpo_pipeline.generation.settings import Price, RecipeSettings
from nat_dpo_pipeline.generation.turns import Flaw, Question, Response, Scored, Turn

QUESTION = Question((Message("user", "What is it?"),))


def _record(**counts: int) -> GenerationRecord:
    record = GenerationRecord()
    record.counts.update(counts)
    return record


def _plan(prices: dict[str, Price] | None = None, **counts: int) -> Plan:
    inputs = InputCounts(**(counts or {"topics": 2}))
    asked = Asked({"writer": 1.0})
    return make_plan(RecipeSettings(), inputs, asked, [asked], [Scoring(Asked({"reward": 1.0}), 1)], prices or {})


def test_counts_say_what_is_missing_and_what_to_do() -> None:
    lines = generation_summary.counts_of(
        _record(topics=1, subtopics=9, questions=1234, candidates=5, missing_subtopics=1, duplicate_questions=1)
    )
    assert lines[0].split() == ["topics", "1"]
    assert lines[2].split() == ["questions", "1,234"]
    assert "  repeats replaced or left out: 1 question" in lines
    assert lines[-1] == "  1 subtopics fewer than asked for: raise max_top_ups, or ask for fewer n_subtopics"


def test_what_failed_calls_cost_is_not_blamed_on_the_writer() -> None:
    record = _record(missing_questions=10)
    record.failed_by["questions"] = Counter({FailureReason.MODEL_ERROR: 1})
    (line,) = (line for line in generation_summary.counts_of(record) if "fewer than" in line)
    assert line.endswith("asked for: 1 model error; the same command makes failed calls again")


def test_counts_say_what_was_set_aside_and_dropped() -> None:
    lines = generation_summary.counts_of(_record(candidates=4, questions_below_min_best_score=2, dropped_too_long=3))
    assert "  questions set aside, with their responses: 2 below min best score" in lines
    assert "  dropped by the pipeline: 3 too long" in lines


def test_nothing_is_told_as_nothing() -> None:
    assert generation_summary.counts_of(_record()) == ["  candidates          0"]
    assert generation_summary.failures_of(_record()) == []
    assert generation_summary.spending_of(_record()) == []
    assert generation_summary.replayed_of(_record()) == []


def test_failures_say_where_they_are_and_what_to_do() -> None:
    record = _record()
    record.failed_by = {"responses": Counter({FailureReason.TRUNCATED_REPLY: 12})}
    head, titles, row = generation_summary.failures_of(record, Path("run"))
    assert head == "Failures, one by one in run/failures.jsonl"
    assert titles.split()[:2] == ["step", "reason"]
    assert row.startswith("  12  responses  truncated reply  raise max_tokens")


def test_every_reason_has_advice() -> None:
    record = _record()
    record.failed_by = {"rewards": Counter(FailureReason)}
    lines = generation_summary.failures_of(record)
    assert len(lines) == 2 + len(FailureReason)
    assert all(len(line.split("  ")) >= 5 for line in lines[2:])


def test_without_a_file_some_failures_are_told_themselves() -> None:
    record = _record()
    for place in range(9):
        record.add(Failure("responses", "?", FailureReason.MODEL_ERROR, f"call {place}\nfailed"))
    details = [line for line in generation_summary.failures_of(record) if "call" in line]
    assert details == [f"  responses: call {place} failed" for place in range(5)]


def _used(**prices: Price) -> GenerationRecord:
    record = GenerationRecord(prices=prices)
    record.usage["rewards", "judge"] = ModelUsage("a-very-long-name-of-a-model/" + "x" * 60, 7, 1, 0, 1_000_000, 0)
    record.usage["subtopics", "writer"] = ModelUsage("writer", 3, 0, 0, 0, 500_000)
    return record


def test_spending_is_told_by_step_in_the_order_of_the_recipe() -> None:
    head, *rows = generation_summary.spending_of(
        _used(judge=Price(prompt=2.0, completion=0.0), writer=Price(prompt=0.0, completion=4.0))
    )
    assert head.split() == ["step", "model", "requests", "retried", "prompt", "tokens", "reply", "tokens", "cost"]
    assert rows[0].split() == ["subtopics", "writer", "3", "0", "0", "500,000", "2.00"]
    assert rows[1].split()[0] == "rewards"
    assert f"judge (a-very-long-name-of-a-model/{'x' * 60})" in rows[1]
    assert rows[2].split() == ["total", "10", "1", "1,000,000", "500,000", "4.00"]


def test_tokens_that_the_server_did_not_count_are_unknown_and_not_none() -> None:
    record = GenerationRecord()
    record.usage["responses", "writer"] = ModelUsage("writer", requests=3, uncounted=3)
    record.usage["rewards", "judge"] = ModelUsage("judge", requests=2, prompt_tokens=7, uncounted=1)
    _, writer, judge, _, note = generation_summary.spending_of(record)
    assert writer.split()[-2:] == ["unknown", "unknown"]
    assert judge.split()[-2:] == ["7", "0"]
    assert note == "  without the tokens of 4 replies, which the server did not count"


def test_an_unknown_finish_reason_is_told_by_its_word() -> None:
    lines = generation_summary.counts_of(_record(responses=3, finish_reason_moon=2, finish_reason_OTHER=1))
    assert lines[-1] == "  replies with an unknown finish_reason: 2 moon, 1 OTHER"


def test_a_price_that_is_missing_is_a_cost_that_is_not_known() -> None:
    *_, rewards, total = generation_summary.spending_of(_used(writer=Price(prompt=0.0, completion=4.0)))
    assert rewards.split()[-1] == total.split()[-1] == "-"
    assert "cost" not in generation_summary.spending_of(_used())[0]


def test_what_was_replayed_is_told_with_what_it_was_worth() -> None:
    record = GenerationRecord(prices={"writer": Price(prompt=1.0, completion=1.0)})
    record.usage["questions", "writer"] = ModelUsage("m", replayed=1500, replayed_prompt_tokens=2_000_000)
    assert "replayed" in generation_summary.spending_of(record)[0]
    (line,) = generation_summary.replayed_of(record)
    assert line == "  1,500 replies from the journal, worth 2.00: not asked or paid for again"


def _dataset(folder: Path, *formats: str) -> WrittenDataset:
    rows = [PreferenceRow(f"Why {n}?", "Because.", "No.") for n in range(9)]
    rows.append(PreferenceRow((Message("system", "Be brief."), Message("user", "Why?")), "Because.", "No."))
    splits = {SplitName.TRAIN: rows[:-1], SplitName.VALIDATION: rows[-1:]}
    return write_dataset(folder, splits, Provenance(0, {}, {}), Target(formats))


def test_the_files_of_every_format_are_told_and_how_to_train_on_them(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "dataset", "kto", "trl", "helix")
    (tmp_path / "set_aside.jsonl").touch()
    head, *lines = generation_summary.files_of(tmp_path, dataset, Counter(candidates=20))
    told = [re.split(" {2,}", line.strip()) for line in lines]
    assert head == "Files"
    assert [(Path(path).relative_to(tmp_path).as_posix(), *rows) for path, *rows in told[:-3]] == [
        ("candidates.jsonl", "20 candidates"),
        ("set_aside.jsonl", "questions that cannot be paired, with the reasons"),
        ("dataset/kto/train.jsonl", "18 rows"),
        ("dataset/kto/validation.jsonl", "2 rows"),
        ("dataset/trl/train.jsonl", "9 rows"),
        ("dataset/trl/validation.jsonl", "1 rows"),
        ("dataset/trl/dpo.yaml",),
        ("dataset/helix/training.jsonl", "9 rows"),
        ("dataset/helix/validation.jsonl", "1 rows"),
        ("dataset/helix/job.json",),
        ("dataset/README.md",),
        ("dataset/manifest.json",),
    ]
    assert lines[-3:] == [
        f"To train on it, in {tmp_path / 'dataset'}",
        "  trl    trl dpo --config trl/dpo.yaml",
        "  helix  the 6 commands in its README.md",
    ]


def test_a_plan_is_a_table_with_its_assumptions() -> None:
    lines = generation_summary.plan_lines(_plan())
    assert lines[0] == "2 topics → 200 questions → 400 responses"
    assert lines[1].split() == ["step", "model", "calls", "prompt", "tokens", "reply", "tokens"]
    assert [line.split()[0] for line in lines[2:7]] == ["subtopics", "questions", "responses", "rewards", "total"]
    assert lines[6].split()[1] == str(2 + 20 + 200 + 400)
    text = " ".join(lines)
    assert "Calls are exact when nothing goes wrong" in text
    assert "a response 350" in text
    assert "No cost is told without `prices`" in text
    assert "that the preview took" in " ".join(generation_summary.plan_lines(_plan(), measured=True))
    priced = generation_summary.plan_lines(
        _plan({"writer": Price(prompt=1.0, completion=1.0), "reward": Price(prompt=1.0, completion=1.0)})
    )
    assert priced[1].split()[-1] == "cost"
    assert "-" not in priced[6]


@pytest.mark.parametrize(
    ("counts", "subject"),
    [
        ({"topics": 1}, "1 topic → 100 questions → 200 responses"),
        ({"questions": 1}, "1 question → 2 responses"),
        ({"topics": 1, "questions": 2}, "1 topic and 2 questions → 102 questions → 204 responses"),
        ({"questions": 2, "malformed": 1}, "2 questions (1 malformed input is left out) → 4 responses"),
        ({"questions": 2, "malformed": 3}, "2 questions (3 malformed inputs are left out) → 4 responses"),
    ],
)
def test_the_subject_of_a_plan(counts: dict[str, int], subject: str) -> None:
    assert generation_summary.plan_lines(_plan(None, **counts))[0] == subject


def _turn(*scores: float, **parts: Any) -> Turn:
    candidates = tuple(
        Candidate("", "t", index, QUESTION.messages, f"answer {index}", score, metadata={"llm": "writer"})
        for index, score in enumerate(scores)
    )
    return Turn("t", QUESTION, candidates, **parts)


def test_a_preview_marks_the_pair_that_is_widest_apart() -> None:
    lines = generation_summary.preview_lines([_turn(1.0, 3.0, 2.0)], PairingRules())
    assert lines == [
        "Question 1: What is it?",
        "  [1] 3 by writer  ← chosen",
        "      answer 1",
        "  [2] 2 by writer",
        "      answer 2",
        "  [0] 1 by writer  ← rejected",
        "      answer 0",
        "  → pair [1] over [0], 2 apart and 2 more",
        "",
    ]


def test_a_preview_says_why_there_is_no_pair() -> None:
    lines = generation_summary.preview_lines(
        [_turn(1.0, 1.0), _turn(1.0, 2.0, set_aside="below_min_best_score")], PairingRules()
    )
    assert "  → no pair; left out: 1 tie" in lines
    assert "  → set aside: below min best score" in lines
    assert not any("chosen" in line for line in lines)


def test_a_preview_shows_the_message_of_a_score_that_failed() -> None:
    failed = Scored(Response(QUESTION, 2, "So.", "writer", "m"), reason="model_error", detail="judge is down")
    lines = generation_summary.preview_lines([_turn(1.0, unscored=(failed,))], PairingRules())
    assert "  [2] no score by writer: judge is down" in lines


def test_a_preview_shows_what_could_not_be_scored_and_the_beginning_of_what_is_long() -> None:
    cut = Scored(Response(QUESTION, 1, "word " * 500, "writer", "m", Flaw.TRUNCATED), reason=Flaw.TRUNCATED)
    lines = generation_summary.preview_lines([_turn(1.0, unscored=(cut,))], PairingRules())
    assert "  [1] no score by writer: truncated" in lines
    assert "      … (2,500 characters)" in lines
    assert len(lines) < 15
    assert max(map(len, lines)) <= 100

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.report.summary import CollectionReport, describe, total

COUNTS = st.integers(0, 99)
REASONS = st.dictionaries(st.sampled_from(["tie", "malformed", "model_error"]), st.integers(1, 99)).map(Counter)
REPORTS = st.builds(
    CollectionReport,
    examples=COUNTS,
    examples_without_candidates=COUNTS,
    interrupted_runs=COUNTS,
    generated=st.dictionaries(st.sampled_from(["topics", "questions"]), st.integers(1, 99)).map(Counter),
    failed=st.dictionaries(st.sampled_from(["responses", "rewards"]), REASONS),
    candidates=COUNTS,
    refused=REASONS,
    turns=COUNTS,
    turns_split=COUNTS,
    turns_with_one_candidate=COUNTS,
    pairs=COUNTS,
    skipped=REASONS,
    problems=st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(tuple),
)
FULL = CollectionReport(
    examples=4,
    examples_without_candidates=1,
    interrupted_runs=2,
    generated=Counter(topics=1, subtopics=2, questions=20, responses=38),
    failed={"responses": Counter(unparsable_reply=1), "rewards": Counter()},
    candidates=36,
    refused=Counter(score_not_finite=2),
    turns=19,
    turns_split=3,
    turns_with_one_candidate=5,
    pairs=11,
    skipped=Counter(tie=6, identical_text=1),
    problems=("two runs were interrupted",),
)


@settings(max_examples=30)
@given(REPORTS, REPORTS, REPORTS)
def test_reports_add_up_in_any_grouping(one: CollectionReport, two: CollectionReport, three: CollectionReport) -> None:
    assert total([one, two, three]) == one + (two + three)


@given(REPORTS)
def test_an_empty_report_adds_nothing(report: CollectionReport) -> None:
    assert total([report]) == report + CollectionReport() == report
    assert total([]) == CollectionReport()


@settings(max_examples=30)
@given(REPORTS, REPORTS)
def test_every_count_of_a_sum_is_the_sum_of_the_counts(one: CollectionReport, other: CollectionReport) -> None:
    def counted(report: CollectionReport) -> Counter[object]:
        counts: Counter[object] = Counter({k: v for k, v in report.to_json().items() if isinstance(v, int)})
        counts.update({(stage, why): n for stage, reasons in report.skips().items() for why, n in reasons.items()})
        counts.update({("generated", name): number for name, number in report.generated.items()})
        return counts

    assert counted(one + other) == counted(one) + counted(other)


def test_the_same_problem_is_told_once() -> None:
    one, other = CollectionReport(problems=("a", "b")), CollectionReport(problems=("c", "a"))
    assert (one + other).problems == ("a", "b", "c")


def test_skips_name_the_stage_and_leave_out_stages_without_any() -> None:
    assert FULL.skips() == {
        "responses": {"unparsable_reply": 1},
        "candidates": {"score_not_finite": 2},
        "pairs": {"tie": 6, "identical_text": 1},
    }
    assert CollectionReport().skips() == {}


def test_the_report_as_json_holds_the_counts() -> None:
    assert FULL.to_json() == {
        "examples": 4,
        "examples_without_candidates": 1,
        "interrupted_runs": 2,
        "generated": {"topics": 1, "subtopics": 2, "questions": 20, "responses": 38},
        "candidates": 36,
        "turns": 19,
        "turns_split": 3,
        "turns_with_one_candidate": 5,
        "pairs": 11,
        "problems": ["two runs were interrupted"],
    }


def test_a_full_report_is_described_line_by_line() -> None:
    assert describe(FULL) == [
        "topics                1",
        "subtopics             2",
        "questions             20",
        "responses             38",
        "candidates            36",
        "turns                 19",
        "pairs                 11",
        "skipped responses     1 unparsable_reply",
        "skipped candidates    2 score_not_finite",
        "skipped pairs         6 tie, 1 identical_text",
        "skipped turns         5 with one candidate",
        "split turns           3 whose candidates had different prompts",
        "no candidates from    1 of 4 examples",
        "problem               two runs were interrupted",
    ]


def test_candidates_that_the_workflow_counted_are_not_told_twice() -> None:
    generated = Counter({"candidates": 36, "missing_questions": 2, "topics": 0})
    assert describe(CollectionReport(generated=generated, candidates=35)) == [
        "missing questions     2",
        "candidates            35",
        "turns                 0",
        "pairs                 0",
    ]


def test_a_report_of_nothing_says_so_in_three_lines() -> None:
    assert [line.split() for line in describe(CollectionReport())] == [
        ["candidates", "0"],
        ["turns", "0"],
        ["pairs", "0"],
    ]


def test_reasons_are_listed_most_frequent_first() -> None:
    assert listed({"identical_text": 1, "tie": 3}) == "3 tie, 1 identical_text"
    assert listed({}) == ""

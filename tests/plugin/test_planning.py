import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.generation.plan import GENRM_TOKENS, JUDGEMENT_TOKENS, Plan
from nat_dpo_pipeline.generation.settings import InputKind
from nat_dpo_pipeline.plugin.commands.generation import inputs_of, load
from nat_dpo_pipeline.plugin.planning import count_inputs, plan_of


def _nim(**settings: object) -> dict[str, object]:
    return {"_type": "nim", "model_name": "m", **settings}


def _plan(
    folder: Path, workflow: dict[str, Any], topics: tuple[str, ...] = ("Text",), **llms: dict[str, object]
) -> Plan:
    source = {
        "llms": {"writer": _nim(), "other": _nim(), "judge": _nim(), **llms},
        "workflow": {
            "_type": "preference_data",
            "writer_llm": "writer",
            "n_subtopics": 2,
            "n_questions": 3,
            "responses": "independent",
            "n_responses": 4,
            **({} if "scorer" in workflow else {"reward_llm": "judge"}),
            **workflow,
        },
    }
    (folder / "config.yml").write_text(yaml.safe_dump(source))
    config, loaded = load(folder / "config.yml")
    return plan_of(config, loaded, inputs_of(config, topics, None))


def _rewards(plan: Plan) -> list[tuple[list[str], int]]:
    return [(list(row.llms), row.calls) for row in plan.rows if row.step == "rewards"]


def test_inputs_are_counted_as_they_are_read() -> None:
    messages = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    counts = count_inputs(["Text", "Why so?", '{"topic": "Dates?"}', messages, "", "{}"], InputKind.AUTO)
    assert (counts.topics, counts.questions, counts.malformed) == (2, 2, 2)
    assert (counts.topic_characters, counts.question_characters) == (4 + 6, 7 + 9 + 4)
    assert count_inputs(["Text"], InputKind.QUESTION).questions == 1


def test_a_plan_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_API_KEY", raising=False)
    plan = _plan(tmp_path, {})
    assert plan.calls() == {"subtopics": 1, "questions": 2, "responses": 24, "rewards": 24}
    assert [list(row.llms) for row in plan.rows] == [["writer"], ["writer"], ["writer"], ["judge"]]


def test_a_pool_shares_the_calls_and_everyone_makes_them_all(tmp_path: Path) -> None:
    shared = _plan(tmp_path, {"responder_llm": {"models": {"writer": 1, "other": 3}}})
    (row,) = (row for row in shared.rows if row.step == "responses")
    assert (row.llms, row.calls) == ({"writer": 1.0, "other": 3.0}, 24)
    everyone = _plan(tmp_path, {"responder_llm": {"models": ["writer", "other"], "use": "all"}})
    rows = [(list(row.llms), row.calls) for row in everyone.rows if row.step == "responses"]
    assert rows == [(["writer"], 24), (["other"], 24)]
    assert _rewards(everyone) == [(["judge"], 48)]


SCORERS: dict[str, tuple[dict[str, Any], list[tuple[list[str], int]]]] = {
    "reward_model": ({"llm": "judge"}, [(["judge"], 24)]),
    "principle": ({"llm": "judge", "principle": "correctness"}, [(["judge"], 24)]),
    "pooling": ({"llm": ["judge", "other"]}, [(["judge", "other"], 24)]),
    "classify": ({"llm": "judge"}, [(["judge"], 24)]),
    "rating_judge": ({"llm": "judge"}, [(["judge"], 24)]),
    "pairwise_judge": ({"llm": "judge"}, [(["judge"], 6 * 4 * 3)]),
    "genrm": ({"llm": "judge", "format": "nemotron-super-49b"}, [(["judge"], 6 * 4 * 3)]),
    "function": ({"function": "mine"}, []),
    "ensemble": (
        {"members": {"a": {"kind": "pooling", "llm": "judge"}, "b": {"kind": "rating_judge", "llm": "other"}}},
        [(["judge"], 24), (["other"], 24)],
    ),
}


@pytest.mark.parametrize("kind", SCORERS)
def test_the_calls_of_each_kind_of_scorer(tmp_path: Path, kind: str) -> None:
    settings, expected = SCORERS[kind]
    assert _rewards(_plan(tmp_path, {"scorer": {"kind": kind, **settings}})) == expected


def test_judgements_are_as_long_as_their_model_may_write(tmp_path: Path) -> None:
    def reply(kind: str, **llm: object) -> float:
        settings = SCORERS[kind][0]
        row = _plan(tmp_path, {"scorer": {"kind": kind, **settings}}, judge=_nim(**llm)).rows[-1]
        return row.completion_tokens / row.calls

    assert reply("rating_judge") == JUDGEMENT_TOKENS
    assert reply("rating_judge", max_tokens=40) == 40
    assert reply("genrm") == GENRM_TOKENS


def test_a_comparison_reads_both_responses_and_its_instructions(tmp_path: Path) -> None:
    def prompt(kind: str) -> float:
        row = _plan(tmp_path, {"scorer": {"kind": kind, **SCORERS[kind][0]}}).rows[-1]
        return row.prompt_tokens / row.calls

    assert prompt("pairwise_judge") > prompt("genrm") > prompt("rating_judge") > prompt("reward_model") > 350


def test_a_responders_max_tokens_bounds_responses(tmp_path: Path) -> None:
    plan = _plan(tmp_path, {}, writer=_nim(max_tokens=10))
    assert [row.completion_tokens for row in plan.rows[:3]] == [2 * 4, 2 * 10, 24 * 10]


def test_prices_are_those_of_the_workflow(tmp_path: Path) -> None:
    price = {"prompt": 1, "completion": 1}
    plan = _plan(tmp_path, {"prices": {"writer": price, "judge": price}})
    assert plan.cost == pytest.approx(
        sum(row.prompt_tokens + row.completion_tokens for row in plan.rows) / 1e6, rel=1e-3
    )


@pytest.mark.parametrize(
    ("workflow", "said"),
    [
        ({"writer_llm": "nobody"}, "names the llm 'nobody', which is not under llms:"),
        ({"pipeline": "os.path.nothing"}, "pipeline: 'os.path.nothing' cannot be imported"),
    ],
)
def test_what_is_named_and_not_there_cannot_be_planned(tmp_path: Path, workflow: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        _plan(tmp_path, workflow)


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    _plan(tmp_path, {})
    config, workflow = load(tmp_path / "config.yml")
    with pytest.raises(InputError, match="cannot read the inputs"):
        plan_of(config, workflow, inputs_of(config, (), tmp_path / "missing"))

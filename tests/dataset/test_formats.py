import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message, Prompt, as_messages
from nat_dpo_pipeline.core.pairs import PreferencePair
from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName, UnpairedRow, formats_named, trl_row
from nat_dpo_pipeline.dataset.formats.format import EncodedOnce, RowRefusal, TurnRows, plain
from nat_dpo_pipeline.dataset.formats.reading import read, recognised
from nat_dpo_pipeline.dataset.formats.rows import facts_of, is_utf8, row_of, single_row
from nat_dpo_pipeline.errors import ConfigurationError

BY_NAME = {one.name: one for one in FORMATS}
ASKED = [{"role": "user", "content": "Why?"}]
GOOD, BAD = [{"role": "assistant", "content": "Because."}], [{"role": "assistant", "content": "No."}]
ATTRIBUTES = {"helpfulness": 3.0, "correctness": 2.5, "coherence": 4.0, "complexity": 1.0, "verbosity": 0.5}
ROW = PreferenceRow(
    "Why?", "Because.", "No.", 2.0, 1.0, "example", "turn", ATTRIBUTES, ATTRIBUTES, "large", "small", "s"
)
SYSTEM = (Message("system", "Be brief."), Message("user", "Why?"))
TURNS = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))


# Formats whose rows are those of another one.
READ_AS = {"openrlhf": "trl", "oumi": "trl_standard"}


def _made(name: str, *rows: PreferenceRow | UnpairedRow) -> list[object]:
    return list(BY_NAME[name].rows(TurnRows.of(rows), plain))


def _of(prompt: Prompt, chosen: str = "Because.", rejected: str = "No.") -> PreferenceRow:
    return PreferenceRow(prompt, chosen, rejected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "trl",
            {
                "prompt": ASKED,
                "chosen": GOOD,
                "rejected": BAD,
                "chosen_score": 2.0,
                "rejected_score": 1.0,
                "example_id": "example",
                "turn_id": "turn",
            },
        ),
        ("trl_standard", {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}),
        ("nemo_customizer", {"prompt": ASKED, "chosen_response": "Because.", "rejected_response": "No."}),
        ("helix", {"prompt": ASKED, "chosen": "Because.", "rejected": "No."}),
        ("tulu3", {"chosen": ASKED + GOOD, "rejected": ASKED + BAD}),
        (
            "nemo_rl",
            {"context": ASKED, "completions": [{"rank": 0, "completion": GOOD}, {"rank": 1, "completion": BAD}]},
        ),
        (
            "openai",
            {
                "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
                "preferred_output": GOOD,
                "non_preferred_output": BAD,
            },
        ),
        (
            "llama_factory",
            {
                "conversations": [{"from": "human", "value": "Why?"}],
                "chosen": {"from": "gpt", "value": "Because."},
                "rejected": {"from": "gpt", "value": "No."},
                "tools": "",
            },
        ),
        ("ms_swift", {"messages": ASKED + GOOD, "rejected_response": "No."}),
        ("openrlhf", {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}),
        ("oumi", {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}),
        ("axolotl", {"messages": ASKED, "chosen": GOOD[0], "rejected": BAD[0]}),
        (
            "hh",
            {
                "chosen": "\n\nHuman: Why?\n\nAssistant: Because.",
                "rejected": "\n\nHuman: Why?\n\nAssistant: No.",
            },
        ),
        (
            "ultrafeedback",
            {
                "instruction": "Why?",
                "models": ["large", "small"],
                "completions": [
                    {"model": "large", "response": "Because.", "overall_score": 2.0, "annotations": ATTRIBUTES},
                    {"model": "small", "response": "No.", "overall_score": 1.0, "annotations": ATTRIBUTES},
                ],
            },
        ),
    ],
)
def test_a_pair_in_each_format(name: str, expected: object) -> None:
    assert _made(name, ROW) == [expected]


@pytest.mark.parametrize("chosen", ["Because.", "So.", "Now.", "Then."])
def test_helpsteer3_says_which_of_its_two_answers_is_better(chosen: str) -> None:
    (row,) = _made("helpsteer3", _of("Why?", chosen))
    assert isinstance(row, dict)
    assert row["context"] == ASKED
    better = row["response1"] if row["overall_preference"] < 0 else row["response2"]
    assert (better, abs(row["overall_preference"])) == (chosen, 2)


def test_steerlm_has_a_line_an_answer() -> None:
    assert _made("steerlm", ROW) == [
        {"response": "Because.", **ATTRIBUTES, "question": "Why?"},
        {"response": "No.", **ATTRIBUTES, "question": "Why?"},
    ]


def test_the_answers_of_a_turn_are_its_distinct_texts_best_first() -> None:
    rows = [
        PreferenceRow("Why?", high, low, float(h), float(w), "e", "t")
        for (high, h), (low, w) in ((("a", 3), ("b", 2)), (("a", 3), ("c", 1)), (("b", 2), ("c", 1)))
    ]
    (row,) = _made("ultrafeedback", *rows)
    assert isinstance(row, dict)
    assert [(one["response"], one["overall_score"]) for one in row["completions"]] == [("a", 3), ("b", 2), ("c", 1)]
    made = _made("kto", *rows)
    assert [
        one if isinstance(one, RowRefusal) else (one["completion"][0]["content"], one["label"]) for one in made
    ] == [  # type: ignore[index]
        ("a", True),
        RowRefusal.CHOSEN_AND_REJECTED,
        ("c", False),
    ]


def test_an_answer_that_is_alone_goes_to_kto_only() -> None:
    single = UnpairedRow("Why?", "Because.", True, 3.5, "e", "t")
    expected = {"prompt": ASKED, "completion": GOOD, "label": True, "score": 3.5, "example_id": "e", "turn_id": "t"}
    assert _made("kto", single) == [expected]
    assert [name for name in BY_NAME if name != "kto" and _made(name, single)] == []


@pytest.mark.parametrize(
    ("prompt", "refusing"),
    [
        (
            SYSTEM,
            {"trl_standard": "prompt_of_several_messages", "oumi": "prompt_of_several_messages", "hh": "system_prompt"},
        ),
        (TURNS, {"trl_standard": "prompt_of_several_messages", "oumi": "prompt_of_several_messages"}),
        (
            (Message("user", "a"), Message("user", "b")),
            {
                "trl_standard": "prompt_of_several_messages",
                "oumi": "prompt_of_several_messages",
                "hh": "roles_do_not_alternate",
                "llama_factory": "roles_do_not_alternate",
            },
        ),
        (
            (Message("user", "a"), Message("tool", "b")),
            {
                "trl_standard": "prompt_of_several_messages",
                "oumi": "prompt_of_several_messages",
                "hh": "unknown_role",
                "llama_factory": "roles_do_not_alternate",
                "openai": "unknown_role",
            },
        ),
        (
            (Message("critic", "a"),),
            {
                "trl_standard": "prompt_of_several_messages",
                "oumi": "prompt_of_several_messages",
                "hh": "unknown_role",
                "llama_factory": "unknown_role",
                "openai": "unknown_role",
                "axolotl": "unknown_role",
            },
        ),
        ("a \n\nHuman: b", {"hh": "turn_marker_in_text"}),
    ],
)
def test_what_a_format_cannot_carry_is_refused_with_a_reason(prompt: Prompt, refusing: dict[str, str]) -> None:
    answers = {"kto", "steerlm", "ultrafeedback"}
    made = {name: _made(name, _of(prompt)) for name in BY_NAME if name not in answers}
    assert {name: str(row) for name, (row,) in made.items() if isinstance(row, RowRefusal)} == refusing
    is_long = not isinstance(prompt, str)
    assert (RowRefusal.PROMPT_OF_SEVERAL_MESSAGES in _made("ultrafeedback", _of(prompt))) == is_long
    reason = RowRefusal.PROMPT_OF_SEVERAL_MESSAGES if is_long else RowRefusal.NO_ATTRIBUTES
    assert _made("steerlm", _of(prompt)) == [reason, reason]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
PROMPTS = TEXTS | st.lists(TEXTS, min_size=1, max_size=5).map(
    lambda texts: tuple(Message(("user", "assistant")[place % 2], text) for place, text in enumerate(texts))
)


@given(PROMPTS, TEXTS, TEXTS)
def test_what_is_written_can_be_read(prompt: Prompt, chosen: str, rejected: str) -> None:
    row = _of(prompt, chosen, rejected)
    for name, one in BY_NAME.items():
        for made in one.rows(TurnRows([row]), plain):
            if isinstance(made, RowRefusal) or name in ("kto", "steerlm", "ultrafeedback"):
                continue
            assert recognised(made) == READ_AS.get(name, name)
            found = read(READ_AS.get(name, name), made)
            assert found.answers == (chosen, rejected)
            if name != "hh":
                assert as_messages(found.prompt) == as_messages(prompt)


def test_a_part_is_encoded_once() -> None:
    once, made = EncodedOnce(), []

    def make(text: str) -> object:
        made.append(text)
        return {"text": text}

    assert once(make, "a") is once(make, "a")
    assert made == ["a"]
    once.clear()
    once(make, "a")
    assert made == ["a", "a"]


def test_a_row_tells_what_its_candidates_tell() -> None:
    facts = {"llm": "large", "subtopic": "tea", "attributes": {"helpfulness": 3, "x": "no number", "\ud800": 1.0}}
    better = Candidate("e", "t", 0, "Why?", "a", 2.0, metadata=facts)
    worse = Candidate("e", "t", 1, "Why?", "b", 1.0, attributes={"helpfulness": 1.0}, model="gpt")
    assert row_of(PreferencePair(better, worse, 2)) == PreferenceRow(
        "Why?", "a", "b", 2.0, 1.0, "e", "t", {"helpfulness": 3.0}, {"helpfulness": 1.0}, "large", "gpt", "tea"
    )
    assert single_row(better, label=True) == UnpairedRow("Why?", "a", True, 2.0, "e", "t", "large", "tea")


@pytest.mark.parametrize("metadata", [None, "text", {}, {"llm": 1, "subtopic": 2, "attributes": 3}, {"attributes": {}}])
def test_what_is_no_fact_is_none(metadata: object) -> None:
    facts = facts_of(metadata)
    assert (facts.attributes, facts.model, facts.subtopic) == (None, None, None)


def test_every_row_has_the_same_columns_also_without_scores() -> None:
    bare = trl_row(PreferenceRow("q", "a", "b"))
    assert list(bare) == list(trl_row(ROW))
    assert (bare["chosen_score"], bare["example_id"]) == (None, None)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_columns_of_a_format_are_those_of_its_rows(name: str) -> None:
    columns = BY_NAME[name].columns
    (row, *_) = _made(name, ROW)
    assert isinstance(row, dict)
    assert columns is None or list(columns) == list(row)


def test_formats_are_named_and_files_have_names_of_their_own() -> None:
    assert len(BY_NAME) == len(FORMATS) == 17
    for one in FORMATS:
        assert set(one.files) == set(SplitName)
        assert len(set(one.files.values())) == 2
        assert one.columns is not None or not one.parquet
    assert [one.name for one in formats_named(["hh", "trl", "hh"])] == ["hh", "trl"]
    with pytest.raises(ConfigurationError, match="no format 'x'"):
        formats_named(["x"])


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    assert [is_utf8(text) for text in ("a", "é", "\ud83d")] == [True, True, False]


def test_the_splits_are_named_like_their_files() -> None:
    assert [*SplitName] == ["train", "validation"]

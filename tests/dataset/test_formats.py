from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName, trl_row


def test_a_text_prompt_becomes_one_user_message_in_trls_conversational_format() -> None:
    row = PreferenceRow("Why?", "Because.", "No.", 2.0, 1.0, "example", "turn")
    assert trl_row(row) == {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "Because."}],
        "rejected": [{"role": "assistant", "content": "No."}],
        "chosen_score": 2.0,
        "rejected_score": 1.0,
        "example_id": "example",
        "turn_id": "turn",
    }


def test_a_prompt_of_messages_keeps_them() -> None:
    prompt = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert trl_row(PreferenceRow(prompt, "d", "e"))["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_every_row_has_the_same_columns_also_without_scores() -> None:
    bare, full = trl_row(PreferenceRow("q", "a", "b")), trl_row(PreferenceRow("q", "a", "b", 1.0, 0.0, "e", "t"))
    assert list(bare) == list(full)
    assert (bare["chosen_score"], bare["example_id"]) == (None, None)


def test_the_splits_are_named_like_their_files() -> None:
    assert [*SplitName] == ["train", "validation"]

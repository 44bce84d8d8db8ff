import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.trl.data import check_left_out, read_rows, tokenized


class Words:
    """A tokenizer to whom every character is a token; `<` opens the assistant's turn and `>` ends it."""

    chat_template: Any = "yes"

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Mapping[str, list[int]]:
        if any(message["role"] == "system" for message in conversation):
            raise TemplateError("System role not supported")
        text = "".join(f"<{one['content']}>" if one["role"] == "assistant" else one["content"] for one in conversation)
        return {"input_ids": [ord(one) for one in text + "<" * options.get("add_generation_prompt", False)]}


def _row(prompt: str, chosen: str, rejected: str, role: str = "user") -> dict[str, list[dict[str, str]]]:
    texts = {"chosen": chosen, "rejected": rejected}
    answers = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    return {"prompt": [{"role": role, "content": prompt}], **answers}


def _text(ids: tuple[int, ...]) -> str:
    return "".join(map(chr, ids))


def test_answers_begin_after_the_prompt_and_are_cut() -> None:
    found = tokenized([_row("why", "because", "no")], Words(), 10)
    (pair,) = found.pairs
    assert [_text(ids) for ids in (pair.prompt, pair.chosen, pair.rejected)] == ["why<", "becaus", "no>"]
    assert (found.dropped, found.alike, found.cut) == (0, 0, 1)


def test_rows_that_do_not_fit_are_counted() -> None:
    rows = [_row("a" * 20, "x", "y"), _row("b", "same start x", "same start y"), _row("c", "x", "y")]
    found = tokenized(rows, Words(), 10)
    assert (found.dropped, found.alike, found.cut) == (1, 1, 0)
    assert list(found.rows) == rows[2:]
    assert found.left_out_share == pytest.approx(2 / 3)
    with pytest.raises(TrainingError, match=r"2 of 3 training pairs \(67%\) do not fit into max_length 10: 1 with a"):
        check_left_out(found, 10, 0.5)
    check_left_out(found, 10, 0.7)


def test_nothing_left_is_refused_whatever_is_allowed() -> None:
    with pytest.raises(TrainingError, match="1 of 1 training pairs"):
        check_left_out(tokenized([_row("a" * 20, "x", "y")], Words(), 10), 10, 0.99)


def test_a_missing_chat_template_is_one_line() -> None:
    tokenizer = Words()
    tokenizer.chat_template = None
    with pytest.raises(ConfigurationError, match=r"no chat template.*instruction-tuned model") as caught:
        tokenized([], tokenizer, 10)
    assert "\n" not in str(caught.value)


def test_a_template_that_refuses_a_role_says_so() -> None:
    with pytest.raises(TrainingError, match="refuses a prompt of the roles system: System role not supported"):
        tokenized([_row("a", "x", "y", role="system")], Words(), 10)


def test_rows_are_read_without_extra_columns(tmp_path: Path) -> None:
    row = _row("a", "x", "y")
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**row, "chosen_score": None}) + "\n")
    assert read_rows(file) == [row]

import json
from pathlib import Path

import pytest

from nat_dpo_pipeline.dataset.evaluation_rows import read_evaluation_texts
from nat_dpo_pipeline.errors import InputError

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": [{"type": "text", "text": "And then?"}]},
]


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("Why?\n\n  How? \n", ["Why?", "How?"]),
        ("What is 2\u2028and 3?\n42\n", ["What is 2\u2028and 3?", "42"]),
        ('"Why?"\n"How?"\n', ["Why?", "How?"]),
        (json.dumps(["Why?", {"prompt": "How?"}], indent=1), ["Why?", "How?"]),
        ('{"question": "Why?", "answer": "So."}\n{"instruction": "Add", "input": "1 1"}\n', ["Why?", "Add", "1 1"]),
        (json.dumps({"turns": ["Why?", "How?"]}), ["Why?", "How?"]),
        (json.dumps({"messages": CONVERSATION}), ["Be brief.", "Why?", "And then?"]),
        (json.dumps({"prompt": CONVERSATION}) + "\n", ["Be brief.", "Why?", "And then?"]),
        ("\ufeffWhy?", ["Why?"]),
        ("", []),
    ],
)
def test_what_is_asked_is_read(tmp_path: Path, content: str, texts: list[str]) -> None:
    path = tmp_path / "evaluation"
    path.write_text(content, encoding="utf-8")
    assert list(read_evaluation_texts(path)) == texts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "Why?"}\n{"prompt": \n', "line 2: starts like a JSON object, but is none"),
        ('{"prompt": "Why?"}\n{"answer": "So.", "id": 1}\n', "row 2: nothing asked in an object with 'answer', 'id'"),
        ('[["Why?"], 3]', "row 2: nothing asked in 3; expected prompt, question"),
    ],
)
def test_a_row_that_asks_nothing_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "evaluation"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        list(read_evaluation_texts(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the evaluation set .*absent"):
        list(read_evaluation_texts(tmp_path / "absent"))

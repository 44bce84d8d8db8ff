import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("a\rb\x08c\x7f\x9b2J", r"a\rb\x08c\x7f\x9b2J"),
        ("two\nlines\u2028or more", r"two\nlines\u2028or more"),
        ("\u202egnp.exe \u2066x\u2069", r"\u202egnp.exe \u2066x\u2069"),
        ("half \ud83d, a file's \udcff", r"half \ud83d, a file's \udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["plain", "\ta tab", "größer 数学　 می‌خواهم", "👩‍💻 fin\u00a0!", r"\x1b as it is"])
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text())
def test_what_is_shown_is_one_line_that_can_be_written(text: str) -> None:
    assert len(printable(text).encode().decode().splitlines()) <= 1
    assert not any(one < " " and one != "\t" for one in printable(text))

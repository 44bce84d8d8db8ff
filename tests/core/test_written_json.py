import pytest

from nat_dpo_pipeline.core.written_json import read_object


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        (" {'A ': 'it is \"b\"'} ", {"a": 'it is "b"'}),
        ("{a: True, b: None,}", {"a": True, "b": None}),
        ('{{"a": "\\(x^2\\)\nb"}}', {"a": "\\(x^2\\)\nb"}),
        ("{“a”: 1}", {"a": 1}),
        ('{"a": 1, "A": 1}', {"a": 1}),
    ],
)
def test_an_object_with_one_reading_is_read(text: str, found: dict[str, object]) -> None:
    assert read_object(text) == found


@pytest.mark.parametrize(
    "text", ["", "a", "[1]", '{"a": 1', '{"a": 1, "A": 2}', '{"a": 7/10}', "{" * 5000 + "}" * 5000]
)
def test_anything_else_has_no_reading(text: str) -> None:
    assert read_object(text) is None

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.prompts import PromptTemplate

NAMES = {
    "subtopics": {"n_subtopics", "topic"},
    "questions": {"n_questions", "sub_topic"},
    "responses": {"question"},
}
VALUES = st.text(max_size=20).filter(bool)


@pytest.mark.parametrize("name", NAMES)
def test_each_prompt_of_the_recipe_has_its_placeholders(name: str) -> None:
    assert prompts.load(name).names == NAMES[name]


def test_a_prompt_is_rendered_with_its_values() -> None:
    text = prompts.load("subtopics").render(topic="Tea", n_subtopics=3)
    assert "Tea" in text
    assert "3 subtopics" in text
    assert "{{" not in text


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_rendered_prompt_matches_with_its_values(name: str, data: st.DataObject) -> None:
    template = prompts.load(name)
    values = {placeholder: data.draw(VALUES) for placeholder in sorted(template.names)}
    # A value that itself holds a line of the prompt could be cut there.
    assume(not any("\n" in value for value in values.values()))
    assert template.match(template.render(**values)) == values


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_matches_renders_to_the_same_text(name: str, data: st.DataObject) -> None:
    template = prompts.load(name)
    text = template.render(**{placeholder: data.draw(VALUES) for placeholder in sorted(template.names)})
    found = template.match(f"\n{text} ")
    assert found is not None
    assert template.render(**found) == text


@pytest.mark.parametrize("text", ["", "Tell me a joke.", "Given a topic, generate"])
def test_another_text_does_not_match(text: str) -> None:
    assert prompts.load("subtopics").match(text) is None


@pytest.mark.parametrize(("name", "other"), [(name, other) for name in NAMES for other in NAMES if name != other])
def test_the_prompts_are_told_apart(name: str, other: str) -> None:
    template = prompts.load(name)
    assert prompts.load(other).match(template.render(**dict.fromkeys(template.names, "x"))) is None


def test_a_value_that_looks_like_a_placeholder_is_only_text() -> None:
    assert PromptTemplate("{{a}} and {{b}}").render(a="{{b}}", b="x") == "{{b}} and x"


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"without a value: b, c$"):
        PromptTemplate("{{c}} {{a}} {{b}}").render(a=1)


def test_a_value_too_many_is_no_error() -> None:
    assert PromptTemplate("{{a}}").render(a=1, b=2) == "1"

from nat_dpo_pipeline.generation.settings import InputKind, RecipeSettings, ResponseMode


def test_unless_told_otherwise_the_recipe_is_nvidias() -> None:
    settings = RecipeSettings()
    assert (settings.n_subtopics, settings.n_questions) == (10, 10)
    assert settings.responses is ResponseMode.PAIRED
    assert not settings.keep_truncated


def test_modes_and_kinds_are_written_as_in_a_configuration() -> None:
    assert [*ResponseMode] == ["paired", "independent"]
    assert [*InputKind] == ["auto", "topic", "question"]

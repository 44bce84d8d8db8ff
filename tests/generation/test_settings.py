import pytest
from pydantic import ValidationError

from nat_dpo_pipeline.generation.settings import (
    InputKind,
    RecipeSettings,
    ResponseMode,
    Sampling,
    Spread,
    StepName,
    StepSampling,
)


def test_unless_told_otherwise_the_recipe_is_nvidias() -> None:
    settings = RecipeSettings()
    assert (settings.n_subtopics, settings.n_questions, settings.n_responses) == (10, 10, 2)
    assert settings.responses is ResponseMode.PAIRED
    assert not settings.keep_truncated
    assert not settings.keep_refusals
    assert settings.min_best_score is None
    assert settings.seed is None
    assert all(settings.sampling.of(step) == StepSampling() for step in StepName)


def test_unless_told_otherwise_sampling_is_left_to_the_model() -> None:
    sampling = StepSampling()
    assert sampling.temperatures == []
    assert (sampling.top_p, sampling.max_tokens, sampling.seed) == (None, None, None)
    assert sampling.extra_body == {}


def test_modes_kinds_and_spreads_are_written_as_in_a_configuration() -> None:
    assert [*ResponseMode] == ["paired", "independent"]
    assert [*InputKind] == ["auto", "topic", "question"]
    assert [*Spread] == ["round_robin", "weighted", "all"]
    assert [*StepName] == ["input", "subtopics", "questions", "responses", "rewards"]


@pytest.mark.parametrize("settings", [Sampling(), StepSampling()])
def test_sampling_does_not_change(settings: object) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings.seed = 1  # type: ignore[attr-defined]

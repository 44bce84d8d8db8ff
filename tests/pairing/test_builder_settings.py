from dataclasses import fields

import pytest

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.formats import formats_named
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings
from nat_dpo_pipeline.strict import checked


def test_the_defaults_are_those_of_the_rules() -> None:
    assert BuilderSettings().pairing_rules() == PairingRules()
    assert BuilderSettings().selection_rules() == SelectionRules()


def test_every_rule_is_a_setting() -> None:
    rules = {one.name for kind in (PairingRules, SelectionRules) for one in fields(kind) if one.init}
    assert rules - {"evaluation"} <= BuilderSettings.model_fields.keys()


def test_render_needs_a_format_of_texts() -> None:
    with pytest.raises(ConfigurationError, match="render makes texts: name one of the formats trl_standard, oumi"):
        checked(DatasetSettings, {"formats": ["trl"], "render": "model"})
    settings = checked(DatasetSettings, {"formats": ["trl", "oumi"], "render": "model"})
    assert settings.target().formats == ("trl", "oumi@model")
    with pytest.raises(ConfigurationError, match="'hh' is no format of texts"):
        formats_named(["hh@model"])

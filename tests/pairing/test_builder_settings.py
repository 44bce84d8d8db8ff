from dataclasses import fields

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings


def test_the_defaults_are_those_of_the_rules() -> None:
    assert BuilderSettings().pairing_rules() == PairingRules()
    assert BuilderSettings().selection_rules() == SelectionRules()


def test_every_rule_is_a_setting() -> None:
    rules = {one.name for kind in (PairingRules, SelectionRules) for one in fields(kind) if one.init}
    assert rules - {"evaluation"} <= BuilderSettings.model_fields.keys()

"""Preference data and DPO training out of agents: candidates, scores, pairs, datasets, trainers.

What this module exports knows nothing of the NeMo Agent Toolkit; the components for it are in
`nat_dpo_pipeline.plugin` and used by their `_type` in its configurations.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nat_dpo_pipeline.core.candidates import Candidate, Grouping, RefusalReason, Turn, group_turns
    from nat_dpo_pipeline.core.decontamination import EvaluationSet
    from nat_dpo_pipeline.core.messages import Message, Reply, ToolCall
    from nat_dpo_pipeline.core.pairs import PairingResult, PairingRules, PreferencePair, SkipReason, make_pairs
    from nat_dpo_pipeline.core.selection import Selection, SelectionRules
    from nat_dpo_pipeline.core.strategies import Strategy
    from nat_dpo_pipeline.errors import (
        CandidateRefused,
        CollectionError,
        ConfigurationError,
        DPOPipelineError,
        InputError,
        ItemDropped,
        ModelError,
        OutputError,
        ParseError,
        TrainingError,
    )
    from nat_dpo_pipeline.generation.steps import (
        Aggregate,
        Broadcast,
        Callback,
        Item,
        Map,
        Pipeline,
        Scatter,
        Step,
        derived,
    )
    from nat_dpo_pipeline.pairing.tables import Pairs, pair

__all__ = [
    "Aggregate",
    "Broadcast",
    "Callback",
    "Candidate",
    "CandidateRefused",
    "CollectionError",
    "ConfigurationError",
    "DPOPipelineError",
    "EvaluationSet",
    "Grouping",
    "InputError",
    "Item",
    "ItemDropped",
    "Map",
    "Message",
    "ModelError",
    "OutputError",
    "PairingResult",
    "PairingRules",
    "Pairs",
    "ParseError",
    "Pipeline",
    "PreferencePair",
    "RefusalReason",
    "Reply",
    "Scatter",
    "Selection",
    "SelectionRules",
    "SkipReason",
    "Step",
    "Strategy",
    "ToolCall",
    "TrainingError",
    "Turn",
    "derived",
    "group_turns",
    "make_pairs",
    "pair",
]

# Imported when they are first asked for: `nat` imports this package at every start, for its configurations alone.
_NAMES_IN = {
    "core.candidates": (
        "Candidate",
        "Grouping",
        "RefusalReason",
        "Turn",
        "group_turns",
    ),
    "core.decontamination": ("EvaluationSet",),
    "core.messages": ("Message", "Reply", "ToolCall"),
    "core.pairs": (
        "PairingResult",
        "PairingRules",
        "PreferencePair",
        "SkipReason",
        "make_pairs",
    ),
    "core.selection": (
        "Selection",
        "SelectionRules",
    ),
    "core.strategies": ("Strategy",),
    "errors": (
        "CandidateRefused",
        "CollectionError",
        "ConfigurationError",
        "DPOPipelineError",
        "InputError",
        "ItemDropped",
        "ModelError",
        "OutputError",
        "ParseError",
        "TrainingError",
    ),
    "generation.steps": (
        "Aggregate",
        "Broadcast",
        "Callback",
        "Item",
        "Map",
        "Pipeline",
        "Scatter",
        "Step",
        "derived",
    ),
    "pairing.tables": ("Pairs", "pair"),
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

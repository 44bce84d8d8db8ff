"""Preference data and DPO training out of agents: candidates, scores, pairs, datasets, trainers.

What this module exports knows nothing of the NeMo Agent Toolkit; the components for it are in
`nat_dpo_pipeline.plugin` and used by their `_type` in its configurations.
"""

from nat_dpo_pipeline.core.candidates import Candidate, Grouping, Message, RefusalReason, Turn, group_turns
from nat_dpo_pipeline.core.decontamination import EvaluationSet
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
    "ParseError",
    "Pipeline",
    "PreferencePair",
    "RefusalReason",
    "Scatter",
    "Selection",
    "SelectionRules",
    "SkipReason",
    "Step",
    "Strategy",
    "TrainingError",
    "Turn",
    "derived",
    "group_turns",
    "make_pairs",
]

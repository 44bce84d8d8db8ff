"""Helpers for tests of workflows and pipelines built on this package.

`nat_dpo_pipeline.testing.server` stands in for a model's server.
"""

from nat_dpo_pipeline.testing.models import ScriptedModel, make_turn

__all__ = ["ScriptedModel", "make_turn"]

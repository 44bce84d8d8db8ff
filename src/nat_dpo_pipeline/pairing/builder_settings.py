"""Which pairs are made of scored candidates, as a trajectory builder or a file of rules can say it."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, FilePath, FiniteFloat, field_validator, model_validator

from nat_dpo_pipeline.core.strategies import CutAt, Strategy, Thoughts
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME, StrictConfig, checked

if TYPE_CHECKING:
    from nat_dpo_pipeline.core.pairs import PairingRules
    from nat_dpo_pipeline.core.selection import SelectionRules

logger = logging.getLogger(__name__)


class BuilderSettings(StrictConfig):
    """The settings of `dpo_traj_builder`."""

    spoken_of_as: ClassVar[str | None] = "dpo_traj_builder"

    ttc_step_name: str = Field(default=DEFAULT_STEP_NAME, description="Name of the TTC_END steps to collect.")
    source: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Files of recorded candidates, or patterns such as `runs/*.jsonl`, to read instead of running an "
        "evaluation; one can stand by itself. What each holds is recognised: docs/recorded_candidates.md.",
    )
    map: dict[str, str | list[str]] | None = Field(
        default=None,
        description="Columns of tables in `source` by role, for example `{prompt: instruction, response: output}`; "
        "dotted paths lead into objects. Usual names are known without it: docs/recorded_candidates.md.",
    )
    exhaustive_pairs: bool = Field(
        default=True,
        description="True: every two candidates of a turn with unequal scores. False: the best against the worst.",
    )
    min_score_diff: FiniteFloat = Field(
        default=0.0, ge=0.0, description="Pairs whose scores differ by less are left out. Ties never pair."
    )
    max_pairs_per_turn: int | None = Field(
        default=None, ge=1, description="At most this many pairs per turn, largest score difference first."
    )
    reward_from_score_diff: bool = Field(
        default=True, description="A trajectory's reward: the score difference, or else the chosen score."
    )
    require_multiple_candidates: bool = Field(
        default=True, description="Count turns with a single candidate as skipped; they have no pair either way."
    )
    strategy: Strategy | None = Field(
        default=None,
        description="`exhaustive`, `best_vs_worst`, `best_vs_second`, `best_vs_random`, `adjacent` or "
        "`mean_minus_2_sigma`, instead of `exhaustive_pairs`. With many candidates the worst is too easy to tell "
        "(arXiv 2502.16825), and best_vs_worst picks the longer one more often than any other.",
    )
    seed: int = Field(default=0, description="Seed of `best_vs_random`.")
    max_score_diff: FiniteFloat | None = Field(
        default=None,
        gt=0.0,
        description="Pairs whose scores differ by more are left out (RIP, arXiv 2501.18578); off, as large margins "
        "helped elsewhere (arXiv 2502.14560).",
    )
    min_chosen_score: FiniteFloat | None = Field(
        default=None,
        description="Pairs whose chosen response scored less are left out. Off: scores of most reward models mean "
        "nothing across prompts.",
    )
    min_best_score: FiniteFloat | None = Field(
        default=None,
        description="Turns whose best response scored less are left out; NVIDIA's recipe has 3.0 of helpfulness. Off, "
        "as `min_chosen_score`.",
    )
    min_rejected_score: FiniteFloat | None = Field(
        default=None,
        description="Pairs whose rejected response scored less are left out: a poor one speaks of a poor prompt (RIP). "
        "Off, as `min_chosen_score`.",
    )
    min_rejected_length: int | None = Field(
        default=None,
        ge=1,
        description="Pairs whose rejected response has fewer characters are left out (RIP). Off: short answers may be "
        "what is asked for.",
    )
    min_agreement: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Least share of an ensemble's members that have the chosen response above the rejected one. Five "
        "that agree were right in .75 of pairs, split 4 to 1 in .54. Pairs that no ensemble scored are left out. Off: "
        "most runs have one scorer.",
    )
    max_length_ratio: FiniteFloat | None = Field(
        default=None,
        ge=1.0,
        description="The longer response of a pair has at most so many times the characters of the shorter one. Off: "
        "the report tells whether length decides.",
    )
    length_penalty: float = Field(
        default=0.0,
        ge=0.0,
        le=1e6,
        description="Taken off a score for every 1,000 characters when candidates are ranked. Scores, margins and all "
        "bounds stay the original ones; where the original order is another one there is no pair. Its scale is that "
        "of the scores, so off.",
    )
    near_duplicate: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Two texts so much alike are no pair (share of common characters in order); 0.95 is cautious. Off, "
        "as one changed digit can be all the difference.",
    )
    pair_flawed: bool = Field(
        default=False,
        description="Pair responses marked as truncated, refusal or empty too; needed with the workflow's "
        "`keep_truncated` and `keep_refusals`. Blank ones never pair. Off: they teach to stop short or to refuse.",
    )
    at: CutAt | None = Field(
        default=None,
        description="Where rollouts of one task become turns: `divergence`, where their replies differ first, `every` "
        "place where they differ, the `first` reply or the `last`. Unless it is set, rollouts with tool calls are cut "
        "at the divergence, others before the last reply. A reply's score is the mean of the rollouts behind it.",
    )
    min_rollouts: int = Field(
        default=1, ge=1, description="Replies with fewer rollouts behind them are left out of such turns."
    )
    thoughts: Thoughts = Field(
        default=Thoughts.KEEP,
        description="`keep` writes the thoughts in front of replies, in formats with messages, where both sides of a "
        "pair have them; `drop` never. Compared and measured is the answer either way.",
    )
    drop_contradictions: bool = Field(
        default=False,
        description="Where one pair of a prompt has A over B and another one B over A, leave out both. Off, as it and "
        "all below need every pair of the run at once, which plain pairing does not.",
    )
    max_prompts_per_chosen: int | None = Field(
        default=None,
        ge=1,
        description="A text chosen for more different prompts is not chosen at all: one constant text won 156 of 805 "
        "prompts of AlpacaEval. Off: in some tasks (a class, a move) many prompts have one right answer.",
    )
    min_margin_quantile: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Leave out this share of the run's pairs, smallest score differences first; those equal to the "
        "limit stay. Below a reward model's median they are coin flips, whatever its scale: 0.5. Off: it halves the "
        "data.",
    )
    length_balance: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Largest share of pairs whose chosen response is the longer one; what is too much is left out, "
        "smallest score differences first. 0.5 balances. Off: it can cost most pairs (best-vs-worst has 85 % such).",
    )
    decontaminate_against: FilePath | None = Field(
        default=None,
        description="File of evaluation prompts (JSON, JSONL or lines); pairs whose prompt overlaps with one are left "
        "out. Off: there is no file.",
    )
    decontaminate_ngram: int = Field(
        default=13,
        ge=1,
        description="Words in a row that make an overlap, 13 as for GPT-3; shorter prompts overlap when equal.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_custom_step_name(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "custom_step_name" not in values:
            return values
        renamed = {name: value for name, value in values.items() if name != "custom_step_name"}
        if renamed.setdefault("ttc_step_name", values["custom_step_name"]) != values["custom_step_name"]:
            raise ValueError("both ttc_step_name and custom_step_name are set, to different names: keep ttc_step_name")
        logger.warning("`custom_step_name` is an old name of `ttc_step_name`: rename it in the configuration")
        return renamed

    @field_validator("source", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, value: Any) -> Any:
        return [str(value)] if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _rules_can_be_met(self) -> Self:
        named = {True: Strategy.EXHAUSTIVE, False: Strategy.BEST_VS_WORST}[self.exhaustive_pairs]
        if "exhaustive_pairs" in self.model_fields_set and self.strategy not in (None, named):
            raise ValueError(
                f"exhaustive_pairs: {str(self.exhaustive_pairs).lower()} is {str(named)!r}, but strategy is "
                f"{str(self.strategy)!r}: keep one of them"
            )
        self.pairing_rules()
        try:
            self.columns()
        except ConfigurationError as error:
            raise ValueError(f"map: {error}") from error
        return self

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Return the columns of tables by role. Raises ConfigurationError for a role that there is not."""
        from nat_dpo_pipeline.records.mapping import check_mapping

        given = {role: (names,) if isinstance(names, str) else tuple(names) for role, names in (self.map or {}).items()}
        check_mapping(given)
        return given

    def pairing_rules(self) -> "PairingRules":
        """Return how the candidates of a turn are paired: the fields that rules and settings share."""
        from nat_dpo_pipeline.core.pairs import PairingRules

        return PairingRules(**_shared(self, PairingRules))

    def selection_rules(self) -> "SelectionRules":
        """What is left out of all pairs of a run. Raises InputError when the evaluation set cannot be read."""
        from nat_dpo_pipeline.core.decontamination import EvaluationSet
        from nat_dpo_pipeline.core.selection import SelectionRules
        from nat_dpo_pipeline.dataset.evaluation_rows import read_evaluation_texts

        path = self.decontaminate_against
        evaluation = None if path is None else EvaluationSet(read_evaluation_texts(path), self.decontaminate_ngram)
        return SelectionRules(evaluation, **_shared(self, SelectionRules))


def _shared(settings: BuilderSettings, rules: "type[PairingRules | SelectionRules]") -> dict[str, Any]:
    return {one.name: getattr(settings, one.name) for one in fields(rules) if one.name in BuilderSettings.model_fields}


def recorded_builder(settings: Mapping[str, object]) -> BuilderSettings:
    """The settings that a manifest tells of. Raises ConfigurationError."""
    # A manifest has `exhaustive_pairs` with its default, which would contradict a strategy.
    left_out = ("exhaustive_pairs",) if settings.get("strategy") is not None else ()
    return checked(BuilderSettings, {name: value for name, value in settings.items() if name not in left_out})

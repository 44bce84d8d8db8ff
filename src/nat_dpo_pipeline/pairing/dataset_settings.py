"""What is drawn and held out of the pairs, and in which formats they are written."""

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, FiniteFloat, model_validator

from nat_dpo_pipeline.dataset.training.settings import TrainingSettings
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.strict import StrictConfig

if TYPE_CHECKING:
    from nat_dpo_pipeline.dataset.card import About
    from nat_dpo_pipeline.dataset.writer import Target


class SplitSettings(StrictConfig):
    """Those of `dpo_trainer` that say which pairs are drawn and held out."""

    spoken_of_as: ClassVar[str | None] = "dpo_trainer"

    deduplicate_pairs: bool = Field(
        default=True, description="Keep one of several pairs with the same prompt, chosen and rejected text."
    )
    max_pairs: int | None = Field(default=None, ge=1, description="Draw this many pairs at random; None keeps all.")
    validation_fraction: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="Share of the prompts (with all their pairs) that are held out; at least one when there are two.",
    )
    seed: int = Field(default=0, description="Seed of the draw and of the split.")


class DatasetSettings(StrictConfig):
    """The settings of `dataset_trainer_adapter`, but for the folder."""

    spoken_of_as: ClassVar[str | None] = "dataset_trainer_adapter"

    formats: list[str] = Field(
        default=["trl"],
        description="Any of trl, trl_standard, nemo_customizer, helix, helpsteer3, tulu3, nemo_rl, openai, "
        "llama_factory, ms_swift, openrlhf, axolotl, oumi, hh, kto, steerlm, ultrafeedback; docs/datasets.md says who "
        "reads which.",
    )
    render: str | None = Field(
        default=None,
        min_length=1,
        description="A model, or a folder with a tokenizer: `trl_standard` and `oumi` hold prompt and answers as its "
        "chat template writes them, tool calls among it. Needs the extra `train`.",
    )
    parquet: bool = Field(
        default=False, description="Write Parquet too where the readers of a format take it; needs pyarrow."
    )
    validation_fraction: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Used when the trainer did not split: share of the prompts held out."
    )
    seed: int = Field(default=0, description="Used when the trainer did not split: seed of the split.")
    stratify: bool = Field(
        default=False,
        description="Draw the held-out prompts from each subtopic by its share; as many as the trainer or "
        "`validation_fraction` says, in place of the trainer's own draw.",
    )
    single_label_score: FiniteFloat | None = Field(
        default=None,
        description="With `require_multiple_candidates: false` an answer that is alone in its turn becomes a row of "
        "`kto`, good from this score on; None leaves it out, as nothing says whether it is good.",
    )
    license: str = Field(
        default="unknown", min_length=1, description="For the dataset card: an identifier of the Hugging Face hub."
    )
    title: str = Field(default="Preference pairs", min_length=1, description="For the dataset card.")
    languages: list[str] = Field(default_factory=list, description="For the dataset card: ISO 639 codes.")
    training: TrainingSettings = Field(
        default_factory=TrainingSettings,
        description="What is in the training configurations that are written with trl, llama_factory, axolotl, nemo_rl "
        "and helix; `manifest.json` and the card hold the commands that use them.",
    )

    @model_validator(mode="after")
    def _knows_its_formats(self) -> Self:
        from nat_dpo_pipeline.dataset.formats import formats_named, rendered_names

        try:
            formats_named(rendered_names(self.formats, self.render))
        except ConfigurationError as error:
            raise ValueError(f"formats: {error}") from error
        return self

    def target(self) -> "Target":
        """What is to be written."""
        from nat_dpo_pipeline.dataset.formats import rendered_names
        from nat_dpo_pipeline.dataset.writer import Target

        return Target(rendered_names(self.formats, self.render), self.parquet, self.about(), self.training)

    def about(self) -> "About":
        """Return the settings of the dataset card."""
        from nat_dpo_pipeline.dataset.card import About

        return About(self.title, self.license, tuple(self.languages))

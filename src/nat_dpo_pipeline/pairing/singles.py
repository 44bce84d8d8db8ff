"""Candidates that are alone in their turn, for formats that want no pairs."""

from collections.abc import Iterable, Iterator

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.filters import is_blank, is_flawed
from nat_dpo_pipeline.dataset.formats.rows import UnpairedRow, single_row
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings


def singles_in(turns: Iterable[Turn], builder: BuilderSettings) -> Iterator[Candidate]:
    """The candidates that are alone in their turn, where the trajectory builder wants them; not what never pairs."""
    if builder.require_multiple_candidates:
        return
    for turn in turns:
        if len(turn.candidates) == 1:
            (one,) = turn.candidates
            if not is_blank(one) and (builder.pair_flawed or not is_flawed(one)):
                yield one


def single_rows(singles: Iterable[Candidate], adapter: DatasetSettings | None) -> Iterator[UnpairedRow]:
    """Their rows; none without a score that tells good from bad."""
    if adapter is None or adapter.single_label_score is None:
        return
    for candidate in singles:
        yield single_row(candidate, label=candidate.score >= adapter.single_label_score)

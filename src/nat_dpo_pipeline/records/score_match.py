"""The check that a table of scores belongs to the trajectories beside it."""

from collections.abc import Iterable, Mapping
from itertools import islice

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.atif import ids_of
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.places import Place

_IDS_SHOWN = 3


def check_scores(scores: Mapping[str, object], trajectories: Iterable[Place]) -> None:
    """Read trajectories up to the first one with a score. Raises InputError with ids of both sides if there is none."""
    seen: dict[str, None] = {}
    for place in trajectories if scores else ():
        for piece in pieces(place):
            ids = ids_of(parsed(piece.text))
            if any(one in scores for one in ids):
                return
            seen.update(dict.fromkeys(ids))
    if seen:
        raise InputError(
            f"no trajectory has an id that the table of scores has: the first ids of the table are {_first(scores)}, "
            f"those of the trajectories {_first(seen)}; trajectory_id, session_id and item_id are compared"
        )


def _first(ids: Iterable[str]) -> str:
    return ", ".join(f"{one!r:.60}" for one in islice(ids, _IDS_SHOWN))

"""Which item of an evaluation a run of the workflow is for: NAT does not tell a workflow whose input it has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from nat_dpo_pipeline.plugin.nat_api import EvalInputItem

#: The items of the evaluation under way, by the identity of their inputs.
_items: ContextVar[Mapping[int, EvalInputItem] | None] = ContextVar("dpo_items", default=None)


class EvaluationItems:
    """A callback of an evaluation, for `item_id_of` in its runs. Items whose inputs are one object are not known."""

    def on_dataset_loaded(self, *, dataset_name: str, items: Sequence[EvalInputItem]) -> None:
        counts = Counter(id(item.input_obj) for item in items)
        _items.set({id(item.input_obj): item for item in items if counts[id(item.input_obj)] == 1})


def is_evaluation() -> bool:
    """Whether this is in an evaluation with this callback. What `Context.is_evaluating` reads NAT 1.9 never sets."""
    return _items.get() is not None


def item_id_of(given: object) -> str | None:
    """The id of the item that has this very object for its input."""
    item = (_items.get() or {}).get(id(given))
    return None if item is None or item.id in (None, "") else str(item.id)

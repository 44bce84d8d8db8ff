"""What every kind of scorer has in a configuration; the kinds are imported when one is configured."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from nat.plugin_api import LLMRef
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.extensions import ExtensionGroup, added, added_names
from nat_dpo_pipeline.strict import StrictConfig, in_words

if TYPE_CHECKING:
    from nat_dpo_pipeline.generation.chat import ChatModel
    from nat_dpo_pipeline.generation.plan import Asked, Scoring
    from nat_dpo_pipeline.generation.scorers import Scorer, TurnScorer


def names_of(given: Any) -> list[str]:
    """One name of an llm, or several, each once, as a list. Raises ValueError."""
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"expected the name of an llm or a list of such names, got {given!r:.80}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]!r} is named more than once; `limits` says how much at once a model is asked")
    return names


def _one_or_several(given: Any) -> Any:
    names_of(given)
    return given


# The list comes first: an LLMRef can be made of anything, also of the text of a list.
LLM = Annotated[list[LLMRef] | LLMRef, Field(union_mode="left_to_right"), BeforeValidator(_one_or_several)]

#: Gives the chat model of an llm, or of several that are replicas of one.
Opened = Callable[[list[str]], "ChatModel"]
#: Gives the function of the workflow with this name; raises whatever NAT does when there is none.
FunctionNamed = Callable[[str], Awaitable[object]]


class ScorerSettings(StrictConfig):
    """A kind of scorer. A subclass has a field `kind` of a `Literal` with its name, and a line in the list of kinds."""

    #: True for a scorer of all responses to a question: it has no place in an ensemble.
    compares: ClassVar[bool] = False

    kind: str

    def open(self, opened: Opened, function_named: FunctionNamed) -> "Scorer | TurnScorer":
        """Return the scorer. A function is looked up when it is first called."""
        raise NotImplementedError

    def asks(self, asked: "Callable[[list[str]], Asked]") -> "Iterator[Scoring]":
        """Yield the calls of models that the scorer makes, as far as anybody sees them."""
        yield from ()


def scorer_of(given: Any) -> ScorerSettings:
    """Return the scorer that is described. Raises ValueError."""
    if isinstance(given, ScorerSettings):
        return given
    kind = given.get("kind") if isinstance(given, dict) else None
    try:
        return _kind_named(kind).model_validate(given)
    except ValidationError as error:
        raise ValueError(in_words(error)) from error
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _kind_named(kind: object) -> type[ScorerSettings]:
    from nat_dpo_pipeline.plugin.workflows.scorer_config import KINDS

    found = KINDS.get(kind) if isinstance(kind, str) else None
    if found is None and isinstance(kind, str) and (other := added(ExtensionGroup.SCORERS, kind, type)) is not None:
        found = other if issubclass(other, ScorerSettings) else None
    if found is None:
        names = [*KINDS, *added_names(ExtensionGroup.SCORERS)]
        what = "a scorer needs a kind" if kind is None else f"there is no scorer of kind {kind!r}"
        raise ConfigurationError(f"{what}; there are {', '.join(names)}")
    return found


#: In a field of a configuration.
ScorerConfig = Annotated[SerializeAsAny[ScorerSettings], BeforeValidator(scorer_of)]

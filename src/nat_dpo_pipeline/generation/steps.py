"""Steps, and the pipelines they are chained to with `>>`.

    pipeline = Scatter(questions) >> Broadcast(3, sample) >> Map(answer) >> Aggregate(turn, over="questions")
    async for item in pipeline.run(topics): ...

A step is a function of an `Item`; the types it takes and gives are those of its annotations and are checked when steps
are chained. An item flows on as soon as it is ready: there is no barrier between steps, and each step holds at most
`workers` items, so that a slow step holds back those before it instead of filling the memory.

What a step raises of ParseError, ModelError, InputError and ItemDropped costs that item and what would have come of it;
the observer is told. Any other exception ends the run.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, get_args, get_origin

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.hints import check_async, each_of, hints_of, name_of, returned, shown, without_none
from nat_dpo_pipeline.generation.spans import Slot, Span

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Path = tuple[int, ...]


class Emit(Protocol):
    """Hands the outputs of an item on to the next step, once that has room for them."""

    async def __call__(self, value: object, path: Path) -> None: ...

    async def together(self, outputs: Sequence[tuple[object, Path]]) -> None:
        """Hand several outputs on at the same moment, as far as the room allows."""
        ...


class _Referable:
    """Python 3.12.3, which is that of Ubuntu 24.04, forgets `weakref_slot` where a dataclass is generic (gh-118033)."""

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True, eq=False)
class Item(_Referable, Generic[T_co]):
    """A value on its way, and where it came from.

    `path` holds its position among its siblings at each step that made several of one: items sorted by path are in the
    order in which a run without concurrency would have made them.
    """

    value: T_co
    path: Path
    step: str = ""
    parent: "Item[Any] | None" = field(default=None, repr=False)
    spans: tuple[Span, ...] = field(default=(), repr=False)
    slot: Slot = field(default_factory=Slot, repr=False)

    @property
    def root(self) -> "Item[Any]":
        """The input that this item came of."""
        item: Item[Any] = self
        while item.parent is not None:
            item = item.parent
        return item

    def ancestor(self, step: str) -> Any:
        """The value that `step` made and of which this item came; raises LookupError when there is none."""
        item: Item[Any] | None = self
        while item is not None:
            if item.step == step:
                return item.value
            item = item.parent
        raise LookupError(f"no step {step!r} made what this item came of")

    async def turn(self) -> None:
        """Wait until all earlier siblings have passed the step that declares `in_order_of`, or were dropped."""
        for span in self.spans:
            if span.ordered and span.waits:
                # Whoever only waits must not take the place of those it waits for.
                self.slot.release()
                await span.its_turn()


class Step:
    """One stage of a pipeline. `takes` and `gives` are types; `workers` is how many items it holds at once."""

    #: The step whose items this one handles one after the other where it asks for it, see `Item.turn`.
    in_order_of: str | None = None

    def __init__(self, name: str, takes: object, gives: object, workers: int | None = None) -> None:
        self.name = name
        self.takes = takes
        self.gives = gives
        if workers is not None:
            _check_workers(name, workers)
        self.workers = workers

    async def run(self, item: Item[Any], emit: Emit) -> None:
        raise NotImplementedError

    def __rshift__(self, following: "Step | Pipeline") -> "Pipeline":
        return Pipeline((self,)) >> following

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {shown(self.takes)} → {shown(self.gives)})"


class Map(Step):
    """One to one: `async def function(item: Item[In]) -> Out`."""

    def __init__(
        self, function: Callable[[Item[Any]], Awaitable[Any]], *, name: str | None = None, workers: int | None = None
    ) -> None:
        super().__init__(name or name_of(function), _taken(function), returned(function), workers)
        check_async(function, expected=True)
        self._function = function

    async def run(self, item: Item[Any], emit: Emit) -> None:
        await emit(await self._function(item), item.path)


class Scatter(Step):
    """One to any number: `async def function(item: Item[In]) -> list[Out]`, or a generator, `-> AsyncIterator[Out]`.

    `in_order_of` names an earlier step: a function that awaits `item.turn()` goes on when the items of that step's
    earlier outputs are through, so that what it decides does not depend on which reply came first.
    """

    def __init__(
        self,
        function: Callable[[Item[Any]], Any],
        *,
        name: str | None = None,
        workers: int | None = None,
        in_order_of: str | None = None,
    ) -> None:
        super().__init__(name or name_of(function), _taken(function), each_of(function), workers)
        check_async(function, expected=True)
        self._function = function
        self.in_order_of = in_order_of

    async def run(self, item: Item[Any], emit: Emit) -> None:
        outputs = self._function(item)
        if not inspect.isasyncgen(outputs):
            for place, value in enumerate(await outputs):
                await emit(value, (*item.path, place))
            return
        place = 0
        async with aclosing(outputs):
            async for value in outputs:
                await emit(value, (*item.path, place))
                place += 1


class Broadcast(Step):
    """One to `count`: `def function(item: Item[In], index: int) -> Out`, called with 0 to `count` - 1."""

    def __init__(
        self,
        count: int,
        function: Callable[[Item[Any], int], Any],
        *,
        name: str | None = None,
        workers: int | None = None,
    ) -> None:
        if count < 1:
            raise ConfigurationError(f"a broadcast makes at least 1 item of one, not {count!r}")
        super().__init__(name or name_of(function), _taken(function), returned(function), workers)
        check_async(function, expected=False)
        self._count = count
        self._function = function

    async def run(self, item: Item[Any], emit: Emit) -> None:
        outputs: list[tuple[object, Path]] = []
        try:
            outputs.extend((self._function(item, index), (*item.path, index)) for index in range(self._count))
        finally:
            await emit.together(outputs)  # those before an error, too


class Aggregate(Step):
    """Many to one: `def function(item: Item[Whole], members: Sequence[Item[In]]) -> Out | None`.

    Called with an output of the step `over` and all that came of it, sorted by path, once nothing more can come; also
    when nothing came. None stands for no output. `item.value` is the output of `over`.
    """

    def __init__(
        self, function: Callable[[Item[Any], Sequence[Item[Any]]], Any], *, over: str, name: str | None = None
    ) -> None:
        (whole, *members) = list(hints_of(function).values())[:-1]
        takes = _items_of(function, members[0]) if members else object
        super().__init__(name or name_of(function), takes, without_none(returned(function)))
        check_async(function, expected=False)
        self.over = over
        self.whole = _item_of(function, whole) if members else object
        self._function = function

    async def run(self, item: Item[Any], emit: Emit) -> None:  # its items are collected, not handled one by one
        raise NotImplementedError

    def collected(self, whole: Item[Any], members: Sequence[Item[Any]]) -> Any:
        return self._function(whole, sorted(members, key=lambda member: member.path))


class Callback(Step):
    """Anything to anything: `async def function(items: AsyncIterator[Item[In]]) -> AsyncGenerator[Item[Out], None]`.

    It sees the whole stream, in the order of arrival, and yields items: those that came, or others made with `derived`.
    No aggregate can reach across it, since only it knows what came of what.
    """

    def __init__(
        self,
        function: Callable[[AsyncIterator[Item[Any]]], AsyncGenerator[Item[Any], None]],
        *,
        name: str | None = None,
    ) -> None:
        (stream, *_) = list(hints_of(function).values())
        super().__init__(
            name or name_of(function), _items_of(function, stream), _items_of(function, returned(function))
        )
        self.function = function

    async def run(self, item: Item[Any], emit: Emit) -> None:  # it is given the stream, not one item
        raise NotImplementedError


def derived(item: Item[Any], value: T, *, path: Path | None = None) -> Item[T]:
    """An item of a callback step: `value`, made of `item`."""
    return Item(value, item.path if path is None else path, parent=item)


class Observer(Protocol):
    """Is told what a run does. `failed` gets the ItemDropped, ParseError, ModelError or InputError of an item."""

    @property
    def stopping(self) -> bool:
        """Whether no further input is to be taken; what is under way is still finished."""
        ...

    def started(self, step: str) -> None: ...

    def finished(self, step: str) -> None: ...

    def failed(self, step: str, item: Item[Any], error: Exception) -> None: ...


class _Nobody:
    stopping = False

    def started(self, step: str) -> None: ...

    def finished(self, step: str) -> None: ...

    def failed(self, step: str, item: Item[Any], error: Exception) -> None: ...


class Pipeline:
    """A chain of steps. It is never changed: what adds, replaces or drops a step gives another pipeline.

    Raises ConfigurationError for steps that do not fit: one takes what the one before it does not give, two have the
    same name, or an aggregate is over a step that is not there.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.steps = tuple(steps)
        _check(self.steps)

    def __rshift__(self, following: "Step | Pipeline") -> "Pipeline":
        return Pipeline((*self.steps, *(following.steps if isinstance(following, Pipeline) else (following,))))

    __lshift__ = __rshift__

    def __getitem__(self, name: str) -> Step:
        return self.steps[self._position(name)]

    def before(self, name: str, *steps: Step) -> "Pipeline":
        """With `steps` in front of the step `name`."""
        place = self._position(name)
        return Pipeline((*self.steps[:place], *steps, *self.steps[place:]))

    def after(self, name: str, *steps: Step) -> "Pipeline":
        """With `steps` behind the step `name`."""
        place = self._position(name) + 1
        return Pipeline((*self.steps[:place], *steps, *self.steps[place:]))

    def replaced(self, name: str, step: Step) -> "Pipeline":
        """With `step` in the place of the step `name`."""
        place = self._position(name)
        return Pipeline((*self.steps[:place], step, *self.steps[place + 1 :]))

    def without(self, name: str) -> "Pipeline":
        """Without the step `name`."""
        place = self._position(name)
        return Pipeline((*self.steps[:place], *self.steps[place + 1 :]))

    def run(
        self, source: AsyncIterator[T] | Iterable[T], *, observer: Observer | None = None, workers: int = 64
    ) -> AsyncGenerator[Item[Any], None]:
        """What comes out at the end, as soon as it is ready; close the iterator to end the run early.

        `workers` is how many items a step holds that does not say so itself.
        """
        from nat_dpo_pipeline.generation.engine import run_pipeline  # which is about steps

        _check_workers("the pipeline", workers)
        return run_pipeline(self.steps, source, observer or _Nobody(), workers)

    def _position(self, name: str) -> int:
        names = [step.name for step in self.steps]
        if name not in names:
            raise ConfigurationError(f"the pipeline has no step {name!r}; its steps are {', '.join(names)}")
        return names.index(name)


def _check_workers(name: str, workers: int) -> None:
    if workers < 1:
        raise ConfigurationError(f"{name!r} needs `workers` to be at least 1, not {workers!r}")


def _check(steps: Sequence[Step]) -> None:
    from beartype.door import is_subhint

    for place, step in enumerate(steps):
        if not isinstance(step, Step):
            raise ConfigurationError(f"a pipeline is made of steps, such as Map(function), not of {step!r:.80}")
        earlier = steps[:place]
        if step.name in {other.name for other in earlier}:
            raise ConfigurationError(f"two steps are called {step.name!r}: give one of them another `name`")
        if earlier and not is_subhint(earlier[-1].gives, step.takes):
            raise ConfigurationError(
                f"{step.name!r} takes {shown(step.takes)}, but {earlier[-1].name!r} before it gives "
                f"{shown(earlier[-1].gives)}"
            )
        reference = step.over if isinstance(step, Aggregate) else step.in_order_of
        if reference is not None:
            _check_reference(step.name, reference, earlier)
        if isinstance(step, Aggregate):
            (over,) = (other for other in earlier if other.name == step.over)
            if not is_subhint(over.gives, step.whole):
                raise ConfigurationError(
                    f"{step.name!r} takes {shown(step.whole)} as what it is over, but {over.name!r} gives "
                    f"{shown(over.gives)}"
                )


def _check_reference(name: str, reference: str, earlier: Sequence[Step]) -> None:
    names = [step.name for step in earlier]
    if reference not in names:
        raise ConfigurationError(
            f"{name!r} is over {reference!r}, but the steps before it are: {', '.join(names) or 'none'}"
        )
    between = earlier[names.index(reference) + 1 :]
    if crossed := [
        step.name for step in between if isinstance(step, Callback) or _reaches_over(step, reference, names)
    ]:
        raise ConfigurationError(
            f"{name!r} cannot be over {reference!r}: {crossed[0]!r} in between mixes what came of it"
        )


def _reaches_over(step: Step, reference: str, names: Sequence[str]) -> bool:
    return isinstance(step, Aggregate) and names.index(step.over) < names.index(reference)


def _taken(function: Callable[..., object]) -> object:
    return _item_of(function, next(iter(hints_of(function).values())))


def _items_of(function: Callable[..., object], hint: Any) -> object:
    """The `In` of `Sequence[Item[In]]` and the like."""
    return _item_of(function, next(iter(get_args(hint)), hint))


def _item_of(function: Callable[..., object], hint: Any) -> object:
    """The `In` of `Item[In]`."""
    if hint is not Item and get_origin(hint) is not Item:
        raise ConfigurationError(f"the step function {name_of(function)!r} needs Item[…] in place of {shown(hint)}")
    return next(iter(get_args(hint)), object)

"""Runs the steps of a pipeline: a task for each item in a step, and no queue in between.

Whoever makes an item waits until the next step has room for it, so that memory is bounded by the steps' `workers`. What
came of what is counted by spans; an item takes the spans along that reach beyond the step it is in.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, cast

from nat_dpo_pipeline.errors import InputError, ItemDropped, ModelError, ParseError
from nat_dpo_pipeline.generation.spans import Span
from nat_dpo_pipeline.generation.steps import Aggregate, Callback, Item, Observer, Path, Step

_ITEM_ERRORS = (InputError, ItemDropped, ModelError, ParseError)
_END = object()
Source = AsyncIterator[Any] | Iterable[Any]
Take = Callable[[Item[Any]], Awaitable[None]]
# Share of a step's places that items take together at most: while they wait for the last one, the others are empty.
_MOST_TOGETHER = 0.25


async def run_pipeline(
    steps: Sequence[Step], source: Source, observer: Observer, workers: int
) -> AsyncGenerator[Item[Any], None]:
    """See `Pipeline.run`. The work is done by a task of its own, which ends with the iterator."""
    output = _Output(workers)
    running = asyncio.create_task(_run_to_end(_Run(steps, observer, workers, output.put), source))
    running.add_done_callback(lambda _: output.end())
    try:
        while (item := await output.get()) is not _END:
            yield item
    finally:
        running.cancel()
        await asyncio.wait([running])
    running.result()


async def _run_to_end(run: "_Run", source: Source) -> None:
    cause: BaseException | None = None
    try:
        await run.through(source)
    except BaseExceptionGroup as group:
        # One of them is the cause, the others what it ended.
        cause = group.exceptions[0]
    if cause is not None:
        raise cause  # out here, so that its own cause and context stay


class _Output:
    """Has room for so many items; the end finds a place in any case."""

    def __init__(self, room: int) -> None:
        self._room = asyncio.Semaphore(room)
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    async def put(self, item: Item[Any]) -> None:
        await self._room.acquire()
        self._items.put_nowait(item)

    def end(self) -> None:
        self._items.put_nowait(_END)

    async def get(self) -> Any:
        item = await self._items.get()
        self._room.release()
        return item


class _Run:
    """The stages of one run, and the group of all its tasks."""

    def __init__(self, steps: Sequence[Step], observer: Observer, workers: int, output: Take) -> None:
        self.observer = observer
        self.tasks = asyncio.TaskGroup()
        self._stages = [_stage(step, index, self, step.workers or workers) for index, step in enumerate(steps)]
        self._output = output
        self._streams = [stage.stream for stage in self._stages if isinstance(stage, _CallbackStage)]
        for stage in self._stages:
            stage.connect(self._stages)

    async def through(self, source: Source) -> None:
        async with self.tasks:
            for stage in self._stages:
                if isinstance(stage, _CallbackStage):
                    self.tasks.create_task(stage.work(self.streams_after(stage.index)))
            self.tasks.create_task(self._feed(source))

    def streams_after(self, index: int) -> list[Span]:
        """The spans of the callbacks that come later, which end with everything that can still reach them."""
        return [stream for stream in self._streams if stream.until > index]

    async def hand_on(self, items: Sequence[Item[Any]], index: int) -> None:
        """To stage number `index`, or out of the pipeline."""
        if index < len(self._stages):
            await self._stages[index].take(items)
        else:
            for item in items:
                await self._output(item)

    async def _feed(self, source: Source) -> None:
        _enter(self._streams)
        with _ended_only_by_the_run("the source"):
            await self._feed_each(source)
        await _leave(self._streams)

    async def _feed_each(self, source: Source) -> None:
        place = 0
        async with aclosing(_each(source)) as values:
            while not self.observer.stopping:
                value = await anext(values, _END)
                # Meanwhile the run may have been stopped.
                if value is _END or self.observer.stopping:
                    break
                _enter(self._streams)
                await self.hand_on([Item(value, (place,), spans=tuple(self._streams))], 0)
                place += 1


class _Stage:
    """A step in a run."""

    def __init__(self, step: Step, index: int, run: _Run, workers: int) -> None:
        self.step = step
        self.index = index
        self.run = run
        self._slots = asyncio.Semaphore(workers)
        self._most_together = max(1, int(workers * _MOST_TOGETHER))
        self._entrance = asyncio.Lock()
        self._aggregates: list[_AggregateStage] = []
        self._ordered: list[_Stage] = []

    def connect(self, stages: Sequence["_Stage"]) -> None:
        """Find the stages that want to know when nothing more can come of this one's outputs."""
        name = self.step.name
        self._aggregates = [stage for stage in stages if isinstance(stage, _AggregateStage) and stage.over == name]
        self._ordered = [stage for stage in stages if stage.step.in_order_of == name]

    async def take(self, items: Sequence[Item[Any]]) -> None:
        """Wait for places; items that come together start at the same moment."""
        for start in range(0, len(items), self._most_together):
            together = items[start : start + self._most_together]
            async with self._entrance:  # else two groups could each wait for the places that the other one holds
                for item in together:
                    await item.slot.take(self._slots)
            for item in together:
                self.run.tasks.create_task(self._handle(item))

    async def _handle(self, item: Item[Any]) -> None:
        observer, name = self.run.observer, self.step.name
        observer.started(name)
        try:
            with _ended_only_by_the_run(name):
                await self.step.run(item, _Emitter(self, item))
        except _ITEM_ERRORS as error:
            observer.failed(name, item, error)
        else:
            observer.finished(name)
        await _leave(item.spans)
        item.slot.release()

    async def emit(self, item: Item[Any]) -> None:
        """Hand an output on that has no siblings."""
        whole, _ = self.begun(item, ())
        await self.run.hand_on([whole], self.index + 1)

    def begun(self, item: Item[Any], before: Sequence[Span]) -> tuple[Item[Any], Sequence[Span]]:
        """Return an output with the spans that begin with it, and those that the next sibling comes after."""
        earlier: Sequence[Span | None] = before or [None] * len(self._ordered)
        ordered = [
            Span(stage.index, ordered=True, previous=previous)
            for stage, previous in zip(self._ordered, earlier, strict=True)
        ]
        aggregates = [Span(stage.index, stage.complete) for stage in self._aggregates]
        whole = replace(item, spans=(*item.spans, *ordered, *aggregates))
        _enter(whole.spans)
        for aggregate in aggregates:
            aggregate.whole = whole
            # The aggregate that is to come of it is alive from now on, too.
            _enter(_beyond(aggregate.until, whole.spans))
        return whole, ordered


class _Emitter:
    """Hands on the outputs of one item."""

    def __init__(self, stage: _Stage, item: Item[Any]) -> None:
        self._stage = stage
        self._item = item
        self._spans = _beyond(stage.index, item.spans)
        self._before: Sequence[Span] = ()

    async def __call__(self, value: object, path: Path) -> None:
        await self.together([(value, path)])

    async def together(self, outputs: Sequence[tuple[object, Path]]) -> None:
        items = [self._begun(value, path) for value, path in outputs]
        await self._stage.run.hand_on(items, self._stage.index + 1)

    def _begun(self, value: object, path: Path) -> Item[Any]:
        item = Item(value, path, self._stage.step.name, self._item, self._spans)
        whole, self._before = self._stage.begun(item, self._before)
        return whole


class _AggregateStage(_Stage):
    """Collects members in the span of what they came of."""

    def __init__(self, step: Aggregate, index: int, run: _Run, workers: int) -> None:
        super().__init__(step, index, run, workers)
        self.over = step.over
        self._collected = step.collected

    async def take(self, items: Sequence[Item[Any]]) -> None:
        for item in items:
            for span in item.spans:
                if span.until == self.index:
                    span.members.append(item)
            await _leave(item.spans)

    async def complete(self, span: Span) -> None:
        whole: Item[Any] = span.whole
        members = span.members
        # What comes out keeps the span alive by its ancestors, but should not keep the members.
        span.whole, span.members = None, []
        spans = _beyond(self.index, whole.spans)
        observer, name = self.run.observer, self.step.name
        observer.started(name)
        value = None
        try:
            value = self._collected(whole, members)
        except _ITEM_ERRORS as error:
            observer.failed(name, whole, error)
        else:
            observer.finished(name)
        if value is not None:
            await self.emit(Item(value, whole.path, name, whole, spans))
        await _leave(spans)


class _CallbackStage(_Stage):
    """Lets a function see the stream of all items. Its span ends when nothing more can reach it."""

    def __init__(self, step: Callback, index: int, run: _Run, workers: int) -> None:
        super().__init__(step, index, run, workers)
        self.stream = Span(index, self._end)
        self._function = step.function
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=workers)

    async def take(self, items: Sequence[Item[Any]]) -> None:
        for item in items:
            await self._queue.put(item)

    async def work(self, later: Sequence[Span]) -> None:
        _enter(later)
        arrivals = _Arrivals(self._queue, self.run.observer, self.step.name)
        with _ended_only_by_the_run(self.step.name):
            async with aclosing(self._function(arrivals)) as outputs:
                async for item in outputs:
                    await self.emit(self._own(item, tuple(later)))
        async for _ in arrivals:
            pass  # what it did not ask for must not hold back the steps before it
        await _leave(later)

    def _own(self, item: Item[Any], spans: tuple[Span, ...]) -> Item[Any]:
        is_derived = item.parent is not None and not item.step
        # What it hands on as it came stays among the ancestors.
        return Item(item.value, item.path, self.step.name, item.parent if is_derived else item, spans)

    async def _end(self, _: Span) -> None:
        await self._queue.put(_END)


class _Arrivals:
    """What comes to a callback. No generator: that is over when whoever waits for its next item is cancelled."""

    def __init__(self, queue: "asyncio.Queue[Any]", observer: Observer, step: str) -> None:
        self._queue = queue
        self._observer = observer
        self._step = step
        self._current: Item[Any] | None = None
        self._is_over = False

    def __aiter__(self) -> "_Arrivals":
        return self

    async def __anext__(self) -> Item[Any]:
        last, self._current = self._current, None
        if last is not None:
            self._observer.finished(self._step)
            await _leave(last.spans)
        item: Any = _END if self._is_over else await self._queue.get()
        if item is _END:
            self._is_over = True
            raise StopAsyncIteration
        self._observer.started(self._step)
        self._current = item
        return cast("Item[Any]", item)


def _stage(step: Step, index: int, run: _Run, workers: int) -> _Stage:
    if isinstance(step, Aggregate):
        return _AggregateStage(step, index, run, workers)
    if isinstance(step, Callback):
        return _CallbackStage(step, index, run, workers)
    return _Stage(step, index, run, workers)


@contextmanager
def _ended_only_by_the_run(name: str) -> Iterator[None]:
    """A group takes a task that was cancelled for one that is done, but what that task owed to others was not done."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError(f"{name!r} was cancelled, but not by the run") from error


def _beyond(index: int, spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(span for span in spans if span.until > index)


def _enter(spans: Iterable[Span]) -> None:
    for span in spans:
        span.enter()


async def _leave(spans: Iterable[Span]) -> None:
    for span in spans:
        await span.leave()


async def _each(source: Source) -> AsyncGenerator[Any, None]:
    if isinstance(source, AsyncIterator):
        async for value in source:
            yield value
    else:
        for value in source:
            yield value

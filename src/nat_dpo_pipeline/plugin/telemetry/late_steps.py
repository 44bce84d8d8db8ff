"""Steps that come when the run that they are of may be over: NAT's stream drops them then, and recorders take them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Protocol

from nat.plugin_api import Context as NatContext

from nat_dpo_pipeline.plugin.nat_api import ContextState, IntermediateStep, Subject
from nat_dpo_pipeline.plugin.telemetry.evaluation_items import is_evaluation

Stream = Subject[IntermediateStep]


class Recorder(Protocol):
    """Whatever subscribes to the stream of a run and can do without it."""

    def export_late(self, event: IntermediateStep) -> None:
        """Take a step that was sent to the stream as well, where it counts only as long as the run lasts."""


_RECORDERS: dict[Stream, list[Recorder]] = {}


@contextmanager
def recording(stream: Stream, recorder: Recorder) -> Iterator[None]:
    """In the block, what begins in a run with this stream may outlive the run: the recorder takes its steps."""
    _RECORDERS.setdefault(stream, []).append(recorder)
    try:
        yield
    finally:
        _RECORDERS[stream].remove(recorder)
        if not _RECORDERS[stream]:
            del _RECORDERS[stream]


def outliving_context() -> Context | None:
    """A copy of the context for what may outlive the run; None where it may not.

    That is where nobody would record its steps, and in an evaluation, whose result are the steps of the run.
    """
    state = ContextState.get()
    stream = state.event_stream.get()
    recorders = tuple(_RECORDERS.get(stream, ()))
    if not recorders or is_evaluation() or NatContext.get().is_evaluating:
        return None

    def pass_on(step: IntermediateStep) -> None:
        stream.on_next(step)
        for recorder in recorders:
            recorder.export_late(step)

    def outlive() -> None:
        own = Subject[IntermediateStep]()
        own.subscribe(pass_on)
        state.event_stream.set(own)
        # NAT takes the function off the very list when it ends.
        state.active_span_id_stack.set([*state.active_span_id_stack.get()])

    context = copy_context()
    context.run(outlive)
    return context

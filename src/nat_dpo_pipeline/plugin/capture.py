"""Scored candidates out of a workflow of one's own.

    from nat_dpo_pipeline.plugin.capture import emit_candidates, turn

    emit_candidates(prompt="Which move?", responses=["e4", "f3"], scores=[0.4, -0.3])

    async with turn(prompt="Which move?") as candidates:
        candidates.add("e4", score=0.4)

The steps are those that a `dpo_traj_builder` collects. What has no finite score is pushed without one, so that the
builder counts it instead of losing it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from nat.plugin_api import Context

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.steps import push_step
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

#: A text, or messages in OpenAI's form.
GivenPrompt = str | Sequence[Mapping[str, object] | Message]
#: A text, or a message with `content` and `tool_calls`, also one of a client.
GivenResponse = object


def emit_candidates(
    *,
    prompt: GivenPrompt,
    responses: Sequence[GivenResponse],
    scores: Sequence[float | None],
    models: Sequence[str | None] | None = None,
    metadata: Sequence[Mapping[str, object]] | None = None,
    turn_id: str | None = None,
    turn_index: int = 0,
    step_name: str = DEFAULT_STEP_NAME,
    tools: Sequence[object] = (),
) -> str:
    """Push the candidates of one turn, at once, and return its id, which is new unless it is given.

    Candidates compete when they have one `turn_id` and one prompt. `tools` are those on offer, as the model saw them.
    Raises InputError when the lists differ in length.
    """
    for name, given in (("scores", scores), ("models", models), ("metadata", metadata)):
        if given is not None and len(given) != len(responses):
            raise InputError(f"{len(responses)} responses need as many {name}, not {len(given)}")
    candidates = Turn(prompt, turn_id or str(uuid4()), turn_index, step_name, tools)
    for place, (response, score) in enumerate(zip(responses, scores, strict=True)):
        candidates.add(
            response,
            score=score,
            model=None if models is None else models[place],
            metadata=None if metadata is None else metadata[place],
        )
    candidates.push()
    return candidates.turn_id


@asynccontextmanager
async def turn(
    *,
    prompt: GivenPrompt,
    turn_id: str | None = None,
    turn_index: int = 0,
    step_name: str = DEFAULT_STEP_NAME,
    tools: Sequence[object] = (),
) -> AsyncIterator["Turn"]:
    """Collect the candidates of one turn as they come, from tasks and threads too; they are pushed at the end of the
    block, also when it raises."""
    candidates = Turn(prompt, turn_id or str(uuid4()), turn_index, step_name, tools)
    try:
        yield candidates
    finally:
        candidates.push()


@dataclass(frozen=True, slots=True)
class _Added:
    response: GivenResponse
    score: float | None
    metadata: Mapping[str, object]


@dataclass(slots=True)
class Turn:
    """The candidates of one turn that were added so far."""

    prompt: GivenPrompt
    turn_id: str
    turn_index: int
    step_name: str
    tools: Sequence[object] = ()
    _added: list[_Added] = field(default_factory=list)

    def add(
        self,
        response: GivenResponse,
        *,
        score: float | None,
        model: str | None = None,
        attributes: Mapping[str, float] | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Add a response. `attributes` are scores beside the one that decides; `model` is who wrote it."""
        facts: dict[str, object] = dict(metadata or {})
        if attributes:
            facts["attributes"] = dict(attributes)
        if model is not None:
            facts["model"] = model
        self._added.append(_Added(response, finite_number(score), facts))

    def push(self) -> None:
        """Push what was added, in the context of whoever calls this."""
        # A new one for every call of Context: the steps of a candidate must go through one.
        manager = Context.get().intermediate_step_manager
        asked = _asked(self.prompt, self.tools)
        for index, one in enumerate(self._added):
            push_step(
                manager,
                self.step_name,
                turn_id=self.turn_id,
                turn_index=self.turn_index,
                candidate_index=index,
                prompt=asked,
                response=one.response,
                score=one.score,
                metadata=one.metadata,
            )
        self._added.clear()


def _asked(given: GivenPrompt, tools: Sequence[object]) -> object:
    """Return a prompt as JSON, which is read like any other recorded prompt."""
    if isinstance(given, str):
        messages: list[object] = [{"role": "user", "content": given}]
    else:
        messages = [one.as_json() if isinstance(one, Message) else one for one in given]
    return {"messages": messages, "tools": list(tools)} if tools else messages

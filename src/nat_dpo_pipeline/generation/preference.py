"""NVIDIA's preference-data recipe as a pipeline: topic → subtopics → questions → responses → rewards → turns.

A failed call or an unreadable reply costs what hung on it and nothing else; it is recorded with its reply. A model that
no further call can reach (a wrong key, spent credit) ends the run; what other models can finish is finished.

Nothing waits for its neighbours, and yet what comes out does not depend on which reply was first: a question goes on as
soon as it is there, and if it turns out to repeat one of an earlier subtopic it is withdrawn and another is asked for.
So with the responses to one question.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import ceil

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.answering import SAMPLES, Answering
from nat_dpo_pipeline.generation.chat import ChatModel, Waiting
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.record import Failure, GenerationRecord
from nat_dpo_pipeline.generation.rewarding import rewarded
from nat_dpo_pipeline.generation.scorers import Scorer, TurnScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode, StepName
from nat_dpo_pipeline.generation.steps import Broadcast, Item, Pipeline, Scatter
from nat_dpo_pipeline.generation.turns import Turn
from nat_dpo_pipeline.generation.writing import Writing

_FEWEST_LISTS = 8


@dataclass(frozen=True, slots=True)
class PreferenceRecipe:
    """The recipe over its models. `adapt` gives the pipeline that is run instead of the recipe's own.

    `responders` are asked one after the other for each question: one pool, or every model that is to answer every
    question. `workers` is how many items each step holds. `waiting` tells which models are left alone at the moment.
    """

    writer: ChatModel
    responders: Sequence[ChatModel]
    scorer: Scorer | TurnScorer
    settings: RecipeSettings
    adapt: Callable[[Pipeline], Pipeline] | None = None
    workers: int = 64
    waiting: Callable[[], Iterable[Waiting]] = tuple

    def pipeline(self, record: GenerationRecord) -> Pipeline:
        """The steps of one run. Raises ConfigurationError when what `adapt` gives does not end with turns."""
        own = self._own_pipeline(record)
        return own if self.adapt is None else _ending_with_turns(self.adapt(own))

    def _own_pipeline(self, record: GenerationRecord) -> Pipeline:
        settings = self.settings
        paired = settings.responses is ResponseMode.PAIRED
        writing = Writing(self.writer, settings, record)
        answering = Answering(self.responders, self.n_responses, settings, record)
        answered = answering.paired if paired else answering.independent
        responses = (
            Scatter(writing.subtopics)
            >> Scatter(writing.questions, in_order_of="subtopics", workers=self._lists_at_once())
            >> Broadcast(self.n_responses // (2 if paired else 1), answering.sample, name=SAMPLES)
            >> Scatter(answered, name="responses", in_order_of=SAMPLES)
        )
        return rewarded(responses, self.scorer, settings, record)

    def _lists_at_once(self) -> int:
        """So many that their questions keep the next steps busy; more would only wait, with what came of them."""
        return max(2 * ceil(self.workers / self.settings.n_questions), _FEWEST_LISTS)

    async def run(
        self, requests: AsyncIterator[Request] | Iterable[Request], record: GenerationRecord
    ) -> AsyncGenerator[Item[Turn], None]:
        """The turns of all requests, each as soon as it is complete; their paths give the order of the requests."""
        held: list[Item[Turn]] = []
        async with aclosing(self.pipeline(record).run(requests, observer=record, workers=self.workers)) as items:
            async for item in items:
                settled, held = _settled_and_not((*held, item))
                for one in self._told(settled, record):
                    yield one
        # What was settled after the last turn came.
        for one in self._told(_settled_and_not(held)[0], record):
            yield one

    async def turns(self, request: Request, record: GenerationRecord) -> list[Turn]:
        """The turns of one request, in the order of its questions."""
        found = [item async for item in self.run((request,), record)]
        return [item.value for item in sorted(found, key=lambda item: item.path)]

    @property
    def n_responses(self) -> int:
        """How many responses a question is to have."""
        paired = self.settings.responses is ResponseMode.PAIRED
        return len(self.responders) * (2 if paired else self.settings.n_responses)

    def _told(self, items: Sequence[Item[Turn]], record: GenerationRecord) -> list[Item[Turn]]:
        """Those to whose question something was said; the others are only missed."""
        for item in items:
            self._tell(item.value, record)
        return [item for item in items if item.value.candidates or item.value.unscored]

    def _tell(self, turn: Turn, record: GenerationRecord) -> None:
        flawed = [(one.response, flaw) for one in turn.unscored if (flaw := one.response.flaw) and one.reason == flaw]
        for response, flaw in flawed:
            detail = ", ".join(filter(None, (f"response {response.index} of {response.model}", response.detail)))
            said = response.text or response.thoughts
            record.add(Failure(StepName.RESPONSES, turn.question.text, flaw.failure, detail, said))
        counts = record.counts
        counts["responses"] += len(turn.candidates) + len(turn.unscored)
        counts["candidates"] += len(turn.candidates)
        if (missing := self.n_responses - len(turn.candidates) - len(turn.unscored) + len(flawed)) > 0:
            counts["missing_responses"] += missing
        if repeated := turn.question.claim.repeated:
            counts["duplicate_responses"] += repeated
        if turn.set_aside:
            counts[f"questions_{turn.set_aside}"] += 1


def _ending_with_turns(adapted: object) -> Pipeline:
    if not isinstance(adapted, Pipeline):
        raise ConfigurationError(f"what adapts the pipeline must return a Pipeline, got {adapted!r:.80}")
    if not adapted.steps or adapted.steps[-1].gives is not Turn:
        last = repr(adapted.steps[-1]) if adapted.steps else "missing"
        raise ConfigurationError(f"the last step of the adapted pipeline must give Turn, but it is {last}")
    return adapted


def _settled_and_not(items: Sequence[Item[Turn]]) -> tuple[list[Item[Turn]], list[Item[Turn]]]:
    """The turns whose questions stand, and those of which this is not known yet."""
    claims = [(item, item.value.question.claim) for item in items]
    stand = [item for item, claim in claims if claim.is_settled and not claim.is_withdrawn]
    return stand, [item for item, claim in claims if not claim.is_settled]

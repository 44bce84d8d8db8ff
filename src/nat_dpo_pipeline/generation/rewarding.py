"""The last steps of the recipe: scores for the responses, and the turns they make up."""

from collections.abc import Sequence
from typing import Any

from nat_dpo_pipeline.errors import DPOPipelineError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import counting_late
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.scorers import Score, Scorer, TurnScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, StepName
from nat_dpo_pipeline.generation.steps import Aggregate, Item, Map, Pipeline
from nat_dpo_pipeline.generation.turns import Answered, Flaw, Question, Response, Scored, Turn, make_turn

_DUPLICATE = "duplicate"


def rewarded(
    pipeline: Pipeline, scorer: Scorer | TurnScorer, settings: RecipeSettings, record: GenerationRecord
) -> Pipeline:
    """The pipeline, which gives responses to questions, with the steps that make turns of them."""
    if isinstance(scorer, TurnScorer):
        compared = _Comparisons(scorer, settings, record)
        return pipeline >> Aggregate(compared.answered, over="questions") >> Map(compared.compared, name="rewards")
    scores = _Scores(scorer, settings, record)
    return pipeline >> Map(scores.rewards) >> Aggregate(scores.turns, over="questions")


class _Rewards:
    """What scoring one by one and scoring by comparison have in common."""

    def __init__(self, settings: RecipeSettings, record: GenerationRecord) -> None:
        self._settings = settings
        self._record = record

    def _unscored(self, response: Response, error: DPOPipelineError) -> Scored:
        self._record.note(StepName.REWARDS, response.question.text, error)
        return Scored(response, reason=FailureReason.of(error), detail=str(error))

    def _why_unscored(self, response: Response) -> str | None:
        kept = {Flaw.TRUNCATED: self._settings.keep_truncated, Flaw.REFUSAL: self._settings.keep_refusals}
        if response.question.claim.is_withdrawn or response.claim.is_withdrawn:
            return _DUPLICATE
        is_kept = response.flaw is None or (kept.get(response.flaw, False) and response.text)
        return None if is_kept else response.flaw

    def _turn(self, item: Item[Any], scored: Sequence[Scored]) -> Turn:
        value = item.value
        question = value if isinstance(value, Question) else value.question
        return make_turn(
            getattr(item.root.value, "example_id", ""),
            "question-" + ".".join(map(str, item.path[1:])),
            question,
            [one for one in scored if not one.response.claim.is_withdrawn],
            self._settings.min_best_score,
        )

    def _spent_on_rewards(self, outcome: ChatReply | ModelError) -> None:
        self._record.spent(StepName.REWARDS, outcome)


class _Scores(_Rewards):
    """Each response on its own."""

    def __init__(self, scorer: Scorer, settings: RecipeSettings, record: GenerationRecord) -> None:
        super().__init__(settings, record)
        self._scorer = scorer

    async def rewards(self, item: Item[Response]) -> Scored:
        response = item.value
        if (reason := self._why_unscored(response)) is not None:
            return Scored(response, reason=reason, detail=response.detail)
        try:
            with counting_late(self._spent_on_rewards):
                score = await self._scorer.score(response.question.messages, response.text, self._spent_on_rewards)
        except (ModelError, ParseError) as error:
            return self._unscored(response, error)
        return Scored(response, score)

    def turns(self, item: Item[Question], members: Sequence[Item[Scored]]) -> Turn | None:
        """None for a question that was never asked, because a step of the user's dropped it."""
        return self._turn(item, [member.value for member in members]) if item.value.claim.is_asked else None


class _Comparisons(_Rewards):
    """All responses to a question together."""

    def __init__(self, scorer: TurnScorer, settings: RecipeSettings, record: GenerationRecord) -> None:
        super().__init__(settings, record)
        self._scorer = scorer

    def answered(self, item: Item[Question], members: Sequence[Item[Response]]) -> Answered | None:
        return Answered(item.value, tuple(member.value for member in members)) if item.value.claim.is_asked else None

    async def compared(self, item: Item[Answered]) -> Turn:
        """Scores by a scorer that sees all responses of a question together."""
        reasons = [self._why_unscored(response) for response in item.value.responses]
        scored = await self._scored_together(
            [response for response, reason in zip(item.value.responses, reasons, strict=True) if reason is None]
        )
        others = [
            Scored(response, reason=reason, detail=response.detail)
            for response, reason in zip(item.value.responses, reasons, strict=True)
            if reason is not None
        ]
        return self._turn(item, sorted((*scored, *others), key=lambda one: one.response.index))

    async def _scored_together(self, responses: Sequence[Response]) -> list[Scored]:
        if len(responses) < 2:
            return [Scored(response, reason="nothing_to_compare_with") for response in responses]
        texts = [response.text for response in responses]
        question = responses[0].question
        try:
            with counting_late(self._spent_on_rewards):
                results = await self._scorer.score_turn(question.messages, texts, self._spent_on_rewards)
        except (ModelError, ParseError) as error:
            return [self._unscored(response, error) for response in responses]
        return [
            Scored(response, result) if isinstance(result, Score) else self._unscored(response, result)
            for response, result in zip(responses, results, strict=True)
        ]

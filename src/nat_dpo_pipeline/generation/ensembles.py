"""Several scorers that score together."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import Combination, combine_members
from nat_dpo_pipeline.errors import ConfigurationError, InputError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.scorers import Score, Scorer


class EnsembleScorer:
    """The mean of several scorers, or the lowest of them (arXiv 2310.02743 has both, against over-optimisation).

    All of them must score a response: one that lacks a member's score is on another scale than those beside it, and
    would win or lose for that. So the error of a member is the candidate's error.
    """

    def __init__(self, members: Mapping[str, Scorer], combination: Combination = Combination.MEAN) -> None:
        if not members:
            raise ConfigurationError("an ensemble needs at least one member")
        self._members = dict(members)
        self._combination = combination

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        asked = (member.score(prompt, response, on_reply) for member in self._members.values())
        scores = _all_of(await asyncio.gather(*asked, return_exceptions=True))
        values = {name: score.value for name, score in zip(self._members, scores, strict=True)}
        models = " + ".join(score.model for score in scores)
        try:
            value = combine_members(list(values.values()), self._combination)
        except InputError as error:
            raise ParseError(str(error), models) from error
        return Score(value, MappingProxyType(_attributes(scores)), models, MappingProxyType(values))


def _attributes(scores: Sequence[Score]) -> dict[str, float]:
    """Those of all members; what two of them call the same means something else in each, and is left out."""
    given = Counter(name for score in scores for name in score.attributes)
    return {name: value for score in scores for name, value in score.attributes.items() if given[name] == 1}


def _all_of(results: Sequence[Score | BaseException]) -> list[Score]:
    """The scores; raises an error among them, a fatal one first since it ends more than this candidate."""
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: not (isinstance(error, ModelError) and error.fatal)):
        raise error
    return [result for result in results if isinstance(result, Score)]

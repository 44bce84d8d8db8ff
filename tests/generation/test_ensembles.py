import asyncio
from collections.abc import Callable, Sequence

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import Combination
from nat_dpo_pipeline.errors import ConfigurationError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.scorers import RewardModelScorer, Score
from nat_dpo_pipeline.testing import ScriptedModel

pytestmark = pytest.mark.own_time

USER = Message("user", "q")


class Given:
    """A scorer that gives what it is given, once all members of the ensemble were asked."""

    def __init__(self, outcome: float | Exception, barrier: asyncio.Barrier | None = None) -> None:
        self._outcome = outcome
        self._barrier = barrier

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:  # noqa: ARG002
        if self._barrier is not None:
            await self._barrier.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return Score(self._outcome, {"helpfulness": self._outcome}, f"model of {self._outcome:g}")


async def _score(ensemble: EnsembleScorer, on_reply: Callable[[ChatReply], None] = lambda _: None) -> Score:
    return await ensemble.score([USER], "a", on_reply)


@pytest.mark.parametrize(("combination", "value"), [(Combination.MEAN, 2.5), (Combination.WORST, 1.0)])
async def test_the_value_is_the_mean_or_the_worst_and_each_members_is_kept(
    combination: Combination, value: float
) -> None:
    ensemble = EnsembleScorer({"strict": Given(1.0), "kind": Given(4.0)}, combination)
    assert await _score(ensemble) == Score(value, {}, "model of 1 + model of 4", {"strict": 1.0, "kind": 4.0})


async def test_attributes_that_one_member_alone_gives_are_kept() -> None:
    rewarding = RewardModelScorer(ScriptedModel(lambda _: "correctness:3.0,helpfulness:2.0"), {"helpfulness": 1.0})
    scored = await _score(EnsembleScorer({"one": rewarding, "two": Given(4.0)}))
    assert scored.attributes == {"correctness": 3.0}


async def test_all_members_are_asked_at_once() -> None:
    barrier = asyncio.Barrier(3)
    members = {name: Given(1.0, barrier) for name in ("a", "b", "c")}
    async with asyncio.timeout(2):
        assert (await _score(EnsembleScorer(members))).value == 1.0


@pytest.mark.parametrize("error", [ParseError("no reward", "Hm."), ModelError("too long"), ZeroDivisionError("a bug")])
async def test_the_error_of_a_member_is_that_of_the_candidate(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await _score(EnsembleScorer({"a": Given(1.0), "b": Given(error)}))
    assert raised.value is error


async def test_a_fatal_error_comes_before_another_members() -> None:
    members = {"a": Given(ParseError("no reward", "")), "b": Given(ModelError("no credit", fatal=True))}
    with pytest.raises(ModelError, match="no credit"):
        await _score(EnsembleScorer(members))


async def test_every_members_reply_is_seen_also_when_another_fails() -> None:
    paid: list[ChatReply] = []
    models = {"good": ScriptedModel(lambda _: "4.5", "good"), "bad": ScriptedModel(lambda _: "Hm.", "bad")}
    ensemble = EnsembleScorer({name: RewardModelScorer(model, {}) for name, model in models.items()})
    with pytest.raises(ParseError):
        await _score(ensemble, paid.append)
    assert sorted(reply.llm for reply in paid) == ["bad", "good"]


async def test_values_that_have_no_finite_mean_are_a_parse_error() -> None:
    with pytest.raises(ParseError, match="no finite mean"):
        await _score(EnsembleScorer({"a": Given(1.7e308), "b": Given(1.7e308)}))


def test_an_ensemble_of_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one member"):
        EnsembleScorer({})

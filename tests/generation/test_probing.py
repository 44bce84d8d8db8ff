import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import Concern
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.probing import Refusals, harmless
from nat_dpo_pipeline.generation.settings import Sampling

ASKED = Call((Message("user", "Why?"),))


def _probes(refusals: Refusals, concern: Concern, count: int) -> list[int]:
    """The refusals in a row after which a probe is due, when each probe is answered."""
    due = []
    for number in range(1, count + 1):
        if refusals.add(ASKED, concern):
            due.append(number)
            refusals.answered(harmless(ASKED))
            refusals.clear(ASKED, concern)
    return due


@pytest.mark.parametrize(
    ("concern", "due"),
    [
        (Concern.ACCOUNT, [1, 3, 7, 15, 31, 63]),
        (Concern.CREDIT, [1, 3, 7, 15, 31, 63]),
        (Concern.NAME, [1, 3, 7, 15, 31, 63]),
        (Concern.UNKNOWN, [10, 30, 70]),
    ],
)
def test_probes_that_are_answered_become_few(concern: Concern, due: list[int]) -> None:
    assert _probes(Refusals(), concern, 100) == due


def test_a_probe_is_due_at_every_refusal_until_one_is_answered_or_refused() -> None:
    refusals = Refusals()
    assert [refusals.add(ASKED, Concern.NAME) for _ in range(3)] == [1, 2, 3]
    assert not refusals.is_cleared(ASKED, Concern.NAME)


def test_an_answer_begins_the_count_anew_and_forgets_no_probe() -> None:
    refusals = Refusals()
    for _ in range(100):
        assert refusals.add(ASKED, Concern.UNKNOWN) == 0
        refusals.answered(Call((Message("user", "Another?"),)))
    assert _probes(refusals, Concern.ACCOUNT, 1) == [1]
    refusals.answered(ASKED)
    assert refusals.add(ASKED, Concern.ACCOUNT) == 0
    assert refusals.is_cleared(ASKED, Concern.ACCOUNT)
    assert not refusals.is_cleared(ASKED, Concern.UNKNOWN)


def test_another_route_parameter_or_concern_is_counted_apart() -> None:
    refusals = Refusals()
    asked = Call(ASKED.messages, Sampling(max_tokens=3), route=Route.POOLING)
    assert [refusals.add(asked, Concern.UNKNOWN) for _ in range(9)] == [0] * 9
    refusals.answered(Call(ASKED.messages, Sampling(max_tokens=3)))
    refusals.answered(Call(ASKED.messages, route=Route.POOLING))
    assert refusals.add(asked, Concern.ACCOUNT) == 1
    assert refusals.add(asked, Concern.UNKNOWN) == 10


@pytest.mark.parametrize(
    ("roles", "asked"),
    [
        (["user"], ["user"]),
        (["system", "user", "assistant", "user"], ["user"]),
        (["user", "assistant", "user", "assistant"], ["user", "assistant"]),
        (["user", "response_1", "response_2"], ["user", "response_1", "response_2"]),
        (["system"], ["user"]),
    ],
)
def test_a_probe_has_the_form_of_its_call_and_nothing_of_its_texts(roles: list[str], asked: list[str]) -> None:
    messages = tuple(Message(role, f"something forbidden, {role}") for role in roles)
    call = Call(messages, Sampling(temperature=0.5), sample=3, run=1, route=Route.CLASSIFY, also=(4, 5))
    expected = tuple(Message(role, "Hello") for role in asked)
    assert harmless(call) == Call(expected, Sampling(temperature=0.5), run=1, route=Route.CLASSIFY)

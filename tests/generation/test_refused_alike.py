import pytest

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import Concern, ModelError
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.refused_alike import RefusedAlike, alike
from nat_dpo_pipeline.generation.settings import Sampling


def _call(prompt: str, *more: Message, **parts: object) -> Call:
    return Call((Message("user", prompt), *more), **parts)  # type: ignore[arg-type]


def _refused(concern: Concern, message: str = "no") -> ModelError:
    return ModelError(message, concern=concern)


def _calls_until_the_end(refused: RefusedAlike, concern: Concern, calls: list[Call]) -> int | None:
    for number, call in enumerate(calls, start=1):
        if refused.add(call, _refused(concern)) is not None:
            return number
    return None


@pytest.mark.parametrize(
    ("concern", "samples", "calls"),
    [
        (Concern.ACCOUNT, 1, 2),
        (Concern.NAME, 1, 2),
        (Concern.ACCOUNT, 4, 5),
        (Concern.UNKNOWN, 1, 10),
        (Concern.UNKNOWN, 2, 10),
        (Concern.UNKNOWN, 16, 33),
        (Concern.REQUEST, 1, None),
    ],
)
def test_so_many_alike_for_so_many_prompts_are_the_models(concern: Concern, samples: int, calls: int | None) -> None:
    asked = [_call(f"question {number // samples}") for number in range(200)]
    assert _calls_until_the_end(RefusedAlike(), concern, asked) == calls


def test_the_samples_of_one_prompt_do_not_end_a_model() -> None:
    calls = [_call("one question", sample=number) for number in range(100)]
    assert _calls_until_the_end(RefusedAlike(), Concern.UNKNOWN, calls) is None


@pytest.mark.parametrize("role", ["assistant", "response_1"])
def test_responses_to_one_prompt_are_one_prompt(role: str) -> None:
    calls = [_call("one question", Message(role, f"answer {number}")) for number in range(100)]
    assert _calls_until_the_end(RefusedAlike(), Concern.ACCOUNT, calls) is None
    judged = [_call(f"Rate answer {number}", about="one question") for number in range(100)]
    assert _calls_until_the_end(RefusedAlike(), Concern.ACCOUNT, judged) is None


def test_an_answer_in_between_clears_a_model() -> None:
    refused = RefusedAlike()
    for number in range(100):
        assert refused.add(_call(f"question {number}"), _refused(Concern.ACCOUNT)) is None
        refused.answered(_call("another"))


def test_an_answer_on_another_route_or_with_other_parameters_clears_nothing() -> None:
    refused = RefusedAlike()
    asked = [_call(f"question {number}", route=Route.POOLING, sampling=Sampling(max_tokens=3)) for number in range(2)]
    assert refused.add(asked[0], _refused(Concern.NAME)) is None
    refused.answered(_call("another", sampling=Sampling(max_tokens=3)))
    refused.answered(_call("another", route=Route.POOLING))
    assert refused.add(asked[1], _refused(Concern.NAME)) == "2 requests in a row, for 2 prompts, were refused alike"


def test_refusals_for_different_reasons_are_not_alike() -> None:
    refused = RefusedAlike()
    for number in range(200):
        message = "the question is odd" if number % 2 else "the question is rude"
        found = refused.add(_call(f"question {number}"), _refused(Concern.UNKNOWN, message))
        assert found is None or number >= 18


def test_alike_is_what_differs_in_numbers_and_quoted_parts_only() -> None:
    assert alike("field 'a' of 5 tokens (request req_1ab)") == alike("field 'bc' of 77 tokens (request req_9)")
    assert alike("the prompt is odd") != alike("the prompt is rude")


@pytest.mark.parametrize("error", [ModelError("wait", throttled=True), ModelError("no", fatal=True)], ids=str)
def test_what_is_no_refusal_of_a_request_is_not_counted(error: ModelError) -> None:
    refused = RefusedAlike()
    assert [refused.add(_call(f"question {number}"), error) for number in range(50)] == [None] * 50

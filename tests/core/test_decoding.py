import pytest

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.decoding import CandidateDecoder
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import CandidateRefused


def _decoded(decoder: CandidateDecoder, **own: object) -> Candidate:
    fields = {"input": [{"role": "user", "content": "Why?"}], "output": "So.", **own}
    return decoder.decode(fields, {"turn_id": "t", "score": 1.0, **own}, {})


def test_a_candidate_without_an_index_has_its_place_in_the_turn() -> None:
    decoder = CandidateDecoder("e")
    found = [_decoded(decoder, turn_id=turn, candidate_index=index) for turn in "ab" for index in (None, "7", None)]
    assert [one.candidate_index for one in found] == [0, 7, 2] * 2
    assert {one.example_id for one in found} == {"e"}


def test_equal_prompts_are_one_object() -> None:
    decoder = CandidateDecoder("e")
    first, second, other = (_decoded(decoder, input=[{"role": "user", "content": text}]) for text in ("a", "a", "b"))
    assert first.prompt is second.prompt
    assert other.prompt == (Message("user", "b"),)


def test_a_refused_prompt_is_not_taken_for_the_next_one() -> None:
    decoder = CandidateDecoder("e")
    for _ in range(2):
        with pytest.raises(CandidateRefused) as refused:
            _decoded(decoder, input="")
        assert refused.value.reason is RefusalReason.MISSING_PROMPT
    assert _decoded(decoder).prompt == (Message("user", "Why?"),)


@pytest.mark.parametrize("index", ["9" * 4301, "9" * 20, 2**63, -(2**63), 10**400, 1e300, 1.5, True, [0]])
def test_an_index_that_cannot_be_one_is_malformed(index: object) -> None:
    with pytest.raises(CandidateRefused) as refused:
        _decoded(CandidateDecoder("e"), turn_id="t", candidate_index=index)
    assert refused.value.reason == RefusalReason.MALFORMED


def test_a_step_whose_reward_is_void_is_no_candidate() -> None:
    fields = {"input": "Why?", "output": "So."}
    own = {"turn_id": "t", "score": 0.0, "candidate_index": 0}
    with pytest.raises(CandidateRefused) as refused:
        CandidateDecoder("e").decode(fields, own, {"error": "the sandbox died"})
    assert refused.value.reason is RefusalReason.VOID_REWARD
    assert CandidateDecoder("e").decode(fields, own, {"error": None}).score == 0.0

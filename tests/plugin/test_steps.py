import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from nat.builder.context import Context, ContextState
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TraceMetadata,
    TTCEventData,
)
from nat.data_models.invocation_node import InvocationNode
from nat.utils.reactive.subject import Subject

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.plugin.steps import StepManager, decode_candidates, push_candidate

NAME = "dpo_candidate_move"
GOOD: Mapping[str, object] = {"turn_id": "t", "candidate_index": 0, "input": "Why?", "output": "So.", "score": 1.0}
END = IntermediateStepType.TTC_END
PROMPTS = st.text().filter(str.strip) | st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), max_size=3
).map(lambda messages: (*messages, Message("user", "And now?")))
METADATA = st.dictionaries(
    st.text().filter(lambda name: name not in ("attributes", "model")), st.text() | st.integers() | st.booleans()
)
CANDIDATES = st.builds(
    Candidate,
    example_id=st.just("example"),
    turn_id=st.text(),
    candidate_index=st.integers(-(2**53), 2**53),  # what any reader of JSON holds exactly
    prompt=PROMPTS,
    response=st.text(),
    score=st.floats(allow_nan=False, allow_infinity=False),
    attributes=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    model=st.none() | st.text(),
    metadata=METADATA,
)


@contextmanager
def _listening(steps: list[IntermediateStep]) -> Iterator[StepManager]:
    """NAT's own step manager in a stream of its own, whose events end in `steps`."""
    state = ContextState.get()
    token = state._event_stream.set(Subject())  # noqa: SLF001 - NAT has no public way to start a stream
    manager = Context.get().intermediate_step_manager
    subscription = manager.subscribe(steps.append)
    try:
        yield manager
    finally:
        subscription.unsubscribe()
        state._event_stream.reset(token)  # noqa: SLF001


def _pushed(*candidates: Candidate) -> list[IntermediateStep]:
    steps: list[IntermediateStep] = []
    with _listening(steps) as manager:
        for candidate in candidates:
            push_candidate(manager, NAME, candidate, turn_index=3)
    return steps


def _delivered(steps: list[IntermediateStep]) -> list[IntermediateStep]:
    return [IntermediateStep.model_validate(step.model_dump()) for step in steps]


def _direct(data: StreamEventData | None, metadata: TraceMetadata | None = None) -> IntermediateStep:
    """A step whose data is the very object, not one that was dumped."""
    payload = IntermediateStepPayload(event_type=END, name=NAME, data=data, metadata=metadata)
    return IntermediateStep(
        parent_id="root", function_ancestry=InvocationNode(function_id="f", function_name="f"), payload=payload
    )


def _candidate(**changes: object) -> Candidate:
    fields: dict[str, object] = {
        "example_id": "example",
        "turn_id": "turn",
        "candidate_index": 0,
        "prompt": "What is it?",
        "response": "A thing.",
        "score": 1.0,
    }
    return Candidate(**{**fields, **changes})  # type: ignore[arg-type]


@given(st.lists(CANDIDATES, min_size=1, max_size=3))
def test_what_is_pushed_through_nat_is_decoded_again(candidates: list[Candidate]) -> None:
    steps = _pushed(*candidates)
    for arrived in (steps, _delivered(steps)):
        decoded = decode_candidates(arrived, NAME, "example")
        assert decoded.refusals == []
        assert len(decoded.candidates) == len(candidates)
        for sent, received in zip(candidates, decoded.candidates, strict=True):
            prompt = (Message("user", sent.prompt),) if isinstance(sent.prompt, str) else sent.prompt
            assert received.prompt == prompt
            assert received.example_id == sent.example_id
            assert received.turn_id == sent.turn_id
            assert received.candidate_index == sent.candidate_index
            assert received.response == sent.response
            assert received.score == sent.score
            assert {**received.metadata, **sent.metadata} == received.metadata


def test_delivered_data_is_of_the_base_class_with_extras() -> None:
    """What the decoder is written for; if NAT ever delivers TTCEventData, this says so."""
    (_, end) = _delivered(_pushed(_candidate()))
    assert type(end.payload.data) is StreamEventData
    assert end.payload.data.model_extra == {"turn_id": "turn", "turn_index": 3, "candidate_index": 0, "score": 1.0}


def test_start_and_end_share_an_id_and_the_end_has_the_score() -> None:
    start, end = _pushed(_candidate(score=0.25))
    assert start.event_type is IntermediateStepType.TTC_START
    assert end.event_type is END
    assert start.UUID == end.UUID
    assert UUID(start.UUID).version == 4
    assert isinstance(start.data, TTCEventData)
    assert isinstance(end.data, TTCEventData)
    assert (start.data.score, start.data.output) == (None, None)
    assert (end.data.score, end.data.output) == (0.25, "A thing.")
    assert start.data.input == end.data.input == [{"role": "user", "content": "What is it?"}]
    assert (end.data.turn_id, end.data.turn_index, end.data.candidate_index) == ("turn", 3, 0)


def test_each_candidate_has_an_id_of_its_own() -> None:
    steps = _pushed(*(_candidate(candidate_index=index) for index in range(5)))
    assert len({step.UUID for step in steps}) == 5
    assert [step.event_type for step in steps] == [IntermediateStepType.TTC_START, END] * 5


def test_attributes_and_model_travel_in_the_metadata() -> None:
    (*_, end) = _pushed(_candidate(attributes={"helpfulness": 3.5}, model="writer-1", metadata={"topic": "heaps"}))
    assert end.metadata == {"topic": "heaps", "attributes": {"helpfulness": 3.5}, "model": "writer-1"}


def test_pushing_leaves_no_step_open() -> None:
    """A step that stayed open would become the parent of all that follow."""
    steps: list[IntermediateStep] = []
    with _listening(steps) as manager:
        push_candidate(manager, NAME, _candidate(), 0)
        push_candidate(manager, NAME, _candidate(), 0)
        assert Context.get().active_span_id == "root"
    assert len({step.parent_id for step in steps}) == 1


def test_ttc_data_is_decoded_without_a_round_trip() -> None:
    data = TTCEventData(turn_id="t", candidate_index=4, input="Why?", output="So.", score=2)
    (candidate,) = decode_candidates([_direct(data)], NAME, "e").candidates
    assert candidate == Candidate("e", "t", 4, "Why?", "So.", 2.0, metadata={})


def test_stream_data_with_extras_is_decoded() -> None:
    data = StreamEventData.model_validate({**GOOD, "candidate_index": 4, "score": 2.0})
    (candidate,) = decode_candidates([_direct(data)], NAME, "e").candidates
    assert candidate == Candidate("e", "t", 4, "Why?", "So.", 2.0, metadata={})


def test_data_that_nobody_validated_is_decoded() -> None:
    step = _direct(None)
    step.payload.data = {"input": "Why?", "output": "So.", "turn_id": "t", "candidate_index": 4, "score": 2.0}  # type: ignore[assignment]
    (candidate,) = decode_candidates([step], NAME, "e").candidates
    assert candidate == Candidate("e", "t", 4, "Why?", "So.", 2.0, metadata={})


def test_trace_metadata_becomes_a_mapping() -> None:
    data = TTCEventData(turn_id="t", input="Why?", output="So.", score=2.0)
    (candidate,) = decode_candidates([_direct(data, TraceMetadata(provided_metadata="mine"))], NAME, "e").candidates
    assert isinstance(candidate.metadata, dict)
    assert candidate.metadata["provided_metadata"] == "mine"


def _messages(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": "text"} for role in roles]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"turn_id": None}, RefusalReason.MISSING_TURN_ID),
        ({"score": None}, RefusalReason.MISSING_SCORE),
        ({"score": math.nan}, RefusalReason.SCORE_NOT_FINITE),
        ({"score": math.inf}, RefusalReason.SCORE_NOT_FINITE),
        ({"score": -math.inf}, RefusalReason.SCORE_NOT_FINITE),
        ({"score": 10**400}, RefusalReason.MALFORMED),
        ({"score": "high"}, RefusalReason.MALFORMED),
        ({"score": {"helpfulness": 1}}, RefusalReason.MALFORMED),
        ({"candidate_index": "first"}, RefusalReason.MALFORMED),
        ({"candidate_index": [1]}, RefusalReason.MALFORMED),
        ({"input": None}, RefusalReason.MISSING_PROMPT),
        ({"input": []}, RefusalReason.MISSING_PROMPT),
        ({"input": " \n"}, RefusalReason.MISSING_PROMPT),
        ({"input": _messages("system")}, RefusalReason.MISSING_PROMPT),
        ({"input": [*_messages("system"), {"role": "user", "content": ""}]}, RefusalReason.MISSING_PROMPT),
        ({"input": 3}, RefusalReason.CONTENT_NOT_TEXT),
        ({"output": None}, RefusalReason.MISSING_RESPONSE),
        ({"output": {"answer": "So."}}, RefusalReason.CONTENT_NOT_TEXT),
        ({"output": "half of a pair: \ud83d"}, RefusalReason.INVALID_UNICODE),
        ({"output": {"content": "", "tool_calls": [{"id": "1"}]}}, RefusalReason.MALFORMED),
        (
            {"input": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            RefusalReason.MEDIA,
        ),
        ({"input": _messages("user", "assistant")}, RefusalReason.PROMPT_ENDS_WITH_ASSISTANT),
    ],
)
def test_a_step_that_holds_no_candidate_is_refused_with_its_reason(
    as_delivered: Callable[..., IntermediateStep], changes: dict[str, object], reason: RefusalReason
) -> None:
    step = as_delivered(StreamEventData.model_validate({**GOOD, **changes}))
    decoded = decode_candidates([step], NAME, "example")
    assert decoded.candidates == []
    (refusal,) = decoded.refusals
    assert (refusal.example_id, refusal.step_uuid, refusal.reason) == ("example", step.UUID, reason)


def test_a_conversation_that_ends_with_the_response_is_a_prompt_without_it(
    as_delivered: Callable[..., IntermediateStep],
) -> None:
    """As dpo_tic_tac_toe of NVIDIA's toolkit records its moves: candidates of a turn still have one prompt."""
    asked = _messages("system", "user")
    steps = [
        as_delivered(
            StreamEventData.model_validate(
                {**GOOD, "input": [*asked, {"role": "assistant", "content": answer}], "output": answer}
            )
        )
        for answer in ("So.", "Not so.")
    ]
    first, second = decode_candidates(steps, NAME, "example").candidates
    assert first.prompt == tuple(Message(**message) for message in asked)
    assert first.prompt is second.prompt
    assert [first.response, second.response] == ["So.", "Not so."]


def test_a_step_without_data_is_refused(as_delivered: Callable[..., IntermediateStep]) -> None:
    decoded = decode_candidates([as_delivered(None)], NAME, "example")
    assert [refusal.reason for refusal in decoded.refusals] == [RefusalReason.MISSING_DATA]


def test_each_step_with_a_blank_prompt_is_refused(as_delivered: Callable[..., IntermediateStep]) -> None:
    steps = [as_delivered(StreamEventData.model_validate({**GOOD, "input": text})) for text in ("Why?", "", "", "How?")]
    decoded = decode_candidates(steps, NAME, "example")
    assert [candidate.prompt for candidate in decoded.candidates] == ["Why?", "How?"]
    assert [refusal.reason for refusal in decoded.refusals] == [RefusalReason.MISSING_PROMPT] * 2


def test_a_refused_step_costs_the_others_nothing(as_delivered: Callable[..., IntermediateStep]) -> None:
    steps = [as_delivered(StreamEventData.model_validate({**GOOD, "score": score})) for score in (1.0, None, 2.0)]
    decoded = decode_candidates(steps, NAME, "example")
    assert [candidate.score for candidate in decoded.candidates] == [1.0, 2.0]
    assert len(decoded.refusals) == 1


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("So.", "So."),
        ("", ""),
        (42, "42"),
        (0.5, "0.5"),
        (True, "True"),
        ([{"type": "text", "text": "So."}, {"type": "text", "text": " There."}], "So. There."),
        ({"role": "assistant", "content": "So."}, "So."),
        (AIMessage("So."), "So."),
    ],
)
def test_a_response_may_be_text_a_number_text_parts_or_a_message(output: object, text: str) -> None:
    data = TTCEventData(turn_id="t", input="Why?", output=output, score=1.0)
    (candidate,) = decode_candidates([_direct(data)], NAME, "e").candidates
    assert candidate.response == text


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "Why?"}],
        {"messages": [{"role": "user", "content": "Why?"}]},
        [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}],
        [HumanMessage("Why?")],
    ],
)
def test_a_prompt_may_be_messages_of_several_shapes(prompt: object) -> None:
    data = TTCEventData(turn_id="t", input=prompt, output="So.", score=1.0)
    (candidate,) = decode_candidates([_direct(data)], NAME, "e").candidates
    assert candidate.prompt == (Message("user", "Why?"),)


def test_turn_ids_may_be_numbers(as_delivered: Callable[..., IntermediateStep]) -> None:
    steps = [as_delivered(StreamEventData.model_validate({**GOOD, "turn_id": turn_id})) for turn_id in (7, "7", 0)]
    assert [candidate.turn_id for candidate in decode_candidates(steps, NAME, "e").candidates] == ["7", "7", "0"]


def test_scores_may_be_numbers_as_text(as_delivered: Callable[..., IntermediateStep]) -> None:
    (candidate,) = decode_candidates(
        [as_delivered(StreamEventData.model_validate({**GOOD, "score": "1.5"}))], NAME, "e"
    ).candidates
    assert candidate.score == 1.5


def test_a_candidate_without_an_index_gets_its_position_in_the_turn(make_step: Callable[..., IntermediateStep]) -> None:
    steps = [make_step(index=None, turn_id=turn_id) for turn_id in ("a", "a", "b", "a")]
    decoded = decode_candidates(steps, NAME, "e").candidates
    assert [(candidate.turn_id, candidate.candidate_index) for candidate in decoded] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("a", 2),
    ]


def test_steps_of_other_names_and_types_are_not_looked_at(
    as_delivered: Callable[..., IntermediateStep], make_step: Callable[..., IntermediateStep]
) -> None:
    broken = StreamEventData(input=None)
    steps = [
        make_step(1.0),
        make_step(2.0, name="another_name"),
        as_delivered(broken, name="another_name"),
        *(as_delivered(broken, event_type=kind) for kind in IntermediateStepType if kind is not END),
    ]
    decoded = decode_candidates(steps, NAME, "e")
    assert [candidate.score for candidate in decoded.candidates] == [1.0]
    assert decoded.refusals == []


def test_candidates_keep_the_order_of_their_steps(make_step: Callable[..., IntermediateStep]) -> None:
    scores = [3.0, 1.0, 2.0, 0.0]
    steps = [make_step(score, turn_id=f"turn-{place % 2}") for place, score in enumerate(scores)]
    assert [candidate.score for candidate in decode_candidates(steps, NAME, "e").candidates] == scores


def test_equal_prompts_become_one_object(make_step: Callable[..., IntermediateStep]) -> None:
    messages = _messages("system", "user")
    decoded = decode_candidates([make_step(prompt=messages) for _ in range(3)], NAME, "e").candidates
    assert len({id(candidate.prompt) for candidate in decoded}) == 1


def _step_with_index(raw: object) -> IntermediateStep:
    data = StreamEventData(**{**GOOD, "candidate_index": raw})
    return IntermediateStep(
        parent_id="root",
        function_ancestry=InvocationNode(function_name="f", function_id="f"),
        payload=IntermediateStepPayload(event_type=END, name=NAME, data=data),
    )


@pytest.mark.parametrize(("raw", "index"), [("2", 2), (3.0, 3)])
def test_a_candidate_index_may_be_written_otherwise(raw: object, index: int) -> None:
    assert decode_candidates([_step_with_index(raw)], NAME, "e").candidates[0].candidate_index == index


@pytest.mark.parametrize("raw", [math.inf, math.nan, 1.7, "one", [1]])
def test_a_candidate_index_that_is_none_is_refused(raw: object) -> None:
    refusals = decode_candidates([_step_with_index(raw)], NAME, "e").refusals
    assert [refusal.reason for refusal in refusals] == [RefusalReason.MALFORMED]


def test_what_the_candidate_does_not_say_does_not_hide_its_metadata() -> None:
    steps: list[IntermediateStep] = []
    with _listening(steps) as manager:
        push_candidate(manager, NAME, Candidate("e", "t", 0, "q", "r", 1.0, metadata={"model": "gpt-x"}), 0)
    assert decode_candidates(steps, NAME, "e").candidates[0].metadata == {"model": "gpt-x"}

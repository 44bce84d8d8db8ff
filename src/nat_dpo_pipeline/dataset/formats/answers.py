"""Formats of answers rather than pairs: made of the distinct answers that the pairs of a turn show."""

from collections.abc import Iterable, Iterator

from nat_dpo_pipeline.core.messages import as_messages, tools_text
from nat_dpo_pipeline.dataset.formats.format import (
    MESSAGES,
    Format,
    Once,
    Row,
    RowRefusal,
    TurnRows,
    as_answer,
    as_text,
    only_text,
)
from nat_dpo_pipeline.dataset.formats.rows import DatasetRow

#: The attributes of HelpSteer and of NVIDIA's reward models, in the order of NVIDIA's files.
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def kto_rows(turn: TurnRows, once: Once) -> Iterator[Row | RowRefusal]:
    """TRL's unpaired form: an answer that only won is good, one that only lost is bad, others say neither."""
    for answer in turn.answers:
        if answer.was_chosen and answer.was_rejected:
            yield RowRefusal.CHOSEN_AND_REJECTED
        else:
            yield _kto_row(turn.pairs[0], answer.text, answer.was_chosen, answer.score, once)
    for single in turn.singles:
        yield _kto_row(single, single.completion, single.label, single.score, once)


def _kto_row(source: DatasetRow, text: str, label: bool, score: float | None, once: Once) -> Row:
    return {
        "prompt": once(as_messages, source.prompt),
        "completion": once(as_answer, text),
        "label": label,
        "score": score,
        "example_id": source.example_id,
        "turn_id": source.turn_id,
        **({} if (tools := tools_text(source.prompt)) is None else {"tools": tools}),
    }


def steerlm_rows(turn: TurnRows, once: Once) -> Iterator[Row | RowRefusal]:
    """A line an answer with its attributes, the answers to a question one after the other."""
    if not turn.pairs:
        return
    question = only_text(turn.pairs[0].prompt)
    for answer in turn.answers:
        attributes = answer.attributes or {}
        if question is None:
            yield RowRefusal.PROMPT_OF_SEVERAL_MESSAGES
        elif not attributes.keys() >= set(ATTRIBUTES):
            yield RowRefusal.NO_ATTRIBUTES
        else:
            scores = {name: attributes[name] for name in ATTRIBUTES}
            yield {"response": once(as_text, answer.text), **scores, "question": once(as_text, question)}


def ultrafeedback_rows(turn: TurnRows, once: Once) -> Iterable[Row | RowRefusal]:
    """All answers to an instruction in one row, best first; `annotations` are the attributes where there are any."""
    if not turn.pairs:
        return ()
    instruction = only_text(turn.pairs[0].prompt)
    if instruction is None:
        return (RowRefusal.PROMPT_OF_SEVERAL_MESSAGES,)
    completions = [
        {
            "model": answer.model,
            "response": once(as_text, answer.text),
            "overall_score": answer.score,
            "annotations": None if answer.attributes is None else dict(answer.attributes),
        }
        for answer in turn.answers
    ]
    models = [answer.model for answer in turn.answers]
    return ({"instruction": once(as_text, instruction), "models": models, "completions": completions},)


ANSWERS = (
    Format(
        name="kto",
        rows=kto_rows,
        read_by="TRL's KTOTrainer",
        source="huggingface/trl, docs/source/dataset_formats.md (unpaired preference, conversational)",
        columns={
            "prompt": MESSAGES,
            "completion": MESSAGES,
            "label": "bool",
            "score": "float64",
            "example_id": "string",
            "turn_id": "string",
        },
        parquet=True,
        takes_calls=True,
        cannot_carry="answers that are chosen in one pair and rejected in another",
    ),
    Format(
        name="steerlm",
        rows=steerlm_rows,
        read_by="NeMo's SteerLM tools",
        source="the flat file of NVIDIA NeMo Curator's notebook on preference data",
        columns={"response": "string", **dict.fromkeys(ATTRIBUTES, "float64"), "question": "string"},
        cannot_carry="prompts of several messages, and answers without the five attributes of HelpSteer",
    ),
    Format(
        name="ultrafeedback",
        rows=ultrafeedback_rows,
        read_by="code written for UltraFeedback, distilabel",
        source="openbmb/UltraFeedback",
        columns=None,
        cannot_carry="prompts of several messages",
    ),
)

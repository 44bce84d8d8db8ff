"""Formats of plain text, one row a pair."""

from nat_dpo_pipeline.core.messages import Prompt, as_messages, message_of, messages_of, tools_of
from nat_dpo_pipeline.dataset.formats.format import (
    Format,
    Once,
    Row,
    RowRefusal,
    as_text,
    each_pair,
    only_text,
    plain,
    roles_problem,
)
from nat_dpo_pipeline.dataset.formats.rows import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.rendered import chat_template, lost_call

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def trl_standard_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """TRL's standard form, for models without a chat template."""
    prompt = only_text(row.prompt)
    if prompt is None:
        return RowRefusal.PROMPT_OF_SEVERAL_MESSAGES
    return {
        "prompt": once(as_text, prompt),
        "chosen": once(as_text, row.chosen),
        "rejected": once(as_text, row.rejected),
    }


def rendered_row(template: str, row: PreferenceRow, _once: Once) -> Row | RowRefusal:
    """Return prompt and answers as a chat template writes them, the prompt up to where an answer begins."""
    chat, tools = chat_template(template), tools_of(row.prompt) or None
    prompt = as_messages(row.prompt)
    answers = [[message_of(answer).as_json()] for answer in (row.chosen, row.rejected)]
    asked = chat.text(prompt, tools, to_answer=True)
    chosen, rejected = (chat.text([*prompt, *answer], tools) for answer in answers)
    if asked is None or chosen is None or rejected is None:
        return RowRefusal.NOT_RENDERED
    if lost_call([*prompt, *answers[0]], chosen) or lost_call([*prompt, *answers[1]], rejected):
        return RowRefusal.CALL_LOST
    if chosen == rejected:
        return RowRefusal.ALIKE_WHEN_RENDERED
    # Some templates end the prompt with what they leave out of a whole conversation, such as an empty thought.
    start = min(_alike_until(asked, whole) for whole in (chosen, rejected))
    return {"prompt": chosen[:start], "chosen": chosen[start:], "rejected": rejected[start:]}


def _alike_until(text: str, other: str) -> int:
    pairs = zip(text, other, strict=False)
    return next((place for place, (one, two) in enumerate(pairs) if one != two), min(len(text), len(other)))


def hh_row(row: PreferenceRow, once: Once = plain) -> Row | RowRefusal:
    """Whole conversations as text, told apart by markers; a text with a marker in it would be several turns."""
    problem = _hh_problem(row)
    if problem is not None:
        return problem
    spoken = _transcript(row.prompt)
    return {"chosen": once(as_text, spoken + row.chosen), "rejected": once(as_text, spoken + row.rejected)}


def _hh_problem(row: PreferenceRow) -> RowRefusal | None:
    messages = messages_of(row.prompt)
    if any(message.role == "system" for message in messages):
        return RowRefusal.SYSTEM_PROMPT
    texts = (*(message.content for message in messages), row.chosen, row.rejected)
    if any(marker in text for text in texts for marker in (HUMAN, ASSISTANT)):
        return RowRefusal.TURN_MARKER_IN_TEXT
    return roles_problem(row.prompt)


def _transcript(prompt: Prompt) -> str:
    markers = {"user": HUMAN, "assistant": ASSISTANT}
    turns = (f"{markers[message.role]} {message.content}" for message in messages_of(prompt))
    return f"{''.join(turns)}{ASSISTANT} "


_STRINGS = {"chosen": "string", "rejected": "string"}

TEXTS = (
    Format(
        name="trl_standard",
        rows=each_pair(trl_standard_row),
        read_by="TRL's trainers, for models without a chat template",
        source="huggingface/trl, docs/source/dataset_formats.md (preference, standard)",
        columns={"prompt": "string", **_STRINGS},
        parquet=True,
        cannot_carry="prompts that are more than one message of the user",
    ),
    Format(
        name="oumi",
        rows=each_pair(trl_standard_row),
        read_by="oumi (`dataset_name: text_dpo_jsonl`)",
        source="oumi-ai/oumi, src/oumi/datasets/preference_tuning",
        columns={"prompt": "string", **_STRINGS},
        cannot_carry="prompts that are more than one message of the user",
    ),
    Format(
        name="hh",
        rows=each_pair(hh_row),
        read_by="code written for Anthropic's HH-RLHF",
        source="Anthropic/hh-rlhf",
        columns=_STRINGS,
        files={SplitName.TRAIN: "train.jsonl", SplitName.VALIDATION: "test.jsonl"},
        cannot_carry="system prompts, roles that do not alternate, and texts with a turn marker in them",
    ),
)

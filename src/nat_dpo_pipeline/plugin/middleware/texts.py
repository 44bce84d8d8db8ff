"""What functions take and give, as the text of a prompt and of a response."""

from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.core.rendering import render_prompt, render_response
from nat_dpo_pipeline.json_text import json_bytes


def text_of(result: object) -> str:
    """The text in a function's result: its own, that of a message or a chat completion; JSON for anything else.

    Never fails: the result is somebody's answer, whatever its attributes raise.
    """
    try:
        return _said(result)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises
        return _json(result)


def _said(result: object) -> str:
    choices = getattr(result, "choices", None)
    said = getattr(choices[0], "message", result) if isinstance(choices, list) and choices else result
    if isinstance(said, str):
        return said
    if isinstance(said, list | tuple) and any(isinstance(part, str) for part in said):
        return _json(result)  # a list of texts, and not the parts of one
    return render_response(said)


def prompt_of(value: object) -> Prompt:
    """The prompt in a function's input: text or messages; JSON for anything else. Never fails."""
    try:
        # NAT's agents take a ChatRequestOrMessage.
        message = getattr(value, "input_message", None)
        return render_prompt(value if message is None else message)
    except Exception:  # noqa: BLE001 - whatever a foreign object raises
        return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return json_bytes(value).decode()

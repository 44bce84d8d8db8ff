"""What the demo says → the JSON of OpenAI's API."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nat_dpo_pipeline.demo.requests import ChatRequest

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Choice:
    """One reply; `attributes` are a reward model's scores."""

    content: str
    finish_reason: str = "stop"
    attributes: Mapping[str, float] | None = None


def scored(attributes: Mapping[str, float]) -> Choice:
    """Scores as the hosted nemotron-4-340b-reward sends them, its finish_reason included."""
    content = ",".join(f"{name}:{value:.2f}" for name, value in attributes.items())
    return Choice(content, "length", attributes)


def limited(choice: Choice, max_tokens: int | None) -> Choice:
    """The choice, cut off after so many words."""
    words = list(_WORD.finditer(choice.content))
    if max_tokens is None or len(words) <= max_tokens:
        return choice
    return replace(choice, content=choice.content[: words[max_tokens - 1].end()], finish_reason="length")


def completion(request: ChatRequest, speaker: str, choices: Sequence[Choice]) -> dict[str, object]:
    """A chat completion object. Its id and date tell no time: equal requests have equal replies."""
    prompt = sum(_count(message.content) for message in request.messages)
    written = sum(_count(choice.content) for choice in choices)
    listed = [_choice(index, choice) for index, choice in enumerate(choices)]
    return {
        "id": f"chatcmpl-demo-{_fingerprint(request)}",
        "object": "chat.completion",
        "created": 0,
        "model": speaker,
        "choices": listed,
        # Counts of words: the demo has no tokenizer.
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
    }


def model_list(ids: Sequence[str]) -> dict[str, object]:
    """OpenAI's list of models."""
    data = [{"id": model, "object": "model", "created": 0, "owned_by": "nat_dpo_pipeline"} for model in ids]
    return {"object": "list", "data": data}


def error(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, object]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def encoded(body: Mapping[str, object]) -> bytes:
    # ASCII, because messages may quote lone surrogates, which UTF-8 cannot carry.
    return json.dumps(body, ensure_ascii=True, allow_nan=False).encode("ascii")


def _choice(index: int, choice: Choice) -> dict[str, object]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.content},
        "logprobs": None if choice.attributes is None else {"content": _tokens(choice.attributes)},
        "finish_reason": choice.finish_reason,
    }


def _tokens(attributes: Mapping[str, float]) -> list[dict[str, object]]:
    return [{"token": name, "logprob": value, "bytes": None, "top_logprobs": []} for name, value in attributes.items()]


def _count(text: str) -> int:
    return len(_WORD.findall(text))


def _fingerprint(request: ChatRequest) -> str:
    return hashlib.sha256(repr(request).encode(errors="surrogatepass")).hexdigest()[:16]

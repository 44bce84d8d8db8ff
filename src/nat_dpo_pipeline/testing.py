"""Helpers for tests of workflows and pipelines built on this package."""

from collections.abc import Callable, Iterable, Sequence

from nat_dpo_pipeline.core.candidates import Candidate, Message, Turn
from nat_dpo_pipeline.generation.chat import ChatReply, read_reply


class ScriptedModel:
    """A chat model that answers with what `answer(messages, seed)` returns: text, a whole JSON body, or an error.

    Every call is kept in `calls`, so a test can see what was asked.
    """

    def __init__(self, answer: Callable[[Sequence[Message], int | None], str | dict[str, object] | Exception]) -> None:
        self.name = "scripted"
        self.calls: list[Sequence[Message]] = []
        self._answer = answer

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply:
        self.calls.append(messages)
        answer = self._answer(messages, seed)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            return read_reply(answer, self.name)
        return read_reply(_body(answer, len(messages)), self.name)


def _body(text: str, prompt_tokens: int) -> dict[str, object]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1},
    }


def make_turn(
    scores: Iterable[float], *, turn_id: str = "turn", example_id: str = "example", prompt: str = "What is it?"
) -> Turn:
    """A turn with one distinct response per score."""
    candidates = [
        Candidate(example_id, turn_id, index, prompt, f"response {index}", score) for index, score in enumerate(scores)
    ]
    return Turn(example_id, turn_id, prompt, candidates)

"""A chat model that answers from a script, what a server would have sent for it, and turns made of scores."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from nat_dpo_pipeline.core.candidates import Candidate, Turn

if TYPE_CHECKING:
    from nat_dpo_pipeline.generation.chat import Call
    from nat_dpo_pipeline.generation.replies import ChatReply


class ScriptedModel:
    """A chat model that answers with what `answer(call)` returns: text, a whole JSON body, or an error.

    Every call is kept in `calls`, so a test can see what was asked.
    """

    def __init__(self, answer: Callable[["Call"], str | dict[str, object] | Exception], name: str = "scripted") -> None:
        self.name = name
        self.calls: list[Call] = []
        self._answer = answer

    async def complete(self, call: "Call") -> "ChatReply":
        # Imported here because chat.py takes half a second to import, which a test of pairs need not wait for.
        from nat_dpo_pipeline.generation.replies import read_reply

        self.calls.append(call)
        answer = self._answer(call)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            return read_reply(answer, self.name)
        return read_reply(completion(answer, prompt_tokens=len(call.messages)), self.name)


def completion(*texts: str, prompt_tokens: int = 1, completion_tokens: int = 1) -> dict[str, object]:
    """The JSON body of a chat completion that says each of the texts in a choice of its own."""
    return {
        "choices": [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def make_turn(
    scores: Iterable[float], *, turn_id: str = "turn", example_id: str = "example", prompt: str = "What is it?"
) -> Turn:
    """A turn with one distinct response per score."""
    candidates = [
        Candidate(example_id, turn_id, index, prompt, f"response {index}", score) for index, score in enumerate(scores)
    ]
    return Turn(example_id, turn_id, prompt, candidates)

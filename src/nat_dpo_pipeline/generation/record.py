"""What a generation run did: counts, failures with their replies, tokens by step and model."""

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nat_dpo_pipeline.generation.chat import ChatReply, Usage

#: Marks the JSON summary of a run, so that a reader of workflow outputs knows what it holds.
SUMMARY_KIND = "nat_dpo_pipeline.summary/1"
_SUMMARY_START = f'{{"kind": "{SUMMARY_KIND}"'
_SUMMARY_KEYS = frozenset({"skipped", "tokens", "failures", "stopped"})


class StepName(StrEnum):
    """The steps of the recipe, and the reading of rows that need none."""

    INPUT = "input"
    SUBTOPICS = "subtopics"
    QUESTIONS = "questions"
    RESPONSES = "responses"
    REWARDS = "rewards"


class FailureReason(StrEnum):
    """Why something that was asked for did not become a candidate."""

    MALFORMED_INPUT = "malformed_input"
    UNPARSABLE_REPLY = "unparsable_reply"
    EMPTY_REPLY = "empty_reply"
    TRUNCATED_REPLY = "truncated_reply"
    MODEL_ERROR = "model_error"


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong: at which step, for what, why, and the reply if there was one."""

    step: StepName
    subject: str
    reason: FailureReason
    detail: str
    reply: str | None = None


@dataclass(slots=True)
class ModelUsage:
    """Requests and tokens of one model in one step; replies from a journal cost neither."""

    requests: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: Usage) -> None:
        self.requests += 1
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens


@dataclass(slots=True)
class GenerationRecord:
    """Filled while a run goes on; `summary` turns it into JSON values."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    usage: dict[tuple[StepName, str], ModelUsage] = field(default_factory=dict)
    stopped: str | None = None

    def spent(self, step: StepName, reply: ChatReply) -> None:
        used = self.usage.setdefault((step, reply.model), ModelUsage())
        if reply.replayed:
            used.replayed += 1
        else:
            used.add(reply.usage)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def skips(self) -> dict[str, dict[str, int]]:
        """How many failures, by step and reason."""
        skips: dict[str, dict[str, int]] = {}
        for failure in self.failures:
            reasons = skips.setdefault(failure.step, {})
            reasons[failure.reason] = reasons.get(failure.reason, 0) + 1
        return skips

    def summary(self) -> dict[str, object]:
        return {
            "kind": SUMMARY_KIND,
            **self.counts,
            "skipped": self.skips(),
            "tokens": [
                {
                    "step": step,
                    "model": model,
                    "requests": used.requests,
                    "replayed": used.replayed,
                    "prompt_tokens": used.prompt_tokens,
                    "completion_tokens": used.completion_tokens,
                }
                for (step, model), used in self.usage.items()
            ],
            "failures": [
                {
                    "step": failure.step,
                    "subject": failure.subject,
                    "reason": failure.reason,
                    "detail": failure.detail,
                    "reply": failure.reply,
                }
                for failure in self.failures
            ],
            "stopped": self.stopped,
        }


def read_summary(output: object) -> dict[str, Any] | None:
    """The summary in a workflow's output, or None when that is something else."""
    if not isinstance(output, str) or not output.startswith(_SUMMARY_START):
        return None
    try:
        summary = json.loads(output)
    except ValueError:
        return None
    return summary if isinstance(summary, dict) and summary.keys() >= _SUMMARY_KEYS else None

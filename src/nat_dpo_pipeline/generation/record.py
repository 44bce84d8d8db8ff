"""What a generation run did: counts, failures with their replies, progress, requests and tokens by step and model."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from nat_dpo_pipeline.errors import Concern, ItemDropped, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Waiting
from nat_dpo_pipeline.generation.replies import ChatReply, Usage
from nat_dpo_pipeline.generation.settings import Price
from nat_dpo_pipeline.generation.steps import Item

#: Marks the JSON summary of a run, so that a reader of workflow outputs knows what it holds.
SUMMARY_KIND = "nat_dpo_pipeline.summary/1"
# Earlier versions have a space behind the colon.
_SUMMARY_STARTS = tuple(f'{{"kind":{space}"{SUMMARY_KIND}"' for space in ("", " "))
_SUMMARY_KEYS = frozenset({"skipped", "tokens", "failures", "stopped"})


class FailureReason(StrEnum):
    """Why something that was asked for did not become a candidate."""

    MALFORMED_INPUT = "malformed_input"
    UNPARSABLE_REPLY = "unparsable_reply"
    EMPTY_REPLY = "empty_reply"
    TRUNCATED_REPLY = "truncated_reply"
    ONLY_THOUGHTS = "only_thoughts"
    REFUSAL = "refusal"
    FILTERED_REPLY = "filtered_reply"
    TOOL_CALL = "tool_call"
    CONTENT_NOT_TEXT = "content_not_text"
    UNKNOWN_ENDING = "unknown_ending"
    MODEL_ERROR = "model_error"
    REQUEST_REFUSED = "request_refused"

    @classmethod
    def of(cls, error: Exception) -> "FailureReason":
        """What an error is counted under."""
        if isinstance(error, ModelError):
            return cls.MODEL_ERROR if error.fatal or _may_do_later(error) else cls.REQUEST_REFUSED
        return cls.UNPARSABLE_REPLY if isinstance(error, ParseError) else cls.MALFORMED_INPUT


def _may_do_later(error: ModelError) -> bool:
    """True when the same call may succeed later, or with more credit, another key or another name."""
    return error.transient or error.concern in (Concern.ACCOUNT, Concern.CREDIT, Concern.NAME)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong: at which step, for what, why, and the reply if there was one."""

    step: str
    subject: str
    reason: FailureReason
    detail: str
    reply: str | None = None


@dataclass(slots=True)
class ModelUsage:
    """What one model was asked in one step.

    `requests` were sent, `retries` of them because another had failed; `came_along` are replies in the request of
    another sample. Replies from a journal were paid for by an earlier process; their tokens are counted apart. The
    tokens of `uncounted` replies are missing: the server did not report them. `told_cost` is the sum of what servers
    said, in US dollars.
    """

    model: str = ""
    requests: int = 0
    retries: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    replayed_prompt_tokens: int = 0
    replayed_completion_tokens: int = 0
    uncounted: int = 0
    came_along: int = 0
    told_cost: float = 0.0
    replayed_told_cost: float = 0.0

    @property
    def answered(self) -> int:
        """How many calls were answered by this process."""
        return self.requests - self.retries + self.came_along

    def add(self, reply: ChatReply) -> None:
        self.model = reply.model
        self.uncounted += not reply.usage.is_reported
        if reply.replayed:
            self.replayed += 1
            self.replayed_prompt_tokens += reply.usage.prompt_tokens
            self.replayed_completion_tokens += reply.usage.completion_tokens
            self.replayed_told_cost += reply.usage.cost or 0.0
        else:
            self.came_along += reply.came_along
            self._sent(0 if reply.came_along else 1 + reply.retries)
            self.told_cost += reply.usage.cost or 0.0
            self.prompt_tokens += reply.usage.prompt_tokens
            self.completion_tokens += reply.usage.completion_tokens

    def add_error(self, error: ModelError) -> None:
        self._sent(error.requests)

    def include(self, other: "ModelUsage") -> None:
        """Add what another process asked the model in the same step."""
        self.model = self.model or other.model
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def _sent(self, requests: int) -> None:
        self.requests += requests
        self.retries += max(requests - 1, 0)

    def cost(self, price: Price | None) -> float | None:
        """What this process spent: by the user's price, else as servers said; None where neither says anything."""
        if price is None:
            return self.told_cost if self.told_cost or self.replayed_told_cost else None
        return _cost(Usage(self.prompt_tokens, self.completion_tokens), price)

    def cost_before(self, price: Price | None) -> float | None:
        """What earlier processes spent on the replies from the journal."""
        if price is None:
            return self.replayed_told_cost or None
        return _cost(Usage(self.replayed_prompt_tokens, self.replayed_completion_tokens), price)


_COUNTED = tuple(one.name for one in fields(ModelUsage) if one.name != "model")


def _cost(usage: Usage, price: Price) -> float:
    return (usage.prompt_tokens * price.prompt + usage.completion_tokens * price.completion) / 1e6


@dataclass(slots=True)
class StepProgress:
    """How many items of a step are under way, done and failed."""

    running: int = 0
    done: int = 0
    failed: int = 0


@dataclass(slots=True)
class GenerationRecord:
    """Filled while a run goes on, as the observer of its pipeline; `summary` turns it into JSON values.

    `stopped` is the error that ended the run; `stood_in_for` has those that ended models, by their names, for which
    others of the pool could stand in; `lost` counts calls that may succeed when they are made again. `on_failure` is
    given each failure as it happens; without it they are kept in `failures`. `waiting` gives the models that are left
    alone at the moment.
    """

    prices: Mapping[str, Price] = field(default_factory=dict)
    on_failure: Callable[[Failure], None] | None = None
    waiting: Callable[[], Iterable[Waiting]] = tuple
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    failed_by: dict[str, Counter[str]] = field(default_factory=dict)
    usage: dict[tuple[str, str], ModelUsage] = field(default_factory=dict)
    progress: dict[str, StepProgress] = field(default_factory=dict)
    stopped: str | None = None
    lost: int = 0
    stood_in_for: dict[str, str] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    @property
    def stopping(self) -> bool:
        """A model that no call can reach any more ends the run: no further input is taken."""
        return self.stopped is not None

    def started(self, step: str) -> None:
        self.progress.setdefault(step, StepProgress()).running += 1

    def finished(self, step: str) -> None:
        self.progress[step].running -= 1
        self.progress[step].done += 1

    def failed(self, step: str, item: Item[Any], error: Exception) -> None:
        """An item of the pipeline that came to nothing."""
        self.progress[step].running -= 1
        self.progress[step].failed += 1
        if isinstance(error, ItemDropped):
            self.counts[f"dropped_{error.reason}"] += 1
        else:
            self.note(step, str(item.value), error)

    def note(self, step: str, subject: str, error: Exception) -> None:
        """Count an error as a failure. A model's end is told once, and then only counted."""
        if isinstance(error, ModelError):
            self._note_model_error(step, subject, error)
        else:
            reply = error.reply if isinstance(error, ParseError) else None
            self.add(Failure(step, subject, FailureReason.of(error), str(error), reply))

    def _note_model_error(self, step: str, subject: str, error: ModelError) -> None:
        message = str(error)
        if error.fatal:
            self.stopped = self.stopped or message
        if message in self._ended:
            self._count(step, FailureReason.MODEL_ERROR)
            return
        if error.fatal:
            self._ended.add(message)
        self.lost += not error.fatal and _may_do_later(error)
        self.add(Failure(step, subject, FailureReason.of(error), message))

    def add(self, failure: Failure) -> None:
        self._count(failure.step, failure.reason)
        if self.on_failure is None:
            self.failures.append(failure)
        else:
            self.on_failure(failure)

    def _count(self, step: str, reason: FailureReason) -> None:
        self.failed_by.setdefault(step, Counter())[reason] += 1

    def spent(self, step: str, outcome: ChatReply | ModelError) -> None:
        """A reply that was paid for, now or by the process that put it on record, or a call that failed."""
        if isinstance(outcome, ChatReply):
            self.usage.setdefault((step, outcome.llm), ModelUsage()).add(outcome)
            self.stood_in_for.update({str(error.llm): str(error) for error in outcome.passed_over if error.fatal})
        elif outcome.llm is not None:
            self.usage.setdefault((step, outcome.llm), ModelUsage()).add_error(outcome)
        for error in outcome.passed_over:
            self.spent(step, error)

    def skips(self) -> dict[str, dict[str, int]]:
        """How many failures, by step and reason."""
        return {step: dict(reasons) for step, reasons in self.failed_by.items()}

    def spending(self) -> list[dict[str, object]]:
        """Requests, tokens and cost by step and model; a cost is None where it is not known."""
        return [
            {"step": step, "llm": llm, **asdict(used), "cost": used.cost(price), "cost_before": used.cost_before(price)}
            for (step, llm), used in self.usage.items()
            for price in (self.prices.get(llm),)
        ]

    def total_cost(self) -> float | None:
        """What this process spent; None unless the cost of every model that was asked is known."""
        costs = [used.cost(self.prices.get(llm)) for (_, llm), used in self.usage.items()]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if costs and len(known) == len(costs) else None

    def summary(self) -> dict[str, object]:
        return {
            "kind": SUMMARY_KIND,
            **self.counts,
            "skipped": self.skips(),
            "tokens": self.spending(),
            "cost": self.total_cost(),
            "failures": [asdict(failure) for failure in self.failures],
            "stopped": self.stopped,
            "stood_in_for": self.stood_in_for,
        }


def read_summary(output: object) -> dict[str, Any] | None:
    """The summary in a workflow's output, or None when that is something else."""
    if not isinstance(output, str) or not output.startswith(_SUMMARY_STARTS):
        return None
    try:
        summary = json.loads(output)
    except ValueError:
        return None
    return summary if isinstance(summary, dict) and summary.keys() >= _SUMMARY_KEYS else None

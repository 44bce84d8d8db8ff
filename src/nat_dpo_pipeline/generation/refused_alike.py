"""Refusals in a row: when they are the model's, and not each that of its request."""

import re
from dataclasses import dataclass, field

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import Concern, ModelError
from nat_dpo_pipeline.generation.chat import Call

# So many calls for so many prompts. Key, credit and name are believed when a second prompt meets the same; a prompt may
# be asked for many samples, each of which is refused for what the prompt says.
_ENOUGH = {Concern.ACCOUNT: (2, 2), Concern.NAME: (2, 2), Concern.UNKNOWN: (10, 3)}
# What differs between refusals for one reason: quoted parts, and words with a digit, such as counts and request ids.
_VARYING = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\S*\d\S*""")
_COMPARED = 200


@dataclass(slots=True)
class _Refused:
    calls: int = 0
    prompts: set[int] = field(default_factory=set)


class RefusedAlike:
    """The refusals of a model since it last answered, alike being those that say the same."""

    def __init__(self) -> None:
        self._refused: dict[tuple[object, ...], dict[str, _Refused]] = {}

    def answered(self, call: Call) -> None:
        """Forget the refusals of calls of this form; what another route or parameter meets it says nothing about."""
        self._refused.pop(_form(call), None)

    def add(self, call: Call, error: ModelError) -> str | None:
        """Count a refusal; gives what happened when it has become the model's."""
        if error.fatal or not error.may_concern_the_model:
            return None
        refused = self._refused.setdefault(_form(call), {}).setdefault(alike(str(error)), _Refused())
        refused.calls += 1
        refused.prompts.add(hash(_prompt(call)))
        calls, prompts = _ENOUGH[error.concern]
        if refused.calls < calls or len(refused.prompts) < prompts:
            return None
        return f"{refused.calls} requests in a row, for {len(refused.prompts)} prompts, were refused alike"


def alike(message: str) -> str:
    """Equal for messages that differ in numbers and quoted parts only."""
    return _VARYING.sub("", message)[:_COMPARED]


def _form(call: Call) -> tuple[object, ...]:
    """The route, and which parameters are set."""
    return call.route, *call.sampling.given(), *sorted(call.sampling.extra_body)


def _prompt(call: Call) -> str | tuple[Message, ...]:
    """Return the conversation of a call without the responses to score."""
    if call.about is not None:
        return call.about
    roles = [message.role in ("system", "user") for message in call.messages]
    return call.messages[: roles.index(False)] if False in roles else call.messages

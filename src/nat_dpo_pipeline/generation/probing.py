"""Refusals that may concern one request or the whole model: a harmless question of our own shows which."""

from dataclasses import dataclass, replace

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import Concern, ModelError
from nat_dpo_pipeline.generation.chat import Call

# Refusals in a row before the first probe. Single requests are often refused with 400 and 422; a refusal of a key, of
# credit or of a name is rare, and mostly the model's.
_FIRST_PROBE = {Concern.ACCOUNT: 1, Concern.CREDIT: 1, Concern.NAME: 1, Concern.UNKNOWN: 10}
_HARMLESS = "Hello"


@dataclass(slots=True)
class _Refused:
    """Refusals since the model last answered, and how many of them are enough for a probe."""

    enough: int
    in_a_row: int = 0
    is_cleared: bool = False


class Refusals:
    """The refusals of a model by form of call and concern.

    Each probe that is answered doubles the refusals before the next one: in a long list of forbidden prompts few
    requests are probes.
    """

    def __init__(self) -> None:
        self._refused: dict[tuple[object, ...], dict[Concern, _Refused]] = {}

    def answered(self, call: Call) -> None:
        """Begin to count anew for calls of this form; an answer says nothing about another route or parameter."""
        for refused in self._refused.get(_form(call), {}).values():
            refused.in_a_row = 0

    def add(self, call: Call, concern: Concern) -> int:
        """Count a refusal. Return the number of refusals in a row when a probe is due, else 0."""
        of_form = self._refused.setdefault(_form(call), {})
        refused = of_form.setdefault(concern, _Refused(_FIRST_PROBE[concern]))
        refused.in_a_row += 1
        return refused.in_a_row if refused.in_a_row >= refused.enough else 0

    def clear(self, call: Call, concern: Concern) -> None:
        """Take note of a probe that was answered: the model does not refuse everything."""
        refused = self._refused[_form(call)][concern]
        refused.enough *= 2
        refused.is_cleared = True

    def is_cleared(self, call: Call, concern: Concern) -> bool:
        """Return whether a probe was answered after a refusal like this one."""
        return self._refused[_form(call)][concern].is_cleared


def harmless(call: Call) -> Call:
    """Return a probe in the form of a call: the same route and sampling, and what stands behind the last question of
    the user, such as the response that a reward model scores.
    """
    roles = [message.role for message in call.messages]
    behind = roles[::-1].index("user") if "user" in roles else 0
    messages = [Message(role, _HARMLESS) for role in ("user", *roles[len(roles) - behind :])]
    return replace(call, messages=tuple(messages), sample=0, also=())


def end_shown_by(probed: ModelError, refused: ModelError, in_a_row: int) -> ModelError | None:
    """Return the error that ends the model; None after a probe that shows nothing, such as that of a busy server."""
    if probed.fatal:
        return instead_of(refused, str(probed), fatal=True)
    if not probed.may_concern_the_model:
        return None
    before = f"{in_a_row} requests in a row were refused" if in_a_row > 1 else "it was refused"
    return instead_of(refused, f"{refused}; {before}, and so was a harmless question", fatal=True)


def about_itself(refused: ModelError) -> ModelError:
    """Return a refusal of a model that answers probes: not about key or name; credit may be short for one prompt."""
    if refused.concern not in (Concern.ACCOUNT, Concern.NAME):
        return refused
    return instead_of(refused, f"{refused}; it answers other questions, so it refuses this one")


def instead_of(refused: ModelError, message: str, *, fatal: bool = False) -> ModelError:
    """Return the error that a refused request is reported with."""
    error = ModelError(message, fatal=fatal, concern=refused.concern if fatal else Concern.UNKNOWN)
    error.llm = refused.llm
    return error


def _form(call: Call) -> tuple[object, ...]:
    """The route, and which parameters are set."""
    return call.route, *call.sampling.given(), *sorted(call.sampling.extra_body)

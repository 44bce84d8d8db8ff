"""Delays that servers ask for: the headers and the text of a refusal → seconds."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import nan

# The longest period after which a vendor resets a limit is a week (Anthropic's weekly limits).
_LONGEST_BELIEVED = 7 * 86_400.0
# When to come back, and the unit of a bare number in seconds. Those in milliseconds are OpenAI's and Azure's.
_EXPLICIT = {"retry-after-ms": 0.001, "x-ms-retry-after-ms": 0.001, "retry-after": 1.0}
# When a limit is whole again: platform.openai.com/docs/guides/rate-limits (`1m30s`), docs.claude.com/en/api/rate-limits
# (RFC 3339), openrouter.ai (milliseconds since 1970), draft-ietf-httpapi-ratelimit-headers (seconds).
_RESETS = (
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-reset",
    "x-ratelimit-reset",
    "ratelimit-reset",
)
# The LiteLLM proxy does not pass on a header of the server behind it, but sends it with this before its name.
_PREFIXES = ("", "llm_provider-")
_PART = (
    r"(\d{1,15}(?:\.\d{1,15})?)\s?"
    r"(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])\s?"
)
_AMOUNT = re.compile(_PART, re.IGNORECASE)
_DURATION = re.compile(f"(?:{_PART})+", re.IGNORECASE)
# "Please retry in 6.1s" and `retryDelay` (google.rpc.RetryInfo), "Please try again in 1m2.5s" (OpenAI, Groq), "Please
# retry after 20 seconds" (Azure). A proxy quotes the body of the server behind it with its quotation marks escaped.
_IN_TEXT = re.compile(rf"(?:\b(?:retry|try again)\s+(?:in|after)\s+|retryDelay\W{{1,8}})(?={_PART})", re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# Numbers from here on are moments, in seconds and in milliseconds since 1970: as delays they are 31 years and more.
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e12


def delay_in(headers: Mapping[str, str], text: str, now: datetime | None = None) -> float | None:
    """Seconds until the server wants to be asked again; None when it does not say so, or nothing that can be meant.

    Not believed: what is past, negative, no number, or more than a week away. `text` is the body of the refusal.
    """
    return next(_believed(_delays(headers, text, now or datetime.now(UTC))), None)


def _delays(headers: Mapping[str, str], text: str, now: datetime) -> Iterator[float]:
    """Every delay in it, the most exact source first."""
    for name, unit in _EXPLICIT.items():
        yield from (_seconds(headers.get(prefix + name, ""), unit, now) for prefix in _PREFIXES)
    # The longest: the same delay is in some bodies twice, rounded to seconds and more exact.
    yield max(_believed(_in_text(text, now)), default=nan)
    yield max(_believed(_resets(headers, now)), default=nan)


def _in_text(text: str, now: datetime) -> Iterator[float]:
    for found in _IN_TEXT.finditer(text):
        if duration := _DURATION.match(text, found.end()):
            yield _seconds(duration[0], 1.0, now)


def _resets(headers: Mapping[str, str], now: datetime) -> Iterator[float]:
    """The time until each limit is whole again, but for those of which something remains."""
    for name in (prefix + name for name in _RESETS for prefix in _PREFIXES):
        if headers.get(name.replace("reset", "remaining"), "0").strip() == "0":
            yield _seconds(headers.get(name, ""), 1.0, now)


def _believed(delays: Iterator[float]) -> Iterator[float]:
    return (seconds for seconds in delays if 0 < seconds <= _LONGEST_BELIEVED)


def _seconds(value: str, unit: float, now: datetime) -> float:
    """The delay that a value states as a number, a duration, a moment or a date; NaN for anything else."""
    value = value.strip()
    if _DURATION.fullmatch(value):
        return sum(float(amount) * _unit(name.lower()) for amount, name in _AMOUNT.findall(value))
    try:
        number = float(value)
    except ValueError:
        moment = _date(value)
        return nan if moment is None else (moment - now).total_seconds()
    if number < _EPOCH_SECONDS:
        return number * unit
    return number / (1.0 if number < _EPOCH_MILLISECONDS else 1000.0) - now.timestamp()


def _unit(name: str) -> float:
    return 0.001 if name.startswith(("ms", "milli")) else _UNITS[name[0]]


def _date(value: str) -> datetime | None:
    """A date of HTTP (RFC 9110, section 5.6.7) or of RFC 3339; one without a zone is in UTC."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(value)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None

"""Refusals of servers that speak OpenAI's API: status, headers and body → ModelError, once for all of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from nat_dpo_pipeline.errors import ModelError

# 401, 402 and 403 say that the credential is wrong or its credit spent, 404 that there is no such model or server.
_HOPELESS = frozenset({401, 402, 403, 404})
# OpenAI says with a 429 that the credit is spent (platform.openai.com/docs/guides/error-codes).
_SPENT_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


def refusal(described: str, status: int, headers: Mapping[str, str], body: object, said: str) -> ModelError:
    """The error of a request that a server refused.

    `described` names the model, `body` is what the server sent, as JSON if it was JSON, and `said` is its text, in one
    line and without secrets.
    """
    spent = status == 429 and _code(body) in _SPENT_CREDIT
    if spent or status in (401, 402, 403):
        advice = "check its api_key and the account's credit"
    elif status == 404:
        advice = "check its model_name and base_url"
    else:
        advice = "the request was refused" if status < 500 else "the server failed"
    retry_after = _retry_after(headers)
    # A server that is too busy may say so with a 503 and when to come back (RFC 9110, section 15.6.4).
    is_busy = status == 429 or (status == 503 and retry_after is not None)
    return ModelError(
        f"{described} answered {status}: {said} ({advice})",
        fatal=spent or status in _HOPELESS,
        transient=status in (408, 409),
        throttled=is_busy and not spent,
        retry_after=retry_after,
        overloaded=status >= 500,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds in `Retry-After`, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(seconds, 0.0) if isfinite(seconds) else None
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def _code(body: object) -> object:
    inner = body.get("error", body) if isinstance(body, dict) else body
    return inner.get("code") or inner.get("type") if isinstance(inner, dict) else None

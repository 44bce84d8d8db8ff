"""Refusals of servers that speak OpenAI's API: status, headers and body → ModelError, once for all of them.

`_KNOWN` holds what vendors, servers and proxies say, in code, type or message, whatever status they say it with. Where
none of it applies, the status decides.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nat_dpo_pipeline.errors import Concern, ModelError
from nat_dpo_pipeline.generation.delays import delay_in
from nat_dpo_pipeline.generation.servers import error_in, error_text

# Phrases are looked for in the beginning of what is said, and not in a whole page or a prompt that is repeated.
_LONGEST_SAID = 2000
_SCALAR_ROUTES = ("/pooling", "/classify")


@dataclass(frozen=True, slots=True)
class Meaning:
    """Concern of a refusal, and its certainty; `is_busy` when the server only asks for `delay` seconds."""

    concern: Concern = Concern.UNKNOWN
    is_certain: bool = False
    is_busy: bool = False
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """Concern of every refusal with one of these codes, or one of these phrases in its message."""

    concern: Concern
    codes: frozenset[str]
    phrases: re.Pattern[str]


def _known(concern: Concern, codes: str, *phrases: str) -> _Known:
    return _Known(concern, frozenset(codes.split()), re.compile("|".join(phrases), re.IGNORECASE))


_KNOWN = (
    # vLLM, OpenAI: the parameter leaves no room for any prompt, or for none but the shortest.
    _known(Concern.UNKNOWN, "", r"\bmax_(completion_)?tokens\b.{0,40}\btoo large\b"),
    _known(
        Concern.REQUEST,
        # OpenAI, llama.cpp, LiteLLM, Anthropic
        "context_length_exceeded string_above_max_length exceed_context_size_error contextwindowexceedederror "
        "request_too_large",
        "maximum context length",  # OpenAI, vLLM, OpenRouter
        "ContextWindowExceeded",  # LiteLLM
        r"exceeds? (the |your )?(available |maximum )?context (size|window|length|limit)",  # llama.cpp, Ollama
        r"longer than the (model's |maximum )*(context|model) length",  # vLLM, SGLang
        r"(prompt|input) is too long",  # Anthropic, Bedrock
        r"exceeds the maximum number of (input )?tokens",  # Google
        r"must have less than \d+ tokens",  # TGI, TEI
        r"`inputs` tokens \+ `max_new_tokens` must be",  # TGI, Together
        r"reduce (the length of |your )(the |your )?(messages|message size|prompt|input)",  # Groq
        r"(request|payload|request entity|request body) too large",  # nginx; OpenAI and Groq for tokens a minute
        r"handle the length of this request",  # OpenRouter
    ),
    _known(
        Concern.REQUEST,
        # OpenAI and Azure, LiteLLM, DashScope
        "content_filter content_policy_violation invalid_prompt responsibleaipolicyviolation "
        "contentpolicyviolationerror data_inspection_failed",
        r"(input|prompt|content|message|request)s? (was|were|is|are|has been|have been) flagged",  # OpenRouter, OpenAI
        r"content (management )?policy|ContentPolicyViolation",  # Azure, LiteLLM
        r"content exists risk",  # DeepSeek
    ),
    _known(
        Concern.ACCOUNT,
        # platform.openai.com/docs/guides/error-codes; LiteLLM; Google; DashScope
        "insufficient_quota billing_hard_limit_reached billing_not_active account_deactivated invalid_api_key "
        "budget_exceeded no_db_connection api_key_invalid arrearage",
        r"budget has been exceeded|exceeded budget|crossed budget",  # LiteLLM: of a key, of a deployment
        r"no connected db",  # LiteLLM without a database, asked with another key than its master key
        r"insufficient (balance|credits?|quota|funds)",  # DeepSeek, OpenRouter
        r"credit balance is too low",  # Anthropic, with 400
        r"(incorrect|invalid) api key|api key not valid",  # xAI and Google, with 400
    ),
    _known(
        Concern.NAME,
        # OpenAI, Azure, Groq, Mistral
        "model_not_found deploymentnotfound model_decommissioned invalid_model",
        r"invalid model name",  # LiteLLM, with 400
        r"\bmodel\b.{0,100}\b(does not exist|not found)",  # vLLM, OpenAI, Ollama
        r"\bno models? loaded",  # LM Studio
    ),
)
# OpenAI's words for a spent quota are Google's for a limit a minute, which come with a delay or with this status.
_QUOTA = re.compile("exceeded your current quota", re.IGNORECASE)
_GOOGLES_LIMIT = "resource_exhausted"
# OpenAI, Groq: "tokens per min (TPM): Limit 6000, Requested 7000". With "Used" between the two waiting helps.
_OF_A_MINUTE = re.compile(r"\bLimit:? ?(\d{1,12}),? Requested:? ?(\d{1,12})", re.IGNORECASE)
# vLLM: "you requested 5000 tokens (20 in the messages, 4980 in the completion)".
_IN_PARTS = re.compile(r"(\d{1,12}) in the messages, (\d{1,12}) in the completion", re.IGNORECASE)
_BY_STATUS = {
    401: Meaning(Concern.ACCOUNT, is_certain=True),
    # Routers and firewalls refuse single requests with the next three.
    402: Meaning(Concern.CREDIT),
    403: Meaning(Concern.ACCOUNT),
    404: Meaning(Concern.NAME),
    413: Meaning(Concern.REQUEST, is_certain=True),
}
_MAY_PASS = frozenset({408, 409, 425})
# A server that is too busy may say so with a 503 and when to come back (RFC 9110, section 15.6.4); 529 is Anthropic's.
_BUSY_WITH_A_DELAY = frozenset({503, 529})


def refusal(
    described: str, status: int, headers: Mapping[str, str], body: object, said: str, asked: str = ""
) -> ModelError:
    """The error of a request that a server refused.

    `described` names the model, `body` is what the server sent, as JSON if it was JSON, `said` is its text, in one line
    and without secrets, and `asked` the address of the request.
    """
    meaning = meaning_of(status, headers, body)
    is_of_the_model = meaning.concern in (Concern.ACCOUNT, Concern.NAME)
    return ModelError(
        f"{described} answered {status}: {said} ({_advice(status, meaning, body, asked)})",
        fatal=meaning.is_certain and is_of_the_model,
        transient=status in _MAY_PASS and not meaning.is_certain,
        throttled=meaning.is_busy,
        retry_after=meaning.delay,
        overloaded=status >= 500 and not meaning.is_certain,
        concern=meaning.concern,
    )


def meaning_of(status: int, headers: Mapping[str, str], body: object) -> Meaning:
    """Return the meaning of a refusal, by code, message, status and headers."""
    is_page = isinstance(body, str) and body.lstrip().startswith("<")
    text = "" if is_page else error_text(body, "")[:_LONGEST_SAID]
    # The delay of Google is beside the message.
    delay = delay_in(headers, str(body)[: 2 * _LONGEST_SAID])
    concern = _recognised(text, frozenset(_codes(body)), delay)
    if concern is Concern.REQUEST or (concern is not None and status < 500):
        return Meaning(concern, is_certain=concern is not Concern.UNKNOWN)
    if status == 429 or (status in _BUSY_WITH_A_DELAY and delay is not None):
        return Meaning(is_busy=True, delay=delay)
    if status in (400, 422) and _parameter(body) == "model":
        return Meaning(Concern.NAME)
    return Meaning() if status == 403 and is_page else _BY_STATUS.get(status, Meaning())


def _recognised(text: str, codes: frozenset[str], delay: float | None) -> Concern | None:
    """Return the concern that code or message name; None when the table has neither."""
    if (asked := _OF_A_MINUTE.search(text)) and int(asked[2]) > int(asked[1]):
        return Concern.REQUEST
    if (parts := _IN_PARTS.search(text)) and int(parts[2]) > int(parts[1]):
        return Concern.UNKNOWN
    for known in _KNOWN:
        if codes & known.codes or known.phrases.search(text):
            return known.concern
    is_a_limit = delay is not None or _GOOGLES_LIMIT in codes or _GOOGLES_LIMIT in text.lower()
    return Concern.ACCOUNT if _QUOTA.search(text) and not is_a_limit else None


def _codes(body: object) -> Iterator[str]:
    """Every code, type, status and reason in an error body."""
    error = error_in(body)
    if isinstance(error, dict):
        details = error.get("details")
        parts = (error, error.get("innererror"), *(details if isinstance(details, list) else ()))
        for part in parts:
            if isinstance(part, dict):
                yield from (str(part[name]).lower() for name in ("code", "type", "status", "reason") if name in part)


def _parameter(body: object) -> str | None:
    """The parameter that an error body names: `param` (OpenAI), or the last part of a `loc` (FastAPI)."""
    error = error_in(body)
    if not isinstance(error, dict):
        return None
    detail = error.get("detail")
    places = [one.get("loc") for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
    in_body = [str(place[1]) for place in places if isinstance(place, list) and len(place) > 1]
    name = error.get("param") or next(iter(in_body), None)
    return name if isinstance(name, str) else None


def _advice(status: int, meaning: Meaning, body: object, asked: str) -> str:
    if meaning.concern in (Concern.ACCOUNT, Concern.CREDIT):
        return "check its api_key and the account's credit"
    if meaning.concern is Concern.NAME:
        advice = (
            f"check its model_name and base_url; asked was {asked}" if asked else "check its model_name and base_url"
        )
        # The proxy has it below its route to a vLLM server (docs.litellm.ai/docs/pass_through/vllm).
        return f"{advice}; behind LiteLLM the base_url ends with /vllm" if asked.endswith(_SCALAR_ROUTES) else advice
    if meaning.concern is Concern.REQUEST:
        return "this request alone is refused"
    if status >= 500:
        return "the server failed"
    parameter = None if meaning.is_busy else _parameter(body)
    if parameter is None or parameter.startswith("messages"):
        return "the request was refused"
    return f"change or remove {parameter!r}, which the llm or the workflow's sampling sets"

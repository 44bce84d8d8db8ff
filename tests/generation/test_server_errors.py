"""What servers, proxies and vendors say, as they were seen to say it, and what it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import Concern
from nat_dpo_pipeline.generation.server_errors import Meaning, meaning_of, refusal

REQUEST = Meaning(Concern.REQUEST, is_certain=True)
ACCOUNT = Meaning(Concern.ACCOUNT, is_certain=True)
NAME = Meaning(Concern.NAME, is_certain=True)
PERHAPS_ACCOUNT, PERHAPS_CREDIT = Meaning(Concern.ACCOUNT), Meaning(Concern.CREDIT)
PERHAPS_NAME, UNKNOWN = Meaning(Concern.NAME), Meaning()
Body = object


def _saying(message: str, **more: object) -> dict[str, object]:
    return {"message": message, **more}


GOOGLE = [
    {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan. Please retry in 6.1s.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "6s"}],
        }
    }
]
PER_MINUTE = "for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000,"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, _saying("too long", code="context_length_exceeded")),
        (400, _saying("This model's maximum context length is 8192 tokens. However, your messages are 9000 tokens.")),
        (400, _saying("litellm.ContextWindowExceededError: litellm.BadRequestError: …", code="400")),
        (400, _saying("too long", code=400, type="exceed_context_size_error")),
        (400, _saying("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it")),
        (500, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (400, _saying("The input (5000 tokens) is longer than the model's context length (4096 tokens).")),
        (400, _saying("prompt is too long: 210000 tokens > 200000 maximum", type="invalid_request_error")),
        (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
        (400, [{"error": _saying("The input token count (9) exceeds the maximum number of tokens allowed (8).")}]),
        (413, "<html><title>413 Request Entity Too Large</title></html>"),
        (413, None),
        (429, _saying(f"Request too large {PER_MINUTE} Requested 45000.", code="rate_limit_exceeded")),
        (429, _saying(f"Your tokens {PER_MINUTE} Requested 45000. Please try again in 9s")),
        (404, _saying("No endpoints found that can handle the length of this request", code=404)),
        (403, _saying('The chosen model requires moderation, and this input was flagged for "violence"', code=403)),
        (400, _saying("The response was filtered", code="content_filter", innererror={"code": "Other"})),
        (400, _saying("filtered", innererror={"code": "ResponsibleAIPolicyViolation"})),
        (400, _saying("Content Exists Risk", type="invalid_request_error")),
    ],
    ids=str,
)
def test_what_concerns_one_request_alone(status: int, body: Body) -> None:
    assert meaning_of(status, {}, body) == REQUEST
    error = refusal("model", status, {}, body, "said")
    assert (error.fatal, error.transient, error.may_concern_the_model) == (False, False, False)


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (401, _saying("no"), ACCOUNT),
        (429, _saying("no", code="insufficient_quota"), ACCOUNT),
        (429, _saying("no", type="insufficient_quota"), ACCOUNT),
        (429, _saying("You exceeded your current quota, please check your plan", type="throttling_error"), ACCOUNT),
        (422, _saying("Budget has been exceeded! Current cost: 0.2, Max budget: 0.1", code="422"), ACCOUNT),
        (400, _saying("spent", type="budget_exceeded"), ACCOUNT),
        (429, _saying("No deployments available - crossed budget: Exceeded budget for deployment"), ACCOUNT),
        (400, _saying("No connected db.", type="no_db_connection"), ACCOUNT),
        (400, _saying("Your credit balance is too low to access the Anthropic API."), ACCOUNT),
        (400, _saying("Incorrect API key provided: xai-***"), ACCOUNT),
        (400, [{"error": _saying("no", details=[{"reason": "API_KEY_INVALID"}])}], ACCOUNT),
        (402, _saying("Insufficient Balance"), ACCOUNT),
        (402, _saying("requires more credits, or fewer max_tokens. You can only afford 150"), PERHAPS_CREDIT),
        (403, _saying("Forbidden"), PERHAPS_ACCOUNT),
        (400, _saying("/chat/completions: Invalid model name passed in model=m. Call `/v1/models`"), NAME),
        (404, _saying("The model `m` does not exist.", type="NotFoundError"), NAME),
        (404, _saying("no", code="model_not_found"), NAME),
        (404, {"detail": "Not Found"}, PERHAPS_NAME),
        (404, "<html>404</html>", PERHAPS_NAME),
        (400, _saying("invalid model ID", param="model"), PERHAPS_NAME),
    ],
    ids=str,
)
def test_what_concerns_key_credit_or_model(status: int, body: Body, meaning: Meaning) -> None:
    assert meaning_of(status, {}, body) == meaning
    error = refusal("model", status, {}, body, "said")
    assert error.fatal is meaning.is_certain
    assert not error.transient
    assert error.may_concern_the_model


@pytest.mark.parametrize(
    ("status", "headers", "body", "delay"),
    [
        (429, {}, None, None),
        (429, {}, GOOGLE, 6.1),
        (
            429,
            {},
            _saying("You exceeded your current quota, please check your plan", status="RESOURCE_EXHAUSTED"),
            None,
        ),
        (429, {}, _saying(f"Rate limit reached {PER_MINUTE} Used 29000, Requested 4500. Please try again in 7s."), 7.0),
        (429, {"llm_provider-retry-after": "3"}, _saying("busy", type="throttling_error", code="429"), 3.0),
        (503, {"retry-after-ms": "1500"}, _saying("busy"), 1.5),
        (529, {"retry-after": "4"}, _saying("Overloaded", type="overloaded_error"), 4.0),
    ],
    ids=str,
)
def test_a_server_that_is_busy_is_waited_for(
    status: int, headers: dict[str, str], body: Body, delay: float | None
) -> None:
    assert meaning_of(status, headers, body) == Meaning(is_busy=True, delay=delay)
    error = refusal("model", status, headers, body, "said")
    assert (error.throttled, error.retry_after, error.fatal) == (True, delay, False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, _saying("Unsupported parameter: 'max_tokens'", param="max_tokens", code="unsupported_parameter")),
        (400, _saying("'max_tokens' is too large: 200000. This model's maximum context length is 4096 tokens")),
        (
            400,
            _saying(
                "maximum context length is 4096 tokens, you requested 5000 (20 in the messages, 4980 in the completion)"
            ),
        ),
        (422, {"detail": "Unexpected fields in the request: {'top_k'}"}),
        (
            422,
            {
                "detail": [
                    {"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": "prompt is too long"}
                ]
            },
        ),
        (403, "<html><head><title>403 Forbidden</title></head><body>Request blocked: API key not valid</body></html>"),
    ],
    ids=str,
)
def test_what_says_neither_may_be_about_all_requests(status: int, body: Body) -> None:
    assert meaning_of(status, {}, body) == UNKNOWN
    error = refusal("model", status, {}, body, "said")
    assert (error.fatal, error.transient, error.may_concern_the_model) == (False, False, True)


@pytest.mark.parametrize("body", ["Internal Server Error", _saying("Incorrect API key provided"), None])
def test_a_server_that_failed_may_not_fail_again(body: Body) -> None:
    error = refusal("model", 500, {}, body, "said")
    assert (error.overloaded, error.transient, error.fatal) == (True, True, False)


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (_saying("no", param="max_tokens"), "change or remove 'max_tokens', which the llm or the workflow's sampling"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "no"}]}, "change or remove 'seed'"),
        (_saying("no", param="messages.[0].content"), "the request was refused"),
        (_saying("no", param=None), "the request was refused"),
        (_saying("no", param=["a"]), "the request was refused"),
        ({"detail": [{"loc": ["body"], "msg": "no"}]}, "the request was refused"),
    ],
)
def test_the_parameter_that_is_refused_is_named(body: Body, advice: str) -> None:
    assert advice in str(refusal("model", 400, {}, body, "said"))


KEYS = [
    "error",
    "message",
    "code",
    "type",
    "status",
    "param",
    "detail",
    "details",
    "loc",
    "msg",
    "reason",
    "innererror",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.integers(400, 599), JSON)
def test_no_body_at_all_is_an_error(status: int, body: Body) -> None:
    assert str(refusal("model", status, {}, body, "said")).startswith(f"model answered {status}: said (")

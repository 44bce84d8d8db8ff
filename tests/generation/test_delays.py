from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.generation.delays import delay_in

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
IN_A_MINUTE = NOW + timedelta(minutes=1)
WEEK = 7 * 86_400.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        (" 60 ", 60.0),
        ("1m30s", 90.0),
        ("6ms", 0.006),
        ("7m12.5s", 432.5),
        ("2 minutes", 120.0),
        ("1d", 86_400.0),
        (format_datetime(IN_A_MINUTE, usegmt=True), 60.0),
        ("Mon, 30 Nov 2026 12:01:00 -0000", 60.0),
        ("2026-11-30T12:01:00Z", 60.0),
        (str(int(IN_A_MINUTE.timestamp())), 60.0),
        (str(int(IN_A_MINUTE.timestamp() * 1000)), 60.0),
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "llm_provider-retry-after", "x-ratelimit-reset-requests"])
def test_a_delay_is_a_number_a_duration_a_moment_or_a_date(name: str, value: str, seconds: float) -> None:
    assert delay_in({name: value}, "", NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "5 more",
        "0",
        "-3",
        "nan",
        "inf",
        "1e400",
        "1" + "0" * 400,
        "8d",
        "9" * 20 + "s",
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Thu, 01 Jan 999999999999999999999 00:00:00 GMT",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ratelimit-reset"])
def test_what_cannot_be_meant_is_not_believed(name: str, value: str) -> None:
    assert delay_in({name: value}, "", NOW) is None


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "ratelimit-reset"]), st.text(max_size=40)),
    st.text(max_size=80),
)
def test_no_text_at_all_is_an_error(headers: dict[str, str], text: str) -> None:
    seconds = delay_in(headers, text)
    assert seconds is None or 0 < seconds <= WEEK


@given(st.integers(), st.sampled_from(["s", "ms", "m", "h", "d", ""]))
def test_no_number_at_all_is_an_error(number: int, unit: str) -> None:
    for seconds in (delay_in({"retry-after": f"{number}{unit}"}, ""), delay_in({}, f"retry in {number}{unit}")):
        assert seconds is None or 0 < seconds <= WEEK


@given(st.integers(-10, 10**22), st.sampled_from(["GMT", "+2359", "-2359", ""]))
def test_no_year_at_all_is_an_error(year: int, zone: str) -> None:
    assert delay_in({"retry-after": f"Thu, 01 Jan {year} 00:00:00 {zone}"}, "", NOW) in (None, pytest.approx(WEEK))


@pytest.mark.parametrize("name", ["retry-after-ms", "llm_provider-retry-after-ms", "x-ms-retry-after-ms"])
def test_a_delay_in_milliseconds(name: str) -> None:
    assert delay_in({name: "2500"}, "", NOW) == 2.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("You exceeded your current quota. Please retry in 6.1s.", 6.1),
        ("Rate limit reached. Please try again in 1m2.5s. Visit …", 62.5),
        ("Please try again in 20ms.", 0.02),
        ("Requests have exceeded the call rate limit. Please retry after 20 seconds.", 20.0),
        ("{'retryDelay': '6s'}", 6.0),
        (r"litellm.RateLimitError: {\"retryDelay\": \"7s\", \"message\": \"retry in 7.4s\"}", 7.4),
        ("try again in 5 more", None),
        ("try again later", None),
    ],
)
def test_a_delay_in_the_body(text: str, seconds: float | None) -> None:
    assert delay_in({}, text, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_the_most_exact_source_goes_first() -> None:
    reset = {"x-ratelimit-reset-requests": "9s"}
    assert delay_in({"retry-after-ms": "100", "retry-after": "1", **reset}, "retry in 5s", NOW) == 0.1
    assert delay_in({"retry-after": "never", **reset}, "retry in 5s", NOW) == 5.0
    assert delay_in(reset, "", NOW) == 9.0


def test_a_limit_of_which_something_remains_is_not_waited_for() -> None:
    headers = {
        "x-ratelimit-reset-requests": "1m30s",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-tokens": "2s",
        "x-ratelimit-remaining-tokens": "0",
    }
    assert delay_in(headers, "", NOW) == 2.0
    anthropic = {
        "anthropic-ratelimit-input-tokens-reset": "2026-11-30T12:00:12Z",
        "anthropic-ratelimit-requests-reset": "2026-11-30T12:00:40Z",
        "anthropic-ratelimit-requests-remaining": "48",
    }
    assert delay_in(anthropic, "", NOW) == 12.0

import inspect

import pytest

from nat_dpo_pipeline import errors
from nat_dpo_pipeline.core.candidates import RefusalReason

ERRORS = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_one_base_catches_every_error() -> None:
    assert len(ERRORS) > 1
    assert all(issubclass(error, errors.DPOPipelineError) for error in ERRORS)


def test_the_docstring_draws_every_error() -> None:
    drawn = [line.strip("│├└─ ").split()[0] for line in (errors.__doc__ or "").splitlines() if line.strip()][1:]
    assert sorted(drawn) == sorted(error.__name__ for error in ERRORS)


def test_a_refused_candidate_is_an_input_error_that_says_why() -> None:
    error = errors.CandidateRefused(RefusalReason.MEDIA)
    assert isinstance(error, errors.InputError)
    assert error.reason is RefusalReason.MEDIA
    assert str(error) == "not a candidate: image_audio_or_file"


def test_a_parse_error_carries_the_reply_apart_from_its_message() -> None:
    error = errors.ParseError("no list", "Sorry.")
    assert (str(error), error.reason, error.reply) == ("no list", "no list", "Sorry.")


@pytest.mark.parametrize("fatal", [False, True])
def test_a_model_error_says_whether_another_call_makes_sense(fatal: bool) -> None:
    assert errors.ModelError("refused", fatal=fatal).fatal is fatal


def test_a_model_error_promises_nothing_unless_said_so() -> None:
    error = errors.ModelError("slow")
    assert (error.fatal, error.transient, error.throttled, error.retry_after) == (False, False, False, None)


def test_a_throttled_call_may_succeed_later() -> None:
    error = errors.ModelError("busy", throttled=True, retry_after=2.0)
    assert (error.transient, error.throttled, error.retry_after) == (True, True, 2.0)

import logging

import pytest
from nat.data_models.config import Config

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.nat_logs import evaluation_errors

LOG = logging.getLogger("nat.plugins.eval.runtime.evaluate")


def _log_failure(error: Exception) -> None:
    try:
        raise error
    except Exception as raised:
        LOG.exception("Failed to run the workflow: %s", raised)


def test_errors_are_kept_as_one_line_each() -> None:
    with evaluation_errors() as errors:
        _log_failure(RuntimeError("first\n   line"))
        _log_failure(TimeoutError())
        LOG.error("without an exception")
    assert errors == ["first line", "TimeoutError"]


def test_an_error_that_the_user_can_mend_shows_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    with evaluation_errors():
        _log_failure(InputError("row 3 has no 'prompt'"))
        _log_failure(ZeroDivisionError("a bug"))
    mendable, bug = caplog.records
    assert mendable.getMessage() == "Failed to run the workflow: row 3 has no 'prompt'"
    assert mendable.exc_info is None
    assert bug.exc_info is not None


def test_a_whole_configuration_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOG.name), evaluation_errors() as errors:
        LOG.info("Loaded the configuration %s", Config())
        LOG.info("%s examples", 3)
        LOG.info("100 % done")
    assert caplog.messages == ["3 examples", "100 % done"]
    assert errors == []


def test_outside_of_the_block_all_is_as_before(caplog: pytest.LogCaptureFixture) -> None:
    before = list(LOG.filters)

    def fail() -> None:
        with evaluation_errors():
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert LOG.filters == before
    _log_failure(InputError("later"))
    (record,) = caplog.records
    assert record.exc_info is not None


def test_blocks_may_nest() -> None:
    with evaluation_errors() as outer:
        with evaluation_errors() as inner:
            _log_failure(RuntimeError("both"))
        _log_failure(RuntimeError("outer only"))
    assert (inner, outer) == (["both"], ["both", "outer only"])

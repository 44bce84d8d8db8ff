from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.testing.faults import Fault, FaultPlan, after, at_random
from nat_dpo_pipeline.testing.messages import Request

FAULTS = [Fault.RESET, Fault.HANG, Fault.SERVER_ERROR]
CONTENTS = [b"request %d" % number for number in range(400)]


def _asked(plan: FaultPlan, contents: list[bytes]) -> list[Fault | None]:
    return [plan(_request(number, content)) for number, content in enumerate(contents, 1)]


def _request(number: int, content: bytes) -> Request:
    return Request(number, b"POST / HTTP/1.1\r\n\r\n", content)


def test_after_a_number_of_requests_all_meet_the_fault() -> None:
    assert _asked(after(2, Fault.UNAUTHORIZED), CONTENTS[:4]) == [None, None, Fault.UNAUTHORIZED, Fault.UNAUTHORIZED]


@given(st.permutations(range(40)))
def test_what_a_request_meets_does_not_depend_on_the_order(order: list[int]) -> None:
    in_order = _asked(at_random(0.5, FAULTS, seed=1), CONTENTS[:40])
    shuffled = _asked(at_random(0.5, FAULTS, seed=1), [CONTENTS[place] for place in order])
    assert shuffled == [in_order[place] for place in order]


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5, 1.0]), st.integers(1, 3))
def test_equal_requests_meet_no_more_than_a_few_faults_in_a_row(seed: int, share: float, most: int) -> None:
    met = _asked(at_random(share, FAULTS, seed, most_in_a_row=most), [b"the same"] * 60)
    assert max((len(list(run)) for hit, run in groupby(met, bool) if hit), default=0) <= most


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_first_requests_that_meets_a_fault_is_kept(share: float) -> None:
    met = _asked(at_random(share, FAULTS, seed=3), CONTENTS)
    assert sum(fault is not None for fault in met) / len(met) == pytest.approx(share, abs=0.07)
    assert set(Counter(met)) - {None} == (set(FAULTS) if share else set())


def test_another_seed_is_another_draw() -> None:
    assert _asked(at_random(0.5, FAULTS, 1), CONTENTS) != _asked(at_random(0.5, FAULTS, 2), CONTENTS)

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.testing.server import Answer, FaultPlan, LoopbackServer, Request, asgi_answer, serving


@pytest.fixture
def make_server() -> Iterator[Callable[..., LoopbackServer]]:
    """Makes servers that run, in threads of their own, until the test ends; the arguments are those of the server."""
    with ExitStack() as stack:

        def make(
            answer: Answer, *, fault: FaultPlan | None = None, latency: Callable[[Request], float] | None = None
        ) -> LoopbackServer:
            server = LoopbackServer(answer, fault=fault, latency=latency)
            stack.enter_context(serving(server))
            return server

        yield make


@pytest.fixture
def demo_server(make_server: Callable[..., LoopbackServer]) -> LoopbackServer:
    """The demo models, with seed 1."""
    return make_server(asgi_answer(create_app(seed=1)))

import importlib
from collections.abc import AsyncIterator
from types import ModuleType

import openai
import pytest
from openai import AsyncOpenAI
from starlette.applications import Starlette

from nat_dpo_pipeline.demo import create_app


def _http_library() -> ModuleType:
    # openai 2 speaks through httpx, openai 3 through httpx2; each takes the transports of its own library only.
    base = next(parent for parent in openai.DefaultAsyncHttpxClient.__mro__ if parent.__name__ == "AsyncClient")
    return importlib.import_module(base.__module__.partition(".")[0])


@pytest.fixture(scope="session")
def http() -> ModuleType:
    """The library through which the installed openai client speaks HTTP."""
    return _http_library()


@pytest.fixture(scope="session")
def app() -> Starlette:
    return create_app()


@pytest.fixture
async def client(app: Starlette, http: ModuleType) -> AsyncIterator[AsyncOpenAI]:
    """The real client, in process."""
    async with http.AsyncClient(transport=http.ASGITransport(app=app)) as http_client:
        yield AsyncOpenAI(base_url="http://demo/v1", api_key="none", max_retries=0, http_client=http_client)

"""The embedded offline model: an OpenAI-compatible ASGI app that answers from Python's own documentation."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["create_app"]


def create_app(seed: int = 0) -> "Starlette":
    """The app with the models `demo/stdlib-writer` and `demo/stdlib-reward`; equal seeds give equal replies."""
    # Imported here so that importing this package does not load starlette.
    from nat_dpo_pipeline.demo import app

    return app.build(seed)

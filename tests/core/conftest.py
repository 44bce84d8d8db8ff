import json
from pathlib import Path
from typing import Any

import pytest

_REPLIES = Path(__file__).parents[2].parent / "shared" / "data" / "nemotron_notebook_replies.json"


@pytest.fixture(scope="session")
def notebook() -> Any:
    """The replies that real models gave to the recipe."""
    if not _REPLIES.is_file():
        pytest.skip(f"the real replies are not here: {_REPLIES}")
    return json.loads(_REPLIES.read_text(encoding="utf-8"))

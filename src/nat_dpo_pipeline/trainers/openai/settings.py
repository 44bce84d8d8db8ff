"""What fine-tuning behind OpenAI's API can be told; light, so that configurations can import it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OpenAIPauses:
    """In seconds. A file is looked at every `file_poll`, and given up after `file_wait`. A job that may have been
    created although the reply got lost is looked for after each of `looks`.
    """

    file_poll: float = 2.0
    file_wait: float = 1800.0
    looks: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """A job and where it goes. `hyperparameters` are those of the method, "auto" or numbers; `extra_body` goes into the
    request over everything else; `request_timeout` is in seconds. An empty `api_key` is none.
    """

    model: str
    base_url: str
    api_key: str = field(repr=False)
    hyperparameters: Mapping[str, float | str] = field(default_factory=dict)
    suffix: str | None = None
    min_rows: int = 10
    delete_files: bool = False
    request_timeout: float = 120.0
    extra_body: Mapping[str, object] = field(default_factory=dict)
    pauses: OpenAIPauses = OpenAIPauses()

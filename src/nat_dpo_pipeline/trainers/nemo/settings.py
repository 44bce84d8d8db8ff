"""What the back end over NeMo Customizer can be told; light, so that configurations can import it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NimDeployment:
    """How a trained model is served. `timeout`: seconds until a deployment that is not ready counts as failed."""

    image_name: str
    image_tag: str
    gpu: int = 1
    name: str | None = None
    description: str = ""
    timeout: float = 1800.0


@dataclass(frozen=True, slots=True)
class NemoSettings:
    """Where NeMo Microservices are and what is to be trained there.

    `hyperparameters` are those of a customization job, as its JSON has them, without the seed. `full_history` False
    keeps only the last message of a prompt. `request_timeout` is in seconds; a request that gets no answer is repeated
    after `retry_pause` seconds, and after twice as long each time.
    """

    entity_host: str
    datastore_host: str
    namespace: str
    customization_config: str
    hyperparameters: Mapping[str, object]
    dataset_name: str = "nat-dpo"
    dataset_output_dir: Path | None = None
    create_namespace: bool = True
    full_history: bool = True
    output_model: str | None = None
    description: str = ""
    deployment: NimDeployment | None = None
    access_token: str = field(default="", repr=False)
    hf_token: str = field(default="", repr=False)
    request_timeout: float = 60.0
    retry_pause: float = 0.5

    @property
    def training_type(self) -> object:
        return self.hyperparameters.get("training_type")

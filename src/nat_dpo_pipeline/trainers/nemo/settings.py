"""Settings of NeMo Customizer, by the names of nvidia-nat-nemo-customizer 1.9; light, so that configurations can import
them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from nat_dpo_pipeline.strict import StrictConfig, secret_text
from nat_dpo_pipeline.trainers.settings import JobSettings, Patience

if TYPE_CHECKING:
    from nat_dpo_pipeline.core.messages import Prompt
    from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend

NVIDIAS_VALIDATION_FRACTION = 0.2


class DPOSpecificHyperparameters(StrictConfig):
    """What NeMo Customizer can be told about DPO."""

    ref_policy_kl_penalty: float = Field(default=0.1, ge=0.0, description="How far from the reference: DPO's beta.")
    preference_loss_weight: float = Field(default=1.0, ge=0.0, description="Weight of the preference loss.")
    preference_average_log_probs: bool = Field(
        default=False, description="Average the log probabilities over the tokens of a response instead of adding them."
    )
    sft_loss_weight: float = Field(default=0.0, ge=0.0, description="Weight of the loss on the chosen responses.")


class NeMoCustomizerHyperparameters(StrictConfig):
    """The hyperparameters of a customization job; its seed is that of the adapter."""

    training_type: Literal["sft", "dpo"] = Field(
        default="dpo", description="dpo, or sft on the responses that no other one of their turn beat."
    )
    finetuning_type: Literal["lora", "all_weights"] = Field(default="all_weights", description="What is trained.")
    epochs: int = Field(default=3, ge=1, description="Passes over the training pairs.")
    batch_size: int = Field(default=4, ge=1, description="Pairs in a step.")
    learning_rate: float = Field(default=5e-5, gt=0.0, description="Learning rate.")
    dpo: DPOSpecificHyperparameters = Field(
        default_factory=DPOSpecificHyperparameters, description="Used for `training_type: dpo` only."
    )

    def to_json(self) -> dict[str, object]:
        """As the service takes them: `dpo` is there for DPO only."""
        return self.model_dump(exclude=None if self.training_type == "dpo" else {"dpo"})


class NIMDeploymentConfig(StrictConfig):
    """How the trained model is served."""

    image_name: str = Field(
        default="nvcr.io/nim/nvidia/nemotron-3.5-lightning-30b-a3b", description="Name of the NIM image."
    )
    image_tag: str = Field(default="latest", description="Tag of the NIM image.")
    gpu: int = Field(default=1, ge=1, description="Number of GPUs.")
    deployment_name: str | None = Field(
        default=None, description="Name of the deployment, which must be free; None makes one from the job's id."
    )
    description: str = Field(default="Fine-tuned model deployment", description="Description of the deployment.")


class NemoSettings(JobSettings):
    """Where NeMo Microservices are and what is to be trained there."""

    entity_host: str = Field(description="Base URL of NeMo Microservices (entities, customizer, deployments).")
    datastore_host: str = Field(description="Base URL of NeMo Data Store.")
    hf_token: SecretStr | None = Field(
        default=SecretStr(""), description="Bearer token for datastore_host; empty sends none."
    )
    access_token: SecretStr | None = Field(
        default=SecretStr(""), description="Bearer token for entity_host, where a gateway asks for one."
    )
    namespace: str = Field(min_length=1, description="Namespace of dataset, job, model and deployment.")
    dataset_name: str = Field(
        default="nat-dpo",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Begin of the names of dataset, job and model; each job has a dataset of its own.",
    )
    dataset_output_dir: Path | None = Field(
        default=None, description="Keep the uploaded files there, in a folder for each dataset; None keeps none."
    )
    create_namespace_if_missing: bool = Field(default=True, description="Make the namespace where there is none.")
    customization_config: str = Field(
        min_length=1, description="What is trained on what, e.g. meta/llama-3.2-1b-instruct@v1.0.0+A100."
    )
    hyperparameters: NeMoCustomizerHyperparameters = Field(
        default_factory=NeMoCustomizerHyperparameters, description="Hyperparameters of the job."
    )
    output_model: str | None = Field(
        default=None, min_length=1, description="Name of the trained model; None makes a new one for each job."
    )
    description: str = Field(default="", description="Description of the job.")
    use_full_message_history: bool = Field(
        default=True,
        description="False keeps of a prompt only the text of its last message, which is NVIDIA's default.",
    )
    deploy_on_completion: bool = Field(default=False, description="Deploy the trained model.")
    deployment_config: NIMDeploymentConfig = Field(
        default_factory=NIMDeploymentConfig, description="Used with `deploy_on_completion`."
    )
    poll_interval_seconds: float = Field(default=30.0, gt=0.0, description="Seconds between two looks at the job.")
    deployment_timeout_seconds: float = Field(
        default=1800.0, gt=0.0, description="Seconds until a deployment that is not ready counts as failed."
    )
    max_consecutive_status_failures: int = Field(
        default=3, ge=1, le=10, description="Looks that fail one after the other until the waiting is given up."
    )
    validation_fraction: float = Field(
        default=NVIDIAS_VALIDATION_FRACTION,
        ge=0.0,
        lt=1.0,
        description="Used when the trainer did not split: share of the prompts held out.",
    )

    @model_validator(mode="after")
    def _hosts_are_addresses(self) -> Self:
        for name in ("entity_host", "datastore_host"):
            address = str(getattr(self, name)).rstrip("/")
            if not address.startswith(("http://", "https://")) or not urlsplit(address).hostname:
                raise ValueError(f"{name} must be like https://host, got {address.rpartition('@')[2]!r}")
            setattr(self, name, address)
        for name in ("hf_token", "access_token"):
            token = secret_text(getattr(self, name))
            if token and not (token.isascii() and token.isprintable() and " " not in token):
                raise ValueError(f"{name} holds white space or other characters that no token has")
        return self

    def shorten(self) -> "Callable[[Prompt], Prompt] | None":
        """Return what leaves the text of the last message, without `use_full_message_history`."""
        from nat_dpo_pipeline.core.messages import last_text

        return None if self.use_full_message_history else last_text

    def patience(self) -> Patience:
        """How the job is waited for; NVIDIA's adapter counts the looks that fail."""
        return Patience(self.poll_interval_seconds, self.timeout, max_failures=self.max_consecutive_status_failures)

    @property
    def deployment(self) -> NIMDeploymentConfig | None:
        return self.deployment_config if self.deploy_on_completion else None

    def backend(self) -> "NemoCustomizerBackend":
        from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend

        return NemoCustomizerBackend(self)

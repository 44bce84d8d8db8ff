"""Serving a trained model: a deployment configuration and a deployment, both found again by the job's id."""

import re
from dataclasses import dataclass

from nat_dpo_pipeline.errors import TrainingError
from nat_dpo_pipeline.trainers.backend import JobState, JobStatus
from nat_dpo_pipeline.trainers.nemo.http import Json, Service, path_of
from nat_dpo_pipeline.trainers.nemo.settings import NIMDeploymentConfig
from nat_dpo_pipeline.trainers.nemo.status import deployment_status

_CONFIGS = "/v1/deployment/configs"
_DEPLOYMENTS = "/v1/deployment/model-deployments"


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment of one job's model. Methods raise as Service does."""

    settings: NIMDeploymentConfig
    namespace: str
    job_id: str

    @property
    def name(self) -> str:
        return self.settings.deployment_name or f"nat-deployment-{as_name(self.job_id)}"

    @property
    def config_name(self) -> str:
        return f"nat-deploy-config-{as_name(self.job_id)}"

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    async def status(self, entities: Service) -> JobStatus | None:
        """How it stands; None when there is none yet. Raises TrainingError when the name is taken by another one."""
        body = await self._found(entities)
        if body is None:
            return None
        if not self._is_ours(body):
            raise TrainingError(
                f"deployment {self.full_name} exists and serves something else: remove it, or give "
                "another deployment_name"
            )
        return deployment_status(self.full_name, body)

    async def start(self, entities: Service, model: str) -> None:
        """That one of these exists already is no error: another process may have begun, or a request was repeated."""
        named = {"namespace": self.namespace, "description": self.settings.description}
        image = {
            "image_name": self.settings.image_name,
            "image_tag": self.settings.image_tag,
            "gpu": self.settings.gpu,
        }
        config = {"name": self.config_name, **named, "model": model, "nim_deployment": image}
        await entities.post(_CONFIGS, config, accept=(409,))
        deployment = {"name": self.name, **named, "config": f"{self.namespace}/{self.config_name}"}
        await entities.post(_DEPLOYMENTS, deployment, accept=(409,))

    async def stop(self, entities: Service) -> None:
        """Remove it unless it is ready, or another's."""
        body = await self._found(entities)
        if body is None or not self._is_ours(body):
            return
        if deployment_status(self.name, body).state is not JobState.SUCCEEDED:
            await entities.delete(self._path(), accept=(404,))

    async def _found(self, entities: Service) -> Json | None:
        answer = await entities.get(self._path(), accept=(404,), repeat=False)
        return None if answer.status == 404 else answer.body

    def _path(self) -> str:
        return f"{_DEPLOYMENTS}{path_of(self.namespace, self.name)}"

    def _is_ours(self, body: Json) -> bool:
        config = body.get("config")
        if isinstance(config, dict):
            config = f"{config.get('namespace')}/{config.get('name')}"
        return config == f"{self.namespace}/{self.config_name}"


def as_name(text: str) -> str:
    """The text as a part of names that Kubernetes takes: lower case letters, digits and single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

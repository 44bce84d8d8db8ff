"""How calls are sampled, in a configuration."""

from typing import Annotated, Any

from pydantic import Field, FiniteFloat, field_validator

from nat_dpo_pipeline.generation.settings import Sampling, StepSampling
from nat_dpo_pipeline.strict import StrictConfig

Temperature = Annotated[FiniteFloat, Field(ge=0.0)]
Temperatures = Annotated[list[Temperature], Field(min_length=1)]
# What is said elsewhere, or would change the form of the reply.
_OURS = frozenset(("messages", "model", "n", "stream", "stream_options"))


class ExtraBodyConfig(StrictConfig):
    """What a request says besides what is said elsewhere."""

    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="More parameters for the request's body, as the server knows them."
    )

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_request_what_it_is(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OURS & body.keys()):
            raise ValueError(f"{taken[0]!r} cannot be set here: replies would not be read right")
        return body


class _SamplingConfig(ExtraBodyConfig):
    """What is not given is as the llm entry has it."""

    top_p: float | None = Field(default=None, gt=0.0, le=1.0, description="Share of the likeliest tokens to draw from.")
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens after which a reply is cut.")
    reasoning_effort: str | None = Field(
        default=None, min_length=1, description="How long a reasoning model thinks: `low`, `high`, or what it knows."
    )


class CallSamplingConfig(_SamplingConfig):
    """How the calls of a scorer are sampled. What is not given is as the llm entry has it."""

    temperature: Temperature | None = Field(default=None, description="0: the likeliest reply, as far as it goes.")
    seed: int | None = Field(default=None, description="A call that is made again has the next one.")

    def sampling(self) -> Sampling:
        return Sampling(
            self.temperature, self.top_p, self.max_tokens, self.seed, self.extra_body, self.reasoning_effort
        )


class StepSamplingConfig(_SamplingConfig):
    """How the calls of a step are sampled. What is not given is as the llm entry has it."""

    temperature: Temperature | Temperatures | None = Field(
        default=None, description="Of several the n-th response to a question has the n-th, then again the first."
    )
    seed: int | None = Field(default=None, description="Instead of the workflow's `seed`.")

    def step_sampling(self) -> StepSampling:
        given = self.temperature
        temperatures = () if given is None else tuple(given) if isinstance(given, list) else (given,)
        return StepSampling(
            temperatures, self.top_p, self.max_tokens, self.seed, self.extra_body, self.reasoning_effort
        )

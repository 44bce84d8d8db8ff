"""From a configuration to the plan of a run; opens no model and needs no key."""

from collections.abc import Iterable, Mapping
from functools import partial

from nat.plugin_api import LLMBaseConfig, LLMRef

from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.generation.inputs import Request, read_request
from nat_dpo_pipeline.generation.plan import (
    Asked,
    InputCounts,
    Plan,
    make_plan,
)
from nat_dpo_pipeline.generation.settings import InputKind, Spread
from nat_dpo_pipeline.plugin.nat_api import Config
from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig, llms_in
from nat_dpo_pipeline.plugin.workflows.recipe import function_at


def plan_of(config: Config, workflow: PreferenceDataConfig, inputs: Iterable[tuple[str, str]]) -> Plan:
    """What the workflow will ask for over the inputs.

    Raises InputError for a file that cannot be read, and ConfigurationError for what is named and not there.
    """
    _check_names(config, workflow)
    responders = workflow.responder_llm or workflow.writer_llm
    pools = [{name: 1.0} for name in responders.models] if responders.use is Spread.ALL else [responders.models]
    return make_plan(
        workflow,
        count_inputs((text for _, text in inputs), workflow.input_kind),
        writer=_asked(config, workflow.writer_llm.models),
        responders=[_asked(config, models) for models in pools],
        scoring=list(workflow.scorer_config().asks(partial(_asked_alike, config))),
        prices=workflow.prices,
    )


def _check_names(config: Config, workflow: PreferenceDataConfig) -> None:
    if unknown := sorted(set(llms_in(workflow)) - {str(name) for name in config.llms}):
        raise ConfigurationError(f"the workflow names the llm {unknown[0]!r}, which is not under llms:")
    if workflow.pipeline is not None:
        function_at(workflow.pipeline)


def count_inputs(texts: Iterable[str], kind: InputKind) -> InputCounts:
    """How many topics, questions and malformed inputs there are."""
    topics = questions = malformed = topic_characters = question_characters = 0
    for text in texts:
        request = _read(text, kind)
        if request is None:
            malformed += 1
        elif request.topic is not None:
            topics += 1
            topic_characters += len(request.topic)
        else:
            questions += 1
            question_characters += sum(len(message.content) for message in request.messages)
    return InputCounts(topics, questions, malformed, topic_characters, question_characters)


def _read(text: str, kind: InputKind) -> Request | None:
    try:
        return read_request(text, kind)
    except InputError:
        return None


def _asked_alike(config: Config, names: Iterable[str]) -> Asked:
    return _asked(config, {LLMRef(name): 1.0 for name in names})


def _asked(config: Config, models: Mapping[LLMRef, float]) -> Asked:
    bounds = [_max_tokens(config.llms[name]) for name in models if name in config.llms]
    known = [bound for bound in bounds if bound is not None]
    is_bound = len(known) == len(models)
    return Asked({str(name): weight for name, weight in models.items()}, max(known) if is_bound else None)


def _max_tokens(llm: LLMBaseConfig) -> int | None:
    given = {**{name: getattr(llm, name) for name in llm.model_fields_set}, **(llm.model_extra or {})}
    value = given.get("max_tokens")
    return value if isinstance(value, int) else None

"""Scored candidates to a file, as they are emitted.

NAT's own exporters hand their events to tasks that nobody waits for. This one writes before the step is over.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from zlib import crc32

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.messages import prompt_json, reply_json
from nat_dpo_pipeline.core.redaction import Redaction
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.dataset.candidate_log import CandidateLog
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.json_text import plain
from nat_dpo_pipeline.plugin.exporter_config import CandidateExporterConfig
from nat_dpo_pipeline.plugin.nat_api import (
    BaseExporter,
    ContextState,
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    IsolatedAttribute,
)
from nat_dpo_pipeline.plugin.steps import values_of
from nat_dpo_pipeline.plugin.telemetry.evaluation_items import item_id_of
from nat_dpo_pipeline.plugin.telemetry.late_steps import recording


@dataclass(slots=True)
class _Run:
    """What the rows of one run of the workflow share; read once, in the context of its first candidate."""

    is_read: bool = False
    run_id: str | None = None
    item_id: str | None = None
    input: object = None
    is_sampled: bool = True
    is_over: bool = False

    def read(self, state: ContextState, sample_rate: float, redaction: Redaction) -> None:
        given = state.input_message.get()
        self.run_id = state.workflow_run_id.get()
        self.item_id = item_id_of(given)
        self.is_sampled = _is_sampled(self.run_id or "", sample_rate)
        if self.is_sampled:
            self.input = redaction.apply({"input": plain(given)})["input"]
        self.is_read = True


class CandidateExporter(BaseExporter):
    """Appends the candidates of the configured steps to a file, synchronously. What fails is counted, never raised."""

    # One for each run: NAT runs a copy of the exporter with every workflow, and the copies share all else.
    _run: IsolatedAttribute[_Run] = IsolatedAttribute(_Run)

    def __init__(self, config: CandidateExporterConfig, context_state: ContextState | None = None) -> None:
        super().__init__(context_state)
        names = config.ttc_step_name
        self._names = frozenset([names] if isinstance(names, str) else names)
        self._sample_rate = config.sample_rate
        self._redaction = Redaction(
            tuple(map(re.compile, config.redact)), tuple(tuple(path.split(".")) for path in config.redact_fields)
        )
        self.log = CandidateLog(config.path, config.max_bytes)

    @asynccontextmanager
    async def start(self) -> AsyncIterator[None]:  # type: ignore[override]  # NAT's protocol forgets the decorator
        async with super().start():
            with recording(self._context_state.event_stream.get(), self):
                yield

    def on_complete(self) -> None:
        self._run.is_over = True
        super().on_complete()

    async def stop(self) -> None:
        self._run.is_over = True
        await super().stop()

    def export_late(self, event: IntermediateStep) -> None:
        if self._run.is_over:
            self.export(event)

    def export(self, event: IntermediateStep) -> None:
        payload = event.payload
        if payload.event_type is not IntermediateStepType.TTC_END or payload.name not in self._names:
            return
        try:
            self._record(payload)
        except Exception as error:  # noqa: BLE001 - nothing that a step holds may end the workflow
            self.log.failed(error)

    def _record(self, payload: IntermediateStepPayload) -> None:
        run = self._run
        if not run.is_read:
            run.read(self._context_state, self._sample_rate, self._redaction)
        if run.is_sampled:
            self.log.append(_row(payload, run, self._redaction))


#: By these a file is known to hold candidates.
_ALWAYS = frozenset({"example_id", "turn_id", "prompt", "response", "score"})


def _is_sampled(run_id: str, rate: float) -> bool:
    """The same for all candidates of a run, in any process."""
    return crc32(run_id.encode(errors="replace")) < rate * 2**32


def _row(payload: IntermediateStepPayload, run: _Run, redaction: Redaction) -> dict[str, object]:
    """The candidate as a flat row; what is not as a candidate should be is written as it is, for a reader to refuse."""
    fields, own = values_of(payload.data) if payload.data is not None else ({}, {})
    response = fields.get("output")
    content: dict[str, object] = {
        "prompt": _prompt(without_reply(fields.get("input"), response)),
        "response": _response(response),
        "metadata": _metadata(payload.metadata),
    }
    if redaction:
        content = redaction.apply({name: plain(value) for name, value in content.items()})
    attributes, model = _taken_out(content)
    row = {
        "run_id": run.run_id,
        "item_id": run.item_id,
        "example_id": run.item_id or run.run_id or "",
        "turn_id": own.get("turn_id"),
        "turn_index": own.get("turn_index"),
        "candidate_index": own.get("candidate_index"),
        "prompt": content["prompt"],
        "response": content["response"],
        "score": finite_number(own.get("score")),
        "model": model,
        "attributes": attributes,
        "metadata": content["metadata"] or None,
        "input": run.input,
        "step_name": payload.name,
        "recorded_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    return {name: value for name, value in row.items() if value is not None or name in _ALWAYS}


def _prompt(raw: object) -> object:
    try:
        prompt = render_prompt(raw)
    except CandidateRefused:
        return raw
    return prompt if isinstance(prompt, str) else prompt_json(prompt)


def _response(raw: object) -> object:
    try:
        return reply_json(render_response(raw))
    except CandidateRefused:
        return raw


def _metadata(raw: object) -> dict[str, object]:
    if isinstance(raw, dict):
        return dict(raw)
    return {} if raw is None else raw.model_dump(exclude_none=True)  # type: ignore[attr-defined]


def _taken_out(content: Mapping[str, object]) -> tuple[object, object]:
    """Attributes and model, which travel in a step's metadata and have columns of their own in a row."""
    metadata = content["metadata"]
    if not isinstance(metadata, dict):
        return None, None
    attributes = metadata.pop("attributes") if isinstance(metadata.get("attributes"), dict) else None
    model = metadata.pop("model") if isinstance(metadata.get("model"), str) else None
    return attributes, model

"""DPO with TRL, from the folder of a job to a model. Only the worker process imports this."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from statistics import fmean
from typing import Any
from uuid import uuid4

import torch
from datasets import Dataset, Features, Json, List, Value
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer import dpo_trainer

from nat_dpo_pipeline.core.json_values import numbers
from nat_dpo_pipeline.dataset.files import write_json
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.trl.checkpoints import is_due, newest_valid, remove_damaged, step_of
from nat_dpo_pipeline.trainers.trl.control import Parent, Reporter, Stopped, StopSignal
from nat_dpo_pipeline.trainers.trl.data import (
    TokenizedPair,
    TokenizedRows,
    check_left_out,
    has_calls,
    read_rows,
    tokenized,
)
from nat_dpo_pipeline.trainers.trl.job import JobFolder, TrlJob, append_metrics, forget_metrics_after
from nat_dpo_pipeline.trainers.trl.memory import memory_ran_out
from nat_dpo_pipeline.trainers.trl.models import (
    device_name,
    gpu_memory,
    is_lack_of_memory,
    load_model,
    load_tokenizer,
    lora_config,
    save_model,
    settled,
)
from nat_dpo_pipeline.trainers.trl.scoring import pair_scores
from nat_dpo_pipeline.trainers.trl.settings import LN2_LOSSES, TINY, Device, Precision, TrlSettings
from nat_dpo_pipeline.trainers.trl.tiny import make_tiny_model
from nat_dpo_pipeline.trainers.trl.verdict import Evidence, Verdict, figures, preference, share, verdict

#: How far the first loss may be from ln 2: what rounding does to sums of log-probabilities.
_ROUNDING, _ROUNDING_TO_16_BITS = 0.01, 0.1
_HASH = "hash_module"
_LOOKS_AT_HELD_OUT = 5
_PAIRS_A_LOOK = 64


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a training takes place, whom it tells and who may end it."""

    folder: JobFolder
    reporter: Reporter
    stop: StopSignal
    parent: Parent

    def check_parent(self) -> None:
        """Raises Stopped when the process that wanted the training is gone."""
        if self.parent.is_gone():
            raise Stopped


@dataclass(frozen=True, slots=True)
class _Data:
    train: TokenizedRows
    held_out: TokenizedRows


def train(job: TrlJob, around: Surroundings) -> tuple[str, Mapping[str, float]]:
    """Train, write the model and `result.json`; the sentence about what was learned, and the figures.

    Goes on from the newest checkpoint that is whole. Raises TrainingError, ConfigurationError and Stopped.
    """
    job = replace(job, settings=settled(job.settings))
    try:
        return _train(job, around)
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        if not is_lack_of_memory(error):
            raise
        print(error)  # noqa: T201 - the worker's log
        raise TrainingError(memory_ran_out(*gpu_memory(), job.settings)) from error


def _train(job: TrlJob, around: Surroundings) -> tuple[str, Mapping[str, float]]:
    settings, say = job.settings, around.reporter.phase
    rows = {side: read_rows(around.folder.rows(side)) for side in SplitName}
    name = _model_name(job, around, rows[SplitName.TRAIN])
    say("reading the pairs")
    tokenizer = load_tokenizer(name)
    data = _Data(*(tokenized(rows[side], tokenizer, settings.max_length) for side in SplitName))
    check_left_out(data.train, settings.max_length, settings.max_dropped)
    say(f"loading the model for {device_name(settings.device)}, {settings.precision}")
    model = load_model(name, settings)
    measuring = f"measuring {len(data.held_out.pairs)} held-out pairs"
    say(measuring)
    before = pair_scores(model, data.held_out.pairs, settings.precision)
    trainer = _trained(job, around, data, model, tokenizer)
    say(measuring)
    after = pair_scores(trainer.model, data.held_out.pairs, settings.precision)
    say("writing the model")
    save_model(trainer.accelerator.unwrap_model(trainer.model), tokenizer, around.folder.model, settings.lora)
    evidence = Evidence(before, after, _training_accuracy(trainer.state.log_history), _chosen_longer(data.train.pairs))
    found = verdict(evidence)
    _write_result(job, around.folder, data, evidence, found, trainer.state)
    return found.sentence, figures(evidence)


def _model_name(job: TrlJob, around: Surroundings, rows: Sequence[Any]) -> str:
    """The folder or hub name to load from; a model that is made in place is made once."""
    if job.settings.model != TINY:
        return job.settings.model
    folder = around.folder.tiny_model
    if not folder.exists():
        around.reporter.phase("making a tiny model")
        make_tiny_model(folder, rows, job.seed, around.check_parent)
    return str(folder)


def _trained(job: TrlJob, around: Surroundings, data: _Data, model: Any, tokenizer: Any) -> DPOTrainer:
    around.reporter.phase("computing the reference's log-probabilities")
    set_seed(job.seed)
    try:
        with _no_hash_of_the_weights():
            trainer = DPOTrainer(
                model,
                args=_arguments(job, around.folder),
                train_dataset=_dataset(data.train.rows),
                processing_class=tokenizer,
                peft_config=lora_config(job.settings.lora),
            )
    except ValueError as error:
        raise ConfigurationError(f"TRL or PEFT refuses the settings: {error}") from error
    if len(trainer.train_dataset) != len(data.train.pairs):
        raise TrainingError(f"TRL keeps {len(trainer.train_dataset)} of {len(data.train.pairs)} pairs that fit")
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Watcher(job.settings, around, data.held_out.pairs[:_PAIRS_A_LOOK]))
    checkpoint = _checkpoint(around.folder)
    around.stop.training_begins()
    trainer.train(resume_from_checkpoint=checkpoint)
    around.stop.training_ended()
    if around.parent.is_gone():
        raise Stopped
    return trainer


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """Return the rows as TRL takes them. As structs, arguments of one call would get the keys of the others."""
    if not has_calls(rows):
        return Dataset.from_list([dict(row) for row in rows])
    features = Features({name: List(Json()) for name in ("prompt", "chosen", "rejected")} | {"tools": Value("string")})
    return Dataset.from_list([{"tools": None, **row} for row in rows], features=features)


@contextmanager
def _no_hash_of_the_weights() -> Iterator[None]:
    """TRL looks for log-probabilities that an earlier run left of the same weights; the folder it looks in is new in
    each process, and the hash takes ten seconds for a billion weights."""
    theirs = getattr(dpo_trainer, _HASH, None)
    if theirs is not None:
        setattr(dpo_trainer, _HASH, lambda _: uuid4().hex)
    try:
        yield
    finally:
        if theirs is not None:
            setattr(dpo_trainer, _HASH, theirs)


def _checkpoint(folder: JobFolder) -> str | None:
    for name, reason in remove_damaged(folder.checkpoints).items():
        print(f"{name} is passed over and removed: {reason}")  # noqa: T201 - the worker's log
    found = newest_valid(folder.checkpoints)
    forget_metrics_after(folder, step_of(found) if found else 0)
    return str(found) if found else None


def _arguments(job: TrlJob, folder: JobFolder) -> DPOConfig:
    settings = job.settings
    return DPOConfig(
        output_dir=str(folder.checkpoints),
        loss_type=settings.loss_type,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        # Without it TRL loads the reference again from where the model once came from, which may not be this model.
        precompute_ref_log_probs=True,
        max_length=settings.max_length,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        bf16=settings.precision is Precision.BF16,
        fp16=settings.precision is Precision.FP16,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=settings.device is Device.CPU,
        dataloader_pin_memory=settings.device is Device.CUDA,
        seed=job.seed,
        logging_first_step=True,
        logging_steps=settings.log_every,
        # A loss that is no number must be seen as such.
        logging_nan_inf_filter=False,
        save_strategy="no" if settings.save_every is None else "steps",
        save_steps=settings.save_every or 0,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


class _Watcher(TrainerCallback):
    """Tells how far the training is, writes the learning curves, and ends it when asked to."""

    def __init__(self, settings: TrlSettings, around: Surroundings, held_out: Sequence[TokenizedPair]) -> None:
        self._settings = settings
        self._around = around
        self._held_out = held_out
        self._latest: dict[str, float] = {}
        self._saved_at = time.monotonic()

    def on_log(
        self, _args: Any, state: TrainerState, _control: TrainerControl, logs: Mapping[str, Any], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        # In fp16 a step whose gradients overflow is skipped, with a `grad_norm` that is no number.
        found = numbers(logs)
        self._latest |= found
        append_metrics(self._around.folder, state.global_step, found)
        check_loss(state.global_step, float(logs["loss"]), self._settings)

    def on_step_end(
        self, _args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        around, step = self._around, state.global_step
        around.reporter.step(step, state.max_steps, self._latest)
        if around.stop.is_requested or around.parent.is_gone():
            control.should_save = control.should_training_stop = True
            return
        if self._settings.save_every is None and is_due(time.monotonic() - self._saved_at, step, state.max_steps):
            control.should_save = True
        if self._held_out and step % self._pace(state.max_steps) == 0:
            self._look(model, step)

    def on_save(self, _args: Any, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        self._saved_at = time.monotonic()

    def _pace(self, steps: int) -> int:
        return self._settings.evaluate_every or max(1, steps // _LOOKS_AT_HELD_OUT)

    def _look(self, model: Any, step: int) -> None:
        found = preference(pair_scores(model, self._held_out, self._settings.precision))
        if found is not None:
            seen = {"eval_accuracy": found.accuracy, "eval_margin": found.margin}
            self._latest |= seen
            append_metrics(self._around.folder, step, seen)


def check_loss(step: int, loss: float, settings: TrlSettings) -> None:
    """Raise TrainingError for a loss that is no number, and for a first one that shows a wrong reference."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}: lower learning_rate ({settings.learning_rate:g}), or train in fp32"
        )
    if step != 1 or not LN2_LOSSES.issuperset(settings.loss_type):
        return
    expected = math.log(2) * len(settings.loss_type)
    allowed = _ROUNDING if settings.precision is Precision.FP32 else _ROUNDING_TO_16_BITS
    if abs(loss - expected) > allowed * len(settings.loss_type):
        raise TrainingError(
            f"the first loss is {loss:.4f} and not {expected:.4f} (ln 2): the reference is not the model that is "
            "trained, so what would be learned is not the preference"
        )


def _training_accuracy(log: Sequence[Mapping[str, Any]]) -> float | None:
    """Over the last quarter of what was logged, as one batch says little."""
    found = [float(entry["rewards/accuracies"]) for entry in log if "rewards/accuracies" in entry]
    return fmean(found[-max(1, len(found) // 4) :]) if found else None


def _chosen_longer(pairs: Sequence[TokenizedPair]) -> float:
    return share(len(pair.chosen) > len(pair.rejected) for pair in pairs)


def _write_result(
    job: TrlJob, folder: JobFolder, data: _Data, evidence: Evidence, found: Verdict, state: TrainerState
) -> None:
    train = data.train
    write_json(
        folder.result,
        {
            "sentence": found.sentence,
            "learned": found.learned,
            "figures": figures(evidence),
            "training": {
                "pairs": len(train.pairs),
                "dropped_for_length": train.dropped,
                "alike_within_max_length": train.alike,
                "cut_to_max_length": train.cut,
                "held_out_dropped_for_length": data.held_out.dropped + data.held_out.alike,
                "steps": state.global_step,
                "first_loss": next((entry["loss"] for entry in state.log_history if "loss" in entry), None),
            },
            "model": {"folder": folder.model.name, "kind": _kind(job.settings), "base": job.settings.model},
            "seed": job.seed,
            "settings": job.settings.to_json(),
            "ran_on": _ran_on(job.settings),
            "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        },
    )


def _ran_on(settings: TrlSettings) -> dict[str, object]:
    """The device, and the most memory that was taken of it."""
    name = device_name(settings.device)
    if settings.device is Device.CPU:
        return {"device": name}
    return {"device": name, "peak_memory_gib": round(torch.cuda.max_memory_reserved() / (1 << 30), 2)}


def _kind(settings: TrlSettings) -> str:
    if settings.lora is None:
        return "full"
    return "merged" if settings.lora.merge else "adapter"

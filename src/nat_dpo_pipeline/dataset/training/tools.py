"""Configurations of tools that train from files: TRL, LLaMA-Factory, Axolotl, NeMo-RL, NeMo Helix.

Paths in them are relative to the dataset's folder, where the commands run, so that the folder can be moved. What is
trained goes beside that folder, as a format's own folder is replaced with the next dataset. One GPU with bfloat16 is
assumed. Keys and commands are those of the files and versions that each function names.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from shlex import quote

import yaml

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.dataset.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """How to train on one format. `path` is relative to the dataset's folder, in which the shell runs `commands`;
    `needs` is what has to be there first."""

    format: str
    path: str
    text: str
    needs: str
    commands: tuple[str, ...]

    @property
    def in_short(self) -> str:
        """The command, or where several are."""
        first, *more = self.commands
        return f"the {len(self.commands)} commands in its README.md" if more else first


@dataclass(frozen=True, slots=True)
class _Files:
    """What to train on, and where the result goes; `validation` is None when it would have no rows."""

    train: WrittenFile
    validation: WrittenFile | None
    output: str


def training_file(name: str, settings: TrainingSettings, files: Mapping[SplitName, WrittenFile]) -> TrainingFile | None:
    """The configuration for the files of this format; None when there is no tool for it or no row to train on."""
    write, train, validation = _TOOLS.get(name), files[SplitName.TRAIN], files[SplitName.VALIDATION]
    if write is None or not train.rows:
        return None
    # Other data or settings are another training: NeMo-RL goes on with what it finds.
    key = blake2b(f"{settings} {train.sha256}".encode(), digest_size=4).hexdigest()
    return write(settings, _Files(train, validation if validation.rows else None, f"../trained/{name}-{key}"))


def trl(settings: TrainingSettings, files: _Files) -> TrainingFile:
    """TRL 1.16: `trl/scripts/dpo.py`, with ScriptArguments, DPOConfig and ModelConfig.

    `datasets` takes the sides of the split from the names of the files in the folder, of which it cannot read an empty
    one. bfloat16 and gradient checkpointing are TRL's defaults.
    """
    values: dict[str, object] = {"model_name_or_path": settings.model}
    if files.validation:
        values |= {"dataset_name": "./trl", "dataset_test_split": str(SplitName.VALIDATION)}
    else:
        values |= {"datasets": [{"path": "json", "data_files": files.train.path}]}
    values |= {
        "output_dir": files.output,
        "beta": settings.beta,
        "learning_rate": settings.rate(lora=settings.lora),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": settings.batch_size,
        "per_device_eval_batch_size": 1,
        "max_length": settings.max_length,
        "eval_strategy": "epoch" if files.validation else "no",
        "save_strategy": "epoch",
        "logging_steps": 1,
        "report_to": "none",
    }
    if settings.lora:
        values |= {
            "use_peft": True,
            "lora_r": settings.lora_rank,
            "lora_alpha": settings.lora_alpha,
            "lora_target_modules": ["all-linear"],
        }
    return _yaml_file("trl", values, "pip install 'trl[peft]'", "trl dpo --config trl/dpo.yaml")


def llama_factory(settings: TrainingSettings, files: _Files) -> TrainingFile:
    """LLaMA-Factory 0.9.5: `examples/train_lora/qwen3_lora_dpo.yaml` and `src/llamafactory/hparams/`.

    Without `template` it takes the chat template of the model's tokenizer.
    """
    values: dict[str, object] = {
        "model_name_or_path": settings.model,
        "stage": "dpo",
        "do_train": True,
        "finetuning_type": "lora" if settings.lora else "full",
        **({"lora_rank": settings.lora_rank, "lora_alpha": settings.lora_alpha} if settings.lora else {}),
        **({"lora_target": "all"} if settings.lora else {}),
        "pref_beta": settings.beta,
        "pref_loss": "sigmoid",
        "dataset_dir": "llama_factory",
        "dataset": "preferences_train",
        "cutoff_len": settings.max_length,
        "output_dir": files.output,
        "learning_rate": settings.rate(lora=settings.lora),
        "num_train_epochs": settings.epochs,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": settings.batch_size,
        "bf16": True,
        "save_strategy": "epoch",
        "logging_steps": 1,
        "plot_loss": True,
        "report_to": "none",
    }
    if files.validation:
        values |= {
            "eval_dataset": "preferences_validation",
            "eval_strategy": "epoch",
            "per_device_eval_batch_size": 1,
        }
    return _yaml_file(
        "llama_factory", values, "pip install llamafactory", "llamafactory-cli train llama_factory/dpo.yaml"
    )


def axolotl(settings: TrainingSettings, files: _Files) -> TrainingFile:
    """Axolotl 0.19: `docs/rlhf.qmd`, `examples/llama-3/instruct-dpo-lora-8b.yml`, `src/axolotl/utils/schemas/`.

    `evals_per_epoch: 1` would be skipped when there is one epoch.
    """
    values: dict[str, object] = {
        "base_model": settings.model,
        "chat_template": "tokenizer_default",
        "rl": "dpo",
        "rl_beta": settings.beta,
        "datasets": [_axolotl_dataset(files.train)],
        **({"test_datasets": [_axolotl_dataset(files.validation)]} if files.validation else {}),
        "val_set_size": 0.0,
        "dataset_prepared_path": f"{files.output}/prepared",
        "output_dir": files.output,
        "sequence_len": settings.max_length,
        "sample_packing": False,
        "num_epochs": settings.epochs,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": settings.batch_size,
        "learning_rate": settings.rate(lora=settings.lora),
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.1,
        "optimizer": "adamw_torch_fused",
        "bf16": "auto",
        "gradient_checkpointing": True,
        "attn_implementation": "sdpa",
        "logging_steps": 1,
        "save_strategy": "epoch",
        **({"eval_strategy": "epoch"} if files.validation else {}),
    }
    if settings.lora:
        values |= {
            "adapter": "lora",
            "lora_r": settings.lora_rank,
            "lora_alpha": settings.lora_alpha,
            "lora_target_linear": True,
        }
    return _yaml_file("axolotl", values, "pip install axolotl", "axolotl train axolotl/dpo.yaml")


def _axolotl_dataset(file: WrittenFile) -> dict[str, object]:
    return {
        "path": file.path,
        "ds_type": "json",
        "split": "train",
        "type": "chat_template.default",
        "field_messages": "messages",
        "field_chosen": "chosen",
        "field_rejected": "rejected",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles": {role: [role] for role in ("system", "user", "assistant", "tool")},
    }


def nemo_rl(settings: TrainingSettings, files: _Files) -> TrainingFile:
    """NeMo-RL 0.7: `examples/configs/dpo.yaml`, of which this replaces values, and `docs/guides/{dpo,lora}.md`.

    Its keys change with each release, so the file is taken from the checkout that trains. The workers run in that
    checkout: paths are made absolute. A file has one split, "train". LoRA needs the second DTensor worker, and the last
    batch of an epoch is dropped when it is not full.
    """
    batch = min(settings.batch_size, files.train.rows)
    steps = settings.epochs * (files.train.rows // batch)
    period = max(1, steps // 4)
    lora = {"enabled": True, "dim": settings.lora_rank, "alpha": settings.lora_alpha}
    values: dict[str, object] = {
        "defaults": "${oc.env:NEMO_RL}/examples/configs/dpo.yaml",
        "dpo": {
            "reference_policy_kl_penalty": settings.beta,
            "max_num_epochs": settings.epochs,
            "max_num_steps": steps,
            "val_period": period if files.validation else 0,
            "val_batches": 0,
            "val_at_start": files.validation is not None,
            "val_at_end": files.validation is not None,
        },
        "policy": {
            "model_name": settings.model,
            "tokenizer": {"name": settings.model},
            "train_global_batch_size": batch,
            "train_micro_batch_size": 1,
            "max_total_sequence_length": settings.max_length,
            "optimizer": {"kwargs": {"lr": settings.rate(lora=settings.lora)}},
            **({"dtensor_cfg": {"_v2": True, "lora_cfg": lora}} if settings.lora else {}),
        },
        "data": {
            "train": _nemo_rl_dataset(files.train),
            "validation": _nemo_rl_dataset(files.validation) if files.validation else None,
        },
        "checkpointing": {
            "checkpoint_dir": _absolute(files.output),
            "save_period": period,
            "metric_name": "val:validation-default_loss" if files.validation else None,
        },
        "logger": {"log_dir": f"{_absolute(files.output)}/logs"},
    }
    return _yaml_file(
        "nemo_rl",
        values,
        "NEMO_RL names a checkout: git clone --recursive https://github.com/NVIDIA-NeMo/RL",
        'DPO_DATASET="$PWD" uv run --directory "$NEMO_RL" examples/run_dpo.py --config "$PWD/nemo_rl/dpo.yaml"',
    )


def _nemo_rl_dataset(file: WrittenFile) -> dict[str, object]:
    return {"dataset_name": "PreferenceDataset", "data_path": _absolute(file.path), "split": "train"}


def _absolute(path: str) -> str:
    return f"${{oc.env:DPO_DATASET}}/{path}"


def helix(settings: TrainingSettings, files: _Files) -> TrainingFile:
    """NeMo Helix 0.5, back end `rl`: `RlJobInput` in plugins/nemo-rl and services/rl, and the commands of the skill
    `nemo-customizer` in NVIDIA-NeMo/nemo-helix.

    Helix trains all weights. It refuses an empty validation file and draws one itself where there is none.
    """
    data, model = f"preferences-{files.train.sha256[:8]}", _entity(settings.model)
    job = {
        "model": f"default/{model}",
        "dataset": f"default/{data}",
        "training": {
            "type": "dpo",
            "ref_policy_kl_penalty": settings.beta,
            "epochs": settings.epochs,
            "learning_rate": settings.rate(lora=False),
            "batch_size": min(settings.batch_size, files.train.rows),
            "micro_batch_size": 1,
            "max_seq_length": settings.max_length,
            "parallelism": {"num_nodes": 1, "num_gpus_per_node": 1},
        },
    }
    commands = (
        f"nemo files filesets create {data} --workspace default --purpose dataset --exist-ok",
        *(_helix_upload(file, data) for file in (files.train, files.validation) if file),
        *_helix_model(settings.model, model),
        "nemo customization rl submit helix/job.json --workspace default",
    )
    needs = "pip install 'nemo-helix[all,nemo-rl-plugin]', and a platform on Kubernetes (NHX_BASE_URL)"
    return TrainingFile("helix", "helix/job.json", json.dumps(job, indent=2) + "\n", needs, commands)


def _helix_upload(file: WrittenFile, fileset: str) -> str:
    return f"nemo files upload {file.path} {fileset} --workspace default --remote-path {Path(file.path).name}"


def _helix_model(model: str, name: str) -> Iterator[str]:
    create = f"nemo files filesets create {name} --workspace default --purpose model --exist-ok"
    if Path(model).is_absolute():
        yield create
        yield f"nemo files upload {quote(model.rstrip('/') + '/')} {name} --workspace default"
    else:
        storage = {"type": "huggingface", "repo_id": model, "repo_type": "model"}
        yield f"{create} --storage {quote(json.dumps(storage))}"
    entity = {"name": name, "fileset": f"default/{name}"}
    yield f"nemo models create {name} --workspace default --exist-ok --input-data {quote(json.dumps(entity))}"


def _entity(model: str) -> str:
    """The name that NVIDIA's tutorials give a model: `meta-llama/Llama-3.2-1B` is `llama-3-2-1b`."""
    return re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-") or "model"


def _yaml_file(name: str, values: Mapping[str, object], needs: str, command: str) -> TrainingFile:
    head = f"# {needs}\n# In the folder of the dataset, one above this file:\n#   {command}\n"
    text = head + yaml.safe_dump(dict(values), sort_keys=False, width=120)
    return TrainingFile(name, f"{name}/dpo.yaml", text, needs, (command,))


_TOOLS: Mapping[str, Callable[[TrainingSettings, _Files], TrainingFile]] = {
    "trl": trl,
    "llama_factory": llama_factory,
    "axolotl": axolotl,
    "nemo_rl": nemo_rl,
    "helix": helix,
}

"""Models and tokenizers in and out of folders, with transformers and PEFT."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from nat_dpo_pipeline.dataset.files import replaced_folder
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.trl.settings import Device, LoraSettings, Precision, TrlSettings

_NO_MEMORY = 2  # cudaErrorMemoryAllocation
_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def settled(settings: TrlSettings) -> TrlSettings:
    """The settings without `auto`. Raises ConfigurationError when device or precision are not to be had here."""
    has_gpu = torch.cuda.is_available()
    if settings.device is Device.CUDA and not has_gpu:
        raise ConfigurationError(
            "device is cuda, but torch sees no GPU: set it to cpu or auto, or mend the driver or CUDA_VISIBLE_DEVICES"
        )
    device = Device.CUDA if has_gpu and settings.device is not Device.CPU else Device.CPU
    if settings.precision is Precision.FP16 and device is Device.CPU:
        raise ConfigurationError("precision is fp16, but there is no GPU: a CPU trains in fp32 or bf16")
    return settings.model_copy(update={"device": device, "precision": _precision(settings.precision, device)})


def _precision(asked: Precision, device: Device) -> Precision:
    has_bf16 = device is Device.CPU or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked is Precision.BF16 and not has_bf16:
        raise ConfigurationError(f"precision is bf16, but {device_name(device)} has none: take fp16 or fp32")
    if asked is not Precision.AUTO:
        return asked
    return Precision.BF16 if device is Device.CUDA and has_bf16 else Precision.FP32


def device_name(device: Device) -> str:
    """What a person calls it."""
    return torch.cuda.get_device_name() if device is Device.CUDA else "the CPU"


def gpu_memory() -> tuple[str, int, int]:
    """The name of the GPU, its memory, and what other processes have of it, in bytes."""
    try:
        free, total = torch.cuda.mem_get_info()
    except torch.AcceleratorError:  # even to ask takes some
        free, total = 0, torch.cuda.get_device_properties().total_memory
    return torch.cuda.get_device_name(), total, total - free - torch.cuda.memory_reserved()


def is_lack_of_memory(error: Exception) -> bool:
    """Whether torch, or CUDA below it, was given no memory."""
    return isinstance(error, torch.OutOfMemoryError) or getattr(error, "error_code", None) == _NO_MEMORY


def load_tokenizer(name: str) -> Any:
    """Raises ConfigurationError."""
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(_not_loaded("tokenizer", name, error)) from error


def load_model(name: str, settings: TrlSettings) -> Any:
    """The model, its weights in 32 bits if they are to be trained. The settings are `settled`. Raises
    ConfigurationError."""
    dtype = torch.float32 if settings.lora is None else _DTYPES[settings.precision]
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(_not_loaded("model", name, error)) from error
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and settings.max_length > longest:
        raise ConfigurationError(f"max_length is {settings.max_length}, but the model has {longest} positions")
    return model.to(settings.device)


def lora_config(lora: LoraSettings | None) -> LoraConfig | None:
    """PEFT's form of the settings."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def save_model(model: Any, tokenizer: Any, folder: Path, lora: LoraSettings | None) -> None:
    """Write the trained model, or only its adapter, with the tokenizer; the folder appears when it is whole."""
    if lora is not None and lora.merge and isinstance(model, PeftModel):
        model = model.merge_and_unload()
    try:
        with replaced_folder(folder) as stage:
            model.save_pretrained(stage)
            tokenizer.save_pretrained(stage)
            # safetensors writes files that only their owner can read.
            mode = stage.stat().st_mode & 0o666
            for path in stage.iterdir():
                path.chmod(mode)
    except OSError as error:
        raise TrainingError(f"the model cannot be written to {str(folder)!r}: {error}") from error


def _not_loaded(what: str, name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the {what} of {name!r} cannot be loaded: {reason}"

"""What to say when the memory of a GPU runs out."""

from nat_dpo_pipeline.trainers.trl.settings import Device, Precision, TrlSettings

_GIB = 1 << 30
#: Less may be what this process itself has beside its tensors.
_TOLD_OF_OTHERS = 0.1
_BLAMED_ON_OTHERS = 0.5


def memory_ran_out(gpu: str, total: int, taken_by_others: int, settings: TrlSettings) -> str:
    """One line; the sizes are in bytes, and `settings` those without `auto`."""
    others = ""
    if taken_by_others > total * _TOLD_OF_OTHERS:
        others = f", of which other processes have {taken_by_others / _GIB:.1f} GiB"
    told = f"the memory of {gpu} ran out ({total / _GIB:.1f} GiB{others})"
    if taken_by_others > total * _BLAMED_ON_OTHERS:
        return f"{told}: end them, or name another GPU in CUDA_VISIBLE_DEVICES"
    *ways, last = _ways_to_need_less(settings)
    return f"{told}: try {', '.join(ways)}, or {last}"


def _ways_to_need_less(settings: TrlSettings) -> list[str]:
    """The first leave what is learned as it is."""
    ways = []
    if settings.batch_size > 1:
        fewer, more = settings.batch_size // 2, settings.gradient_accumulation * 2
        ways.append(f"batch_size {fewer} with gradient_accumulation {more}")
    if not settings.gradient_checkpointing:
        ways.append("gradient_checkpointing: true")
    if settings.precision is Precision.FP32 and settings.device is not Device.CPU:
        ways.append("precision: bf16")
    if settings.lora is None:
        ways.append("lora")
    return [*ways, f"a max_length below {settings.max_length}", "a smaller model"]

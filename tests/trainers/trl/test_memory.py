from pathlib import Path

from nat_dpo_pipeline.trainers.trl.memory import memory_ran_out
from nat_dpo_pipeline.trainers.trl.settings import Device, LoraSettings, Precision, TrlSettings

GIB = 1 << 30
CARD = "NVIDIA H200"


def _settings(**more: object) -> TrlSettings:
    given = {"device": Device.CUDA, "precision": Precision.BF16, **more}
    return TrlSettings(model="m", output_dir=Path(), **given)  # type: ignore[arg-type] # by name


def test_what_can_be_done_is_told_in_one_line() -> None:
    assert memory_ran_out(CARD, 80 * GIB, 0, _settings(precision=Precision.FP32)) == (
        "the memory of NVIDIA H200 ran out (80.0 GiB): try batch_size 2 with gradient_accumulation 2, "
        "gradient_checkpointing: true, precision: bf16, lora, a max_length below 1024, or a smaller model"
    )


def test_what_is_done_already_is_not_advised() -> None:
    settings = _settings(batch_size=1, gradient_checkpointing=True, lora=LoraSettings())
    assert memory_ran_out(CARD, 80 * GIB, GIB, settings) == (
        "the memory of NVIDIA H200 ran out (80.0 GiB): try a max_length below 1024, or a smaller model"
    )


def test_what_others_have_is_told() -> None:
    told = memory_ran_out(CARD, 80 * GIB, 20 * GIB, _settings())
    assert told.startswith("the memory of NVIDIA H200 ran out (80.0 GiB, of which other processes have 20.0 GiB): try ")
    assert memory_ran_out(CARD, 80 * GIB, 79 * GIB, _settings()) == (
        "the memory of NVIDIA H200 ran out (80.0 GiB, of which other processes have 79.0 GiB): end them, or name "
        "another GPU in CUDA_VISIBLE_DEVICES"
    )

"""The longest time that the event loop stood still, in milliseconds, while a training back end took a job of 20,000
pairs and was asked for its status. Servers run in threads of the same process; the local worker ends at once.

    python benchmarks/event_loop.py

Prints one JSON line.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.trainers.backend import Backend, TrainingData
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from nat_dpo_pipeline.trainers.nemo.settings import NeMoCustomizerHyperparameters, NemoSettings
from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend
from nat_dpo_pipeline.trainers.openai.settings import OpenAISettings
from nat_dpo_pipeline.trainers.trl.local import TrlBackend
from nat_dpo_pipeline.trainers.trl.settings import Device, TrlSettings

sys.path.append(str(Path(__file__).parents[1]))
from tests.servers.fine_tuning import KEY, FineTuningServer, serving
from tests.servers.nemo import CONFIG, serving_nemo

_TICK = 0.001


def make_data(pairs: int) -> TrainingData:
    rows = [PreferenceRow(f"Why is {n} so?", f"Because of {n}. " * 60, f"No idea, {n}. " * 60) for n in range(pairs)]
    held_out = pairs // 10
    return TrainingData("run", {SplitName.TRAIN: rows[held_out:], SplitName.VALIDATION: rows[:held_out]})


async def longest_gap(work: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds between two turns of a task that only sleeps, at most."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        before = time.perf_counter()
        while True:
            await asyncio.sleep(_TICK)
            now = time.perf_counter()
            longest, before = max(longest, now - before - _TICK), now

    ticking = asyncio.create_task(tick())
    await work()
    ticking.cancel()
    return round(1000 * longest, 1)


async def trained_with(backend: Backend, data: TrainingData, *, check: bool = True) -> float:
    async def work() -> None:
        if check:
            await backend.check()
        job = await backend.submit(data)
        for _ in range(10):
            await backend.status(job)
            await asyncio.sleep(0.02)

    return await longest_gap(work)


async def measured(pairs: int, folder: Path) -> dict[str, float]:
    data = make_data(pairs)
    found = {}
    with serving(FineTuningServer()) as server:
        settings = OpenAISettings(model=server.models[0], base_url=server.url, api_key=KEY)
        found["openai"] = await trained_with(OpenAIBackend(settings), data)
    with serving_nemo() as nemo:
        service = NemoSettings(
            entity_host=nemo.url,
            datastore_host=nemo.url,
            namespace="ns",
            customization_config=CONFIG,
            hyperparameters=NeMoCustomizerHyperparameters(finetuning_type="lora"),
        )
        found["nemo"] = await trained_with(NemoCustomizerBackend(service), data)
    local = TrlSettings(model="tiny", output_dir=folder, device=Device.CPU)
    found["trl"] = await trained_with(TrlBackend(local, worker=(sys.executable, "-c", "")), data, check=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        gaps = asyncio.run(measured(given.pairs, Path(name)))
    result = {"benchmark": "event_loop", "python": platform.python_version(), "pairs": given.pairs}
    print(json.dumps({**result, "longest_gap_ms": gaps}))


if __name__ == "__main__":
    main()

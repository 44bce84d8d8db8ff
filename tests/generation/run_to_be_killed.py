"""A run over a server and into a folder, as a process that a test can kill: URL FOLDER."""

import asyncio
import sys
from contextlib import aclosing, closing
from pathlib import Path

from nat_dpo_pipeline.dataset.run_files import JOURNAL
from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode

LIMITS = Limits(max_concurrency=2, first_pause_seconds=0.01, max_retries=20)
SETTINGS = RecipeSettings(n_subtopics=5, n_questions=4, n_responses=4, responses=ResponseMode.INDEPENDENT, seed=3)


async def _run(url: str, path: Path) -> None:
    with closing(Journal(path / JOURNAL)) as journal, RunFolder(path) as folder:
        opened = [
            OpenAIChatModel(ModelSettings(name, f"demo/stdlib-{name}", url, "no-key", timeout_seconds=1.0))
            for name in ("writer", "reward")
        ]
        writer, reward = (_limited(chat, journal) for chat in opened)
        recipe = PreferenceRecipe(writer, [writer], RewardModelScorer(reward, {"helpfulness": 1.0}), SETTINGS)
        record = GenerationRecord()
        async with aclosing(recipe.run((Request(topic="Data structures", example_id="one"),), record)) as items:
            async for item in items:
                folder.add(item, "one")
        for chat in opened:
            await chat.aclose()
        assert not record.failures, record.failures
        folder.write_candidates()
        folder.write_manifest(record, status="complete", configuration={})


def _limited(chat: OpenAIChatModel, journal: Journal) -> ChatModel:
    recorded = RecordedModel(chat, journal, chat.identity)
    return ReplayedModel(LimitedModel(recorded, LIMITS, chat.served), journal, chat.identity)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], Path(sys.argv[2])))

"""The work as `nat dpo generate` does it: with limits, the journal, the record and the spool of turns."""

import asyncio
from contextlib import closing
from pathlib import Path

from work import Work, timed

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.turn_rows import TurnSpool
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.judges import RatingJudge
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode
from nat_dpo_pipeline.generation.together import SampledTogether


async def _generated(work: Work) -> int:
    model = OpenAIChatModel(ModelSettings("bench", work.model, work.url, "no-key"))
    # With a seed each response is a request of its own.
    seed = None if work.together else 0
    settings = RecipeSettings(n_responses=work.responses, responses=ResponseMode.INDEPENDENT, seed=seed)
    record = GenerationRecord()
    folder = Path(work.folder)
    with closing(Journal(folder / "journal.sqlite")) as journal, closing(TurnSpool(folder / "turns")) as spool:
        recorded = RecordedModel(model, journal, model.identity)
        limited = LimitedModel(recorded, Limits(max_concurrency=work.concurrency))
        together = SampledTogether(limited, model.may_be_one_request)
        asked = ReplayedModel(together, journal, model.identity)
        recipe = PreferenceRecipe(asked, [asked], RatingJudge(asked), settings, workers=2 * work.concurrency)
        requests = [
            Request(messages=(Message("user", question),), example_id=str(number))
            for number, question in enumerate(work.questions)
        ]
        async for item in recipe.run(requests, record):
            spool.add(item.path, item.value, item.root.value.example_id)
        (folder / "candidates.jsonl").write_bytes(b"".join(spool.rows(to_pair=True)))
    await model.aclose()
    return record.counts["candidates"]


if __name__ == "__main__":
    timed(lambda work: asyncio.run(_generated(work)))

import asyncio
from contextvars import Context

from nat_dpo_pipeline.generation.chat import counting_late


def test_a_task_that_was_abandoned_can_be_closed_from_another_context() -> None:
    async def waits() -> None:
        with counting_late(lambda _: None):
            await asyncio.sleep(0)

    abandoned = waits()
    Context().run(abandoned.send, None)
    abandoned.close()

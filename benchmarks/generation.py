"""Generation against a server on this machine: one JSON line of ratios, each measured side by side in this run.

    python benchmarks/generation.py [--rounds 3] [--only flow|client|memory|refused|peers]

flow        1 + 10 + 50 + 250 + 250 + 750 calls (10 subtopics × 5 questions, a rubric for each, × 5 responses, a
            critique of each, × 3 scores) of lognormal latency, median 100 ms, sigma 1.0: our pipeline against the same
            calls with a barrier after each step, a greedy list schedule of the same latencies, and the lower bound (the
            larger of critical path and work / concurrency). Latencies depend on the call and the round only.
client      Requests a second: our pipeline against a bare loop over the openai SDK's client with a semaphore.
memory      Peak memory at 1,000 and at 20,000 questions, each in a process of its own.
refused     60 questions, with and without one more that is refused for its size (429, "Request too large"): the time of
            the 60.
peers       200 questions x 4 responses and a rating of each, beside NVIDIA NeMo Data Designer and distilabel, each in
            an environment of its own and skipped where that cannot be installed. See `peers/compare.py`.
"""

import argparse
import asyncio
import heapq
import json
import math
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from peers import compare

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import Combination
from nat_dpo_pipeline.dataset.turn_rows import TurnSpool
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.inputs import Request as Topic
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply, read_reply
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode, Sampling
from nat_dpo_pipeline.generation.steps import Item, Map, Pipeline
from nat_dpo_pipeline.generation.turns import Question
from nat_dpo_pipeline.generation.turns import Response as Drafted
from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response

SUBTOPICS, QUESTIONS, RESPONSES, SCORES = 10, 5, 5, 3
MEDIAN, SIGMA = 0.1, 1.0
TOO_LARGE = b"a whole book"
_ASKED = re.compile(r"question(\d+)x(\d+)")
_SUBTOPIC = re.compile(r"topic is: part(\d+)")


# What the server answers, and how long it takes: both follow from what a call is about.


def identity(messages: list[dict[str, str]], seed: int | None) -> str:
    """Which call of the graph this is: `s`, `q3`, `x3.1`, `r3.1.4`, `c3.1.4` or `w3.1.4.2`."""
    first, last = messages[0]["content"], messages[-1]["content"]
    if asked := _ASKED.search(first):
        place = f"{asked[1]}.{asked[2]}"
        if messages[-1]["role"] == "assistant":
            return f"w{place}.{last.rsplit(' ', 1)[1]}.{first.rsplit('/member', 1)[1]}"
        if first.startswith("CRITIQUE"):
            return f"c{place}.{first.rsplit(' ', 1)[1]}"
        return f"x{place}" if first.startswith("RUBRIC") else f"r{place}.{seed}"
    subtopic = _SUBTOPIC.search(first)
    return f"q{subtopic[1]}" if subtopic else "s"


def text_of(name: str) -> str:
    kind, *_ = name
    if kind == "s":
        return ", ".join(f"part{number}" for number in range(SUBTOPICS))
    if kind == "q":
        return "\n".join(f"What about question{name[1:]}x{number}?" for number in range(QUESTIONS))
    if kind == "w":
        return f"{random.Random(name).uniform(-3, 3):.4f}"
    return f"an answer of some length to {name} " + name.rsplit(".", 1)[-1]


def latency_of(name: str, draw: int) -> float:
    return MEDIAN * math.exp(random.Random(f"{draw}:{name}").gauss(0.0, SIGMA))


def _named(request: Request) -> str:
    body = request.json
    return identity(body["messages"], body.get("seed"))


def _answer(request: Request) -> Response:
    if TOO_LARGE in request.content:
        message = "Request too large on tokens per min (TPM): Limit 30000, Requested 45000."
        return Response(429, {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}})
    return Response(body=_completion(text_of(_named(request))))


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "loopback",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
    }


def _seconds(request: Request) -> float:
    # The model's name says which round it is, or that every call takes as long as it says.
    kind, _, value = request.json["model"].partition("-")
    return latency_of(_named(request), int(value)) if kind == "draw" else float(value)


async def _serve() -> None:
    async with LoopbackServer(_answer, latency=_seconds) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def server_process() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def openai_model(url: str, name: str) -> OpenAIChatModel:
    return OpenAIChatModel(ModelSettings("bench", name, url, "no-key", timeout_seconds=60.0))


def limited(model: ChatModel, concurrency: int) -> LimitedModel:
    return LimitedModel(model, Limits(max_concurrency=concurrency))


# The flow of the recipe.


class MoreSteps:
    """Steps of the user's: one more call for each question, and one for each response."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    async def rubric(self, item: Item[Question]) -> Question:
        await self._model.complete(Call((Message("user", f"RUBRIC for {item.value.text}"),)))
        return item.value

    async def critique(self, item: Item[Drafted]) -> Drafted:
        drafted = item.value
        content = f"CRITIQUE {drafted.question.text} {drafted.index}"
        await self._model.complete(Call((Message("user", content),)))
        return drafted

    def added(self, pipeline: Pipeline) -> Pipeline:
        return pipeline.after("questions", Map(self.rubric)).after("responses", Map(self.critique))


def recipe(model: ChatModel, concurrency: int) -> PreferenceRecipe:
    members = {f"m{number}": RewardModelScorer(model, {}, f"/member{number}") for number in range(SCORES)}
    return PreferenceRecipe(
        writer=model,
        responders=[model],
        scorer=EnsembleScorer(members, Combination.MEAN),
        settings=RecipeSettings(
            n_subtopics=SUBTOPICS,
            n_questions=QUESTIONS,
            n_responses=RESPONSES,
            responses=ResponseMode.INDEPENDENT,
            seed=0,
        ),
        adapt=MoreSteps(model).added,
        workers=2 * concurrency,
    )


@dataclass(frozen=True)
class Walled:
    wall: float
    first: float


async def ours(model: ChatModel, concurrency: int) -> Walled:
    record = GenerationRecord()
    started = time.perf_counter()
    first = 0.0
    async for _ in recipe(model, concurrency).run((Topic(topic="Everything"),), record):
        first = first or time.perf_counter() - started
    assert record.counts["candidates"] == SUBTOPICS * QUESTIONS * RESPONSES, record.summary()
    return Walled(time.perf_counter() - started, first)


async def with_barriers(model: ChatModel) -> float:
    """The same calls, each step begun when the one before it has ended."""

    async def ask(*contents: str, seed: int | None = None) -> str:
        roles = ("user", "assistant")
        messages = tuple(Message(role, content) for role, content in zip(roles, contents, strict=False))
        return (await model.complete(Call(messages, Sampling(seed=seed)))).text

    def questions(subtopic: str) -> Awaitable[str]:
        return ask(prompts.load("questions").render(sub_topic=subtopic, n_questions=QUESTIONS))

    started = time.perf_counter()
    subtopics = await ask(prompts.load("subtopics").render(topic="Everything", n_subtopics=SUBTOPICS))
    lists = await asyncio.gather(*map(questions, subtopics.split(", ")))
    asked = [question for text in lists for question in text.splitlines()]
    await asyncio.gather(*(ask(f"RUBRIC for {question}") for question in asked))
    pairs = [(question, seed) for question in asked for seed in range(RESPONSES)]
    answers = await asyncio.gather(*(ask(question, seed=seed) for question, seed in pairs))
    await asyncio.gather(*(ask(f"CRITIQUE {question} {seed}") for question, seed in pairs))
    await asyncio.gather(
        *(
            ask(f"{question} /member{member}", answer)
            for (question, _), answer in zip(pairs, answers, strict=True)
            for member in range(SCORES)
        )
    )
    return time.perf_counter() - started


def following(name: str) -> list[str]:
    """The calls that can be made when this one is answered."""
    kind, place = name[0], name[1:]
    if kind == "s":
        return [f"q{number}" for number in range(SUBTOPICS)]
    if kind == "q":
        return [f"x{place}.{number}" for number in range(QUESTIONS)]
    if kind == "x":
        return [f"r{place}.{number}" for number in range(RESPONSES)]
    if kind == "r":
        return [f"c{place}"]
    return [f"w{place}.{number}" for number in range(SCORES)] if kind == "c" else []


def lower_bound(draw: int, concurrency: int) -> float:
    work = 0.0

    def longest(name: str) -> float:
        nonlocal work
        seconds = latency_of(name, draw)
        work += seconds
        return seconds + max(map(longest, following(name)), default=0.0)

    critical = longest("s")
    return max(critical, work / concurrency)


def greedy(draw: int, concurrency: int) -> float:
    """How long a list schedule takes that starts whatever is ready first, first."""
    ready, running, now = deque(["s"]), list[tuple[float, str]](), 0.0
    while ready or running:
        while ready and len(running) < concurrency:
            name = ready.popleft()
            heapq.heappush(running, (now + latency_of(name, draw), name))
        now, ended = heapq.heappop(running)
        ready.extend(following(ended))
    return now


async def flow(url: str, draws: int) -> dict[str, object]:
    results: dict[int, list[dict[str, float]]] = {64: [], 256: []}
    for draw in range(draws):
        for concurrency, rows in results.items():
            model = openai_model(url, f"draw-{draw}")
            barrier = await with_barriers(limited(model, concurrency))
            streamed = await ours(limited(model, concurrency), concurrency)
            await model.aclose()
            rows.append(
                {
                    "wall_over_lower_bound": streamed.wall / lower_bound(draw, concurrency),
                    "wall_over_greedy_schedule": streamed.wall / greedy(draw, concurrency),
                    "barrier_over_wall": barrier / streamed.wall,
                    "first_turn_over_barrier": streamed.first / barrier,
                    "wall_seconds": streamed.wall,
                }
            )
    return {f"concurrency_{concurrency}": _medians(rows) for concurrency, rows in results.items()}


def _medians(rows: list[dict[str, float]]) -> dict[str, object]:
    return {
        name: {
            "median": round(statistics.median(row[name] for row in rows), 3),
            "all": [round(row[name], 3) for row in rows],
        }
        for name in rows[0]
    }


# The client.


async def client(url: str, rounds: int, calls: int = 3000, concurrency: int = 256) -> dict[str, object]:
    rates: list[dict[str, float]] = []
    for _ in range(rounds):
        bare = await _bare(url, calls, concurrency)
        plain = await _through_pipeline(url, calls, concurrency, None)
        with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder) / "journal")) as journal:
            journalled = await _through_pipeline(url, calls, concurrency, journal)
        rates.append(
            {"ours_over_bare": plain / bare, "ours_with_journal_over_bare": journalled / bare, "bare_per_second": bare}
        )
    return _medians(rates)


def _question(number: int) -> str:
    return f"What about question{number}x0?"


async def _bare(url: str, calls: int, concurrency: int) -> float:
    slots = asyncio.Semaphore(concurrency)
    async with openai.AsyncOpenAI(
        base_url=url, api_key="no-key", max_retries=0, http_client=openai.DefaultAioHttpClient()
    ) as sdk:

        async def one(number: int) -> str | None:
            async with slots:
                reply = await sdk.chat.completions.create(
                    model="fixed-0.2", messages=[{"role": "user", "content": _question(number)}], seed=0
                )
                return reply.choices[0].message.content

        started = time.perf_counter()
        await asyncio.gather(*map(one, range(calls)))
        return calls / (time.perf_counter() - started)


async def _through_pipeline(url: str, calls: int, concurrency: int, journal: Journal | None) -> float:
    model = openai_model(url, "fixed-0.2")
    asked: ChatModel = limited(model, concurrency)
    if journal is not None:
        recorded = RecordedModel(model, journal, model.identity)
        asked = ReplayedModel(limited(recorded, concurrency), journal, model.identity)

    async def answered(item: Item[int]) -> str:
        return (await asked.complete(Call((Message("user", _question(item.value)),), Sampling(seed=0)))).text

    pipeline = Pipeline((Map(answered),))
    started = time.perf_counter()
    async for _ in pipeline.run(range(calls), workers=2 * concurrency):
        pass
    rate = calls / (time.perf_counter() - started)
    await model.aclose()
    return rate


# Memory.


class InProcess:
    """Answers at once; what is measured is what a run holds."""

    name = "in-process"

    async def complete(self, call: Call) -> ChatReply:
        await asyncio.sleep(0)
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        if (asked := _SUBTOPIC.search(call.messages[0].content)) and "questions" in call.messages[0].content:
            text = "\n".join(f"What about question{asked[1]}x{number}?" for number in range(50))
        elif not _ASKED.search(call.messages[0].content):
            text = ", ".join(f"part{number}" for number in range(1000))
        elif call.messages[-1].role == "assistant":
            text = f"{random.Random(call.messages[-1].content).uniform(-3, 3):.4f}"
        else:
            text = f"{messages[-1]['content']} {call.sample} " + "An answer of about a thousand characters. " * 25
        return read_reply(_completion(text), self.name)


async def _memory(questions: int) -> None:
    model = limited(InProcess(), 64)
    settings = RecipeSettings(
        n_subtopics=questions // 50, n_questions=50, n_responses=4, responses=ResponseMode.INDEPENDENT, seed=0
    )
    one = PreferenceRecipe(model, [model], RewardModelScorer(model, {}), settings, workers=128)
    record = GenerationRecord()
    with tempfile.TemporaryDirectory() as folder, closing(TurnSpool(Path(folder) / "turns")) as spool:
        async for item in one.run((Topic(topic="Everything"),), record):
            spool.add(item.path, item.value, "one")
        found = sum(1 for _ in spool.rows(to_pair=True))
    assert found == questions, (found, record.summary())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def memory() -> dict[str, float]:
    peaks = {}
    for questions in (1_000, 20_000):
        command = [sys.executable, "-W", "ignore", __file__, "--memory", str(questions)]
        peaks[questions] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
    return {
        "peak_mib_1000": round(peaks[1_000], 1),
        "peak_mib_20000": round(peaks[20_000], 1),
        "ratio": round(peaks[20_000] / peaks[1_000], 3),
    }


# One that is refused for its size.


async def refused(url: str, rounds: int) -> dict[str, object]:
    rows = []
    for _ in range(rounds):
        alone = await _sixty(url, ())
        beside = await _sixty(url, (TOO_LARGE.decode(),))
        rows.append({"with_a_refused_one_over_without": beside / alone, "without_seconds": alone})
    return _medians(rows)


async def _sixty(url: str, more: Sequence[str], concurrency: int = 4) -> float:
    model = openai_model(url, "fixed-0.1")
    asked = limited(model, concurrency)

    def call(question: str) -> "asyncio.Task[ChatReply]":
        return asyncio.create_task(asked.complete(Call((Message("user", question),), Sampling(seed=0))))

    started = time.perf_counter()
    first = [call(_question(number)) for number in range(10)]
    others = [call(question) for question in more]
    await asyncio.gather(*first, *(call(_question(number)) for number in range(10, 60)))
    seconds = time.perf_counter() - started
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await model.aclose()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("flow", "client", "memory", "refused", "peers"))
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--memory", type=int)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve())
    elif options.memory:
        asyncio.run(_memory(options.memory))
    else:
        measure(options.rounds, options.only)


def measure(rounds: int, only: str | None) -> None:
    with server_process() as url:
        parts: dict[str, Callable[[], object]] = {
            "flow": lambda: asyncio.run(flow(url, rounds)),
            "client": lambda: asyncio.run(client(url, rounds)),
            "memory": memory,
            "refused": lambda: asyncio.run(refused(url, rounds)),
            "peers": lambda: compare.measure(rounds),
        }
        results = {name: part() for name, part in parts.items() if only in (None, name)}
    print(json.dumps({"benchmark": "generation", "rounds": rounds, **results}))


if __name__ == "__main__":
    main()

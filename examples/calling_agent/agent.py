"""A small agent that calls tools: it records rollouts, and plays with the model that was trained on them.

python examples/calling_agent/agent.py record runs/calling_agent/rollouts.jsonl
python examples/calling_agent/agent.py play runs/calling_agent/training/*
"""

import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

CITIES = ("Oslo", "Lima", "Rome", "Cairo", "Delhi", "Quito", "Tunis", "Hanoi", "Perth", "Lagos", "Paris", "Seoul")
WARMTH = {city: 3 * place - 9 for place, city in enumerate(CITIES)}
HOURS = {city: (7 * place + 2) % 24 for place, city in enumerate(CITIES)}
PEOPLE = {city: 4 + 5 * place for place, city in enumerate(CITIES)}
QUESTIONS = {
    "weather": ("How warm is it in {}?", "Do I need a coat in {}?", "What does the thermometer say in {}?"),
    "clock": ("What time is it in {}?", "Is it late in {} now?", "Can I call somebody in {} now?"),
    "people": ("How many people live in {}?", "Is {} a large city?", "How large is {}?"),
}
ROLLOUTS_A_TASK = 8
HELD_OUT = 5  # every so many tasks


def weather(city: str) -> str:
    """Degrees in a city."""
    return f"{WARMTH[city]} degrees"


def clock(city: str) -> str:
    """Hour of the day in a city."""
    return f"{HOURS[city]} o'clock"


def people(city: str) -> str:
    """Million people in a city."""
    return f"{PEOPLE[city]} million"


FUNCTIONS: Mapping[str, Callable[[str], str]] = {one.__name__: one for one in (weather, clock, people)}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in FUNCTIONS]
Message = dict[str, Any]


class Task(NamedTuple):
    """A question, and the call whose result answers it."""

    question: str
    tool: str
    city: str

    def outcome(self, answer: str) -> float:
        """Return 1 for the true answer: the task is verifiable."""
        return float(answer.strip() == FUNCTIONS[self.tool](self.city))


def tasks() -> tuple[list[Task], list[Task]]:
    """Return the tasks to learn from, and those that are held out."""
    found = [
        Task(question.format(city), tool, city)
        for tool, city in product(QUESTIONS, CITIES)
        for question in QUESTIONS[tool]
    ]
    random.Random(0).shuffle(found)
    held_out = found[::HELD_OUT]
    return [task for task in found if task not in held_out], held_out


def result_of(name: str, arguments: Mapping[str, Any]) -> Message:
    """Call a function for real, and return the message with what it gave; what went wrong is a result, too."""
    try:
        content = FUNCTIONS[name](**arguments)
    except (KeyError, TypeError) as error:
        content = f"error: {error}"
    return {"role": "tool", "tool_call_id": "call00001", "name": name, "content": content}


def called(name: str, **arguments: object) -> Message:
    """Return a message of the assistant that calls a tool."""
    call = {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def careless_rollout(task: Task, chance: random.Random) -> list[Message]:
    """Return what an agent does that often takes the wrong tool or another city; what the tool gives is its answer."""
    tool = task.tool if chance.random() < 0.5 else chance.choice([name for name in FUNCTIONS if name != task.tool])
    city = task.city if chance.random() < 0.8 else chance.choice(CITIES)
    return [called(tool, city=city), result_of(tool, {"city": city})]


def record(path: Path) -> None:
    """Write several rollouts of each task, with their outcomes."""
    chance = random.Random(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for number, task in enumerate(tasks()[0]):
            for _ in range(ROLLOUTS_A_TASK):
                messages = careless_rollout(task, chance)
                row = {"example_id": f"task-{number}", "prompt": task.question, "tools": TOOLS, "response": messages}
                file.write(json.dumps({**row, "reward": task.outcome(messages[-1]["content"])}) + "\n")


def play(model: Any, tokenizer: Any, task: Task) -> float:
    """Let a model call a tool, greedily, and return the outcome of what the tool gave."""
    messages = [{"role": "user", "content": task.question}]
    ids = tokenizer.apply_chat_template(
        messages, tools=TOOLS, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    made = model.generate(**ids, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    reply = tokenizer.decode(made[0, ids["input_ids"].shape[1] :])
    call = re.search(r"<tool_call>\s*(\w+)\s*(\{.*?\})\s*</tool_call>", reply, re.DOTALL)
    try:
        return task.outcome(result_of(call[1], json.loads(call[2]))["content"]) if call else 0.0
    except ValueError:
        return 0.0


def success(folder: Path) -> Iterator[float]:
    """Yield the outcome of each held-out task."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model.eval()
    return (play(model, tokenizer, task) for task in tasks()[1])


def compare(job: Path) -> None:
    """Print the success of the model before and after its training, and how likely chance would do as well."""
    before, after = list(success(job / "tiny_model")), list(success(job / "model"))
    better = sum(new > old for old, new in zip(before, after, strict=True))
    worse = sum(new < old for old, new in zip(before, after, strict=True))
    changed = better + worse
    chance = sum(comb(changed, more) for more in range(better, changed + 1)) / 2**changed
    print(
        f"success on {len(before)} held-out tasks: {sum(before) / len(before):.2f} before, "
        f"{sum(after) / len(after):.2f} after; {better} better, {worse} worse (sign test: {chance:.2g})"
    )


if __name__ == "__main__":
    command, path = sys.argv[1:3]
    record(Path(path)) if command == "record" else compare(Path(path))

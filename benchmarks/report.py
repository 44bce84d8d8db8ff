"""The report of 50,000 pairs: how long it takes to write, and to open in headless Chromium until pairs can be searched.

    python benchmarks/report.py

Needs chromium and chromedriver (Debian: chromium, chromium-driver). Prints one JSON line.
"""

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

_ANSWER = "The answer to this has some words more than a line of text would hold, as they tend to have. " * 4
_CANDIDATES = 8
_PAIRS_A_TURN = _CANDIDATES * (_CANDIDATES - 1) // 2
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900")


def make_run(folder: Path, turns: int) -> None:
    """A run folder as `nat dpo generate` leaves it."""
    with (folder / "candidates.jsonl").open("w") as file:
        for turn in range(turns):
            candidates = [
                {"candidate_index": n, "response": f"{_ANSWER}{n} {turn}", "score": float(n), "llm": f"m{n % 3}"}
                for n in range(_CANDIDATES)
            ]
            prompt = [{"role": "user", "content": f"Question {turn}?"}]
            ids = {"id": f"text/question-{turn}", "example_id": "text", "turn_id": f"question-{turn}"}
            file.write(json.dumps({**ids, "subtopic": "Letters", "prompt": prompt, "candidates": candidates}) + "\n")
    facts = {"generator": "nat-dpo-pipeline", "status": "complete", "skipped": {}, "spending": [], "cost": None}
    (folder / "manifest.json").write_text(json.dumps(facts))


def seconds_to_write(folder: Path) -> float:
    from nat_dpo_pipeline.pairing.runs import paired_run
    from nat_dpo_pipeline.report.run import read_facts
    from nat_dpo_pipeline.report.writing import examine, write_report

    started = time.perf_counter()
    turns = paired_run(folder)
    numbers, dangers = examine(folder, read_facts(folder), turns)
    write_report(folder / "report.html", numbers, dangers, turns)
    return time.perf_counter() - started


def seconds_to_open(page: Path, rounds: int) -> list[float]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in _FLAGS:
        options.add_argument(flag)
    taken = []
    with Chrome(options=options, service=Service(shutil.which("chromedriver"))) as browser:
        for _ in range(rounds):
            started = time.perf_counter()
            browser.get(page.as_uri())
            WebDriverWait(browser, 60, poll_frequency=0.02).until(
                lambda one: one.execute_script("return document.documentElement.dataset.ready")
            )
            taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    result: dict[str, object] = {"benchmark": "report", "python": platform.python_version(), "pairs": given.pairs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_run(folder, given.pairs // _PAIRS_A_TURN)
        result["write_s"] = round(seconds_to_write(folder), 2)
        result["mb"] = round((folder / "report.html").stat().st_size / 1e6, 1)
        if shutil.which("chromium") and shutil.which("chromedriver") and find_spec("selenium"):
            taken = seconds_to_open(folder / "report.html", given.rounds)
            result |= {"open_s": round(statistics.median(taken), 2), "opens": [round(one, 2) for one in taken]}
        else:
            result["open_s"] = "skipped: chromium, chromedriver or selenium is not installed"
    print(json.dumps(result))


if __name__ == "__main__":
    main()

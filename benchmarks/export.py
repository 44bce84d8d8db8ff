"""Writing JSONL: this package against `"\\n".join(json.dumps(row) for row in rows)` and one write, for the same rows.

What is compared with gets its rows ready made as dictionaries, and neither hashes nor syncs; ours makes them of
`PreferenceRow`s, hashes what it writes, syncs it, and writes manifest and card. The two take turns; the ratio is the
median of the rounds' ratios. Also: the same rows without repeated texts, all formats at once, and the peak memory of a
run of ten times the rows.

    python benchmarks/export.py

Prints one JSON line.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName, trl_row
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

_PROMPT, _RESPONSE = "p" * 500, "r" * 1500
_ATTRIBUTES = dict.fromkeys(("helpfulness", "correctness", "coherence", "complexity", "verbosity"), 2.0)


def make_rows(turns: int, candidates: int) -> Iterator[PreferenceRow]:
    """The pairs of exhaustive pairing; the texts of a turn are the same objects in all its pairs, as pairing has it."""
    for turn in range(turns):
        prompt = f"{turn} {_PROMPT}"
        texts = [f"{turn}-{index} {_RESPONSE}" for index in range(candidates)]
        for better, worse in combinations(range(candidates), 2):
            yield PreferenceRow(
                prompt,
                texts[better],
                texts[worse],
                float(candidates - better),
                float(candidates - worse),
                f"example-{turn // 10}",
                f"turn-{turn}",
                _ATTRIBUTES,
                _ATTRIBUTES,
                "writer",
                "writer",
                "subtopic",
            )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compared(folder: Path, rows: list[PreferenceRow], rounds: int) -> dict[str, object]:
    """Both on the same rows, in turns."""
    dicts = [trl_row(row) for row in rows]

    def joined() -> None:
        with (folder / "joined.jsonl").open("w", encoding="utf-8") as file:
            file.write("\n".join(json.dumps(row) for row in dicts))

    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(seconds(joined))
        ours.append(seconds(lambda: write(folder / "ours", rows)))
    ratios = sorted(one / other for one, other in zip(theirs, ours, strict=True))
    return {
        "rows": len(rows),
        "mb": round((folder / "joined.jsonl").stat().st_size / 1e6),
        "joined_s": round(statistics.median(theirs), 3),
        "ours_s": round(statistics.median(ours), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def write(folder: Path, rows: list[PreferenceRow] | Iterator[PreferenceRow], *formats: str) -> None:
    write_dataset(folder, {SplitName.TRAIN: rows}, Provenance(0, {}, {}), Target(formats or ("trl",)))


def peak(folder: Path, turns: int) -> float:
    """Mebibytes above the start, at the peak, of rows that are made while they are written."""
    tracemalloc.start()
    write(folder / f"peak-{turns}", make_rows(turns, 8))
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(highest / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exhaustive = list(make_rows(given.turns, 8))
        names = [one.name for one in FORMATS]
        result = {
            "benchmark": "export",
            "python": platform.python_version(),
            "exhaustive_of_8": compared(folder, exhaustive, given.rounds),
            "best_vs_worst": compared(folder, list(make_rows(given.turns * 10, 2)), given.rounds),
            "all_formats_s": round(seconds(lambda: write(folder / "all", exhaustive, *names)), 2),
            "formats": len(names),
            "peak_mib": {f"{count}_turns": peak(folder, count) for count in (given.turns // 10, given.turns)},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

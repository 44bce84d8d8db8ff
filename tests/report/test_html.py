"""What stands in the page, read as text and by a parser."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.generation.turns import Flaw
from nat_dpo_pipeline.pairing.runs import paired_run
from nat_dpo_pipeline.report import pair_data
from nat_dpo_pipeline.report.document import json_for_html
from nat_dpo_pipeline.report.run import read_facts
from nat_dpo_pipeline.report.writing import examine, write_report

EVIL = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    '"><svg onload="window.hacked = 4">',
    "<a href='javascript:window.hacked = 5'>x</a>",
    "<!-- <script> \u2028 \u2029 &lt; \x00 ]]>",
    "{{ 7 * 7 }}{% raw %}",
)


class Page(HTMLParser):
    """Tags with their attributes, and the text of each element that holds a script or style."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else None
        if self._inside:
            self.blocks.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - as HTMLParser has it
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, attributes, text = self.blocks[-1]
            self.blocks[-1] = (tag, attributes, text + data)
        else:
            self.text += data

    def block(self, name: str) -> Any:
        (found,) = [text for _, attributes, text in self.blocks if attributes.get("id") == name]
        return json.loads(found)

    def chunks(self) -> list[Any]:
        return [json.loads(text) for _, attributes, text in self.blocks if attributes.get("class") == "chunk"]


def _write(folder: Path) -> str:
    turns = paired_run(folder)
    numbers, dangers = examine(folder, read_facts(folder), turns)
    write_report(folder / "report.html", numbers, dangers, turns)
    return (folder / "report.html").read_text(encoding="utf-8")


def _evil_run(runs: Any) -> Path:
    rows = [
        runs.row(
            place,
            runs.candidate(0, f"chosen {text}", 2.0, llm=text),
            runs.candidate(1, f"rejected {text}", 1.0, llm=f"other {text}"),
            runs.candidate(2, text, 0.5),
            subtopic=text,
            prompt=[{"role": "system", "content": text}, {"role": "user", "content": text}],
        )
        for place, text in enumerate(EVIL)
    ]
    shared = [runs.row(90 + place, runs.candidate(0, EVIL[0], 2.0), runs.candidate(1, "b", 1.0)) for place in range(4)]
    spending = [{"step": EVIL[0], "llm": EVIL[1], "model": EVIL[2], "requests": 1}]
    folder: Path = runs.write(
        *rows, *shared, spending=spending, status=EVIL[2], message=EVIL[1], skipped={EVIL[2]: {EVIL[0]: 1}}
    )
    return folder


def test_the_policy_allows_only_what_stands_in_the_page(runs: Any) -> None:
    page = Page(_write(runs.write(runs.scored(1, 2.0, 1.0))))
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    code = [text for tag, attributes, text in page.blocks if "type" not in attributes]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code} == allowed
    assert len(allowed) == 4  # a style and three scripts


def test_nothing_is_loaded_and_nothing_is_styled_or_run_in_an_attribute(runs: Any) -> None:
    page = Page(_write(_evil_run(runs)))
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "action")], tag
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "iframe", "object", "embed", "base"})


def test_what_models_wrote_is_text(runs: Any) -> None:
    text = _write(_evil_run(runs))
    page = Page(text)
    for evil in EVIL[:5]:
        assert evil not in text.replace('<script>"use strict"', "")
    assert EVIL[0] in page.text
    assert [attributes.get("type") for tag, attributes, _ in page.blocks if tag == "script"].count(None) == 3
    assert "49" not in page.block("index")["subtopics"]
    (chunk,) = page.chunks()
    assert [response[0] for response in chunk[2][1]] == [f"chosen {EVIL[2]}", EVIL[2], f"rejected {EVIL[2]}"]
    assert chunk[0][0] == [["system", EVIL[0]], ["user", EVIL[0]]]


def test_the_index_names_each_pair_and_why_others_are_none(runs: Any) -> None:
    rows = [
        runs.row(1, *(runs.candidate(place, f"text {place}", score) for place, score in enumerate((3.0, 1.0, 1.0)))),
        runs.row(2, runs.candidate(0, "x", 2.0, "big"), runs.candidate(1, "y", 1.0, "small")),
    ]
    page = Page(_write(runs.write(*rows)))
    index = page.block("index")
    assert index["reasons"] == ["", "tie"]
    assert index["turns"] == [0, 0, 0, 1]
    assert index["pairReasons"] == [0, 0, 1, 0]
    assert index["margins"] == [2.0, 2.0, 0.0, 1.0]
    assert [index["models"][place] for place in index["chosenModels"]][-1] == "big"
    assert [index["models"][place] for place in index["rejectedModels"]][-1] == "small"
    assert index["chunkStarts"] == [0]
    assert page.chunks()[0][1][0] == "Question 2?"


def test_the_numbers_in_the_page_are_those_of_the_json(runs: Any) -> None:
    folder = runs.write(*(runs.scored(place, 3.0, 1.0, 2.0) for place in range(5)))
    page = Page(_write(folder))
    report = json.loads((folder / "report.json").read_bytes())
    assert report.pop("warnings") == []
    assert page.block("numbers") == report
    assert "15" in page.text


def test_a_large_run_shows_one_in_two_questions(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_data, "MOST_PAIRS", 10)
    page = Page(_write(runs.write(*(runs.scored(place, 3.0, 1.0) for place in range(20)))))
    assert len(page.block("index")["turns"]) == 10
    assert "one in 2 questions" in page.text


def test_texts_come_in_chunks(runs: Any) -> None:
    page = Page(_write(runs.write(*(runs.scored(place, 3.0, 1.0) for place in range(250)))))
    assert page.block("index")["chunkStarts"] == [0, 100, 200]
    assert [len(chunk) for chunk in page.chunks()] == [100, 100, 50]


def test_an_empty_run_has_a_page(runs: Any) -> None:
    assert "There are no pairs" in Page(_write(runs.write())).text


def test_where_nothing_can_be_written_it_is_told(runs: Any, tmp_path: Path) -> None:
    folder = runs.write(runs.scored(1, 2.0, 1.0))
    turns = paired_run(folder)
    numbers, dangers = examine(folder, read_facts(folder), turns)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write to"):
        write_report(tmp_path / "file" / "report.html", numbers, dangers, turns)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match="cannot write the report"):
        write_report(tmp_path / "report.html", numbers, dangers, turns)


@given(st.text())
def test_json_in_a_script_block_comes_back_and_ends_no_block(text: str) -> None:
    written = json_for_html([text])
    assert json.loads(written) == [text]
    assert not set(written) & set("<>&\u2028\u2029")


def test_reasons_are_keys_of_json_as_their_words() -> None:
    assert json_for_html({Flaw.TRUNCATED: 1}) == '{"truncated":1}'

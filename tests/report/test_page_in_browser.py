"""The page in a real browser: headless Chromium, as Debian's packages chromium and chromium-driver have it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from nat_dpo_pipeline.generation.turns import Flaw
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.runs import paired_run
from nat_dpo_pipeline.report.run import read_facts
from nat_dpo_pipeline.report.training import write_training_report
from nat_dpo_pipeline.report.writing import examine, write_report
from tests.report.odd_runs import run_of_everything
from tests.waiting import wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",  # a click may not land where the page is still on its way
)
Open = Callable[[Path], None]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def _await(browser: Chrome, happened: Callable[[Chrome], object]) -> None:
    """Wait for the page as long as the browser is there; what is not on the page yet may come."""

    def has_happened() -> object:
        with suppress(NoSuchElementException, StaleElementReferenceException):
            return happened(browser)
        return False

    wait_until(has_happened, lambda: browser.service.process.poll() is None)


@pytest.fixture
def page(browser: Chrome) -> Iterator[Open]:
    """Opens the report of a run and waits until it is ready; in the end the console must be empty."""

    def opened(folder: Path) -> None:
        turns = paired_run(folder)
        numbers, dangers = examine(folder, read_facts(folder), turns)
        write_report(folder / "report.html", numbers, dangers, turns)
        browser.get((folder / "report.html").as_uri())
        _await(browser, lambda one: one.execute_script("return document.documentElement.dataset.ready"))

    browser.get_log("browser")
    yield opened
    assert browser.get_log("browser") == []


def _run(runs: Any, turns: int = 30) -> Path:
    folder: Path = runs.write(
        *(
            runs.row(
                place,
                runs.candidate(0, f"Tea is made of leaves, {place}.", 3.0 + place / 100, "large"),
                runs.candidate(1, f"Tea is made of beans, {place}.", 2.0, "small"),
                runs.candidate(2, f"Ask somebody else, {place}.", 2.0, "large"),
                subtopic="Green" if place % 3 else "Black",
            )
            for place in range(turns)
        )
    )
    return folder


def _found(browser: Chrome, text: str) -> None:
    _await(browser, lambda one: one.find_element(By.ID, "found").text == text)


def test_it_renders_without_a_word_on_the_console(browser: Chrome, page: Open, runs: Any) -> None:
    page(_run(runs))
    for chart in ("scores", "margins", "lengths", "models"):
        assert browser.find_element(By.CSS_SELECTOR, f"#chart-{chart} svg").size["width"] > 200
    assert browser.find_element(By.TAG_NAME, "h1").text == "run"
    _found(browser, "60 pairs")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pair")) == 20


def test_it_filters_by_everything(browser: Chrome, page: Open, runs: Any) -> None:
    page(_run(runs))

    def choose(name: str, text: str) -> None:
        Select(browser.find_element(By.ID, f"filter-{name}")).select_by_visible_text(text)

    choose("subtopic", "Black")
    _found(browser, "20 pairs")
    choose("rejected", "small")
    _found(browser, "10 pairs")
    browser.find_element(By.ID, "filter-low").send_keys("1.2")
    _found(browser, "3 pairs")
    browser.find_element(By.ID, "filter-high").send_keys("1.22")
    _found(browser, "1 pair")
    browser.find_element(By.CSS_SELECTOR, "#filters button").click()
    _found(browser, "60 pairs")
    browser.find_element(By.ID, "filter-text").send_keys("BEANS, 17.")
    _found(browser, "1 pair")
    browser.find_element(By.ID, "filter-text").send_keys(" not there")
    _found(browser, "No pair is like that.")
    browser.find_element(By.CSS_SELECTOR, "#filters button").click()
    choose("reason", "left out: tie")
    _found(browser, "30 pairs")
    choose("reason", "pairs and left out")
    _found(browser, "90 pairs")
    choose("reason", "pairs")
    choose("order", "largest margin first")
    _found(browser, "60 pairs")
    _await(browser, lambda one: "+1.29" in one.find_element(By.CSS_SELECTOR, ".pair .margin").text)


def test_the_keyboard_opens_a_pair_and_its_differences_are_marked(browser: Chrome, page: Open, runs: Any) -> None:
    page(_run(runs))
    chosen, rejected = _opened_with_the_keyboard(browser)
    assert (chosen.text, rejected.text) == ("Tea is made of leaves, 0.", "Tea is made of beans, 0.")
    assert [one.text for one in chosen.find_elements(By.TAG_NAME, "mark")] == ["leaves"]
    assert [one.text for one in rejected.find_elements(By.TAG_NAME, "mark")] == ["beans"]
    browser.find_element(By.ID, "mark").click()
    _opened_with_the_keyboard(browser)
    assert browser.find_elements(By.CSS_SELECTOR, ".pair[open] mark") == []
    browser.find_element(By.ID, "next").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "place").text == "21–40 of 60"
    assert browser.switch_to.active_element.tag_name == "summary"
    browser.find_element(By.ID, "previous").send_keys(Keys.ENTER)
    assert browser.find_element(By.ID, "place").text == "1–20 of 60"


def _opened_with_the_keyboard(browser: Chrome) -> list[WebElement]:
    """The answers of the first pair; the browser tells the page of its opening when it comes to it."""
    browser.find_element(By.CSS_SELECTOR, ".pair summary").send_keys(Keys.ENTER)
    answers = (By.CSS_SELECTOR, ".pair[open] .answer")
    _await(browser, lambda one: one.find_elements(*answers))
    return browser.find_elements(*answers)


def test_the_curves_of_a_training_are_drawn(browser: Chrome, tmp_path: Path) -> None:
    result = {"sentence": "learned", "figures": {"held_out_accuracy_before": 0.5, "held_out_margin_before": 0.0}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.7, "rewards/accuracies": 0.5}\n')
    browser.get(write_training_report(tmp_path).as_uri())
    _await(browser, lambda one: len(one.find_elements(By.CSS_SELECTOR, ".chart svg")) == 3)
    assert browser.get_log("browser") == []


EVIL = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked = 3'>",
    '"><svg onload="window.hacked = 4">',
    "<a id=evil href='javascript:window.hacked = 5'>x</a>",
)


def test_what_was_planted_in_a_text_does_not_run(browser: Chrome, page: Open, runs: Any) -> None:
    rows = [
        runs.row(
            place,
            runs.candidate(0, f"{text} one", 2.0, llm=text),
            runs.candidate(1, f"{text} two", 1.0, llm=f"b{text}"),
            subtopic=text,
            prompt=[{"role": "system", "content": text}, {"role": "user", "content": text}],
        )
        for place, text in enumerate(EVIL)
    ]
    shared = [runs.row(50 + place, runs.candidate(0, EVIL[2], 2.0), runs.candidate(1, "b", 1.0)) for place in range(3)]
    page(runs.write(*rows, *shared, status=EVIL[2], message=EVIL[0]))
    for summary in browser.find_elements(By.CSS_SELECTOR, ".pair summary"):
        summary.click()
    assert EVIL[2] in browser.find_element(By.CSS_SELECTOR, "#list").text
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.CSS_SELECTOR, "#evil, img, main svg[onload]") == []


def test_a_run_with_every_flaw_and_odd_text_is_shown(browser: Chrome, page: Open, tmp_path: Path) -> None:
    run = run_of_everything()
    run.write(tmp_path, BuilderSettings(pair_flawed=True))
    page(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["flaws"]["counts"] == run.flaws == dict.fromkeys(Flaw, 2 * len(run.turns))
    _found(browser, f"{report['flow']['pairs']:,} pairs")
    rows = browser.find_elements(By.CSS_SELECTOR, ".pair")
    assert len(rows) == 20
    for row in rows:
        row.find_element(By.TAG_NAME, "summary").click()
    _await(browser, lambda one: len(one.find_elements(By.CSS_SELECTOR, ".pair[open] .answer")) == 2 * len(rows))
    for chart in ("scores", "margins", "lengths", "models"):
        assert browser.find_element(By.CSS_SELECTOR, f"#chart-{chart} svg").size["width"] > 200
    assert browser.execute_script("return window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_screen_and_can_be_read_in_both_schemes(
    browser: Chrome, page: Open, runs: Any, scheme: str, width: int
) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page(_run(runs))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert min(browser.execute_script(CONTRASTS)) >= 4.5
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# WCAG 2: the contrast of text with the nearest opaque background behind it.
CONTRASTS = """
document.querySelectorAll('details.pair')[0].open = true;
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
  .map((v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = (node) => {
  const layers = [];
  for (let one = node; one; one = one.parentElement) {
    const [r, g, b, a = 1] = parse(getComputedStyle(one).backgroundColor);
    if (a > 0) layers.push([r, g, b, a]);
    if (a === 1) break;
  }
  return layers.reverse().reduce(([r, g, b], [x, y, z, a]) => [r + (x - r) * a, g + (y - g) * a, b + (z - b) * a],
    [255, 255, 255]);
};
const names = `h1, .facts time, .status, nav a, figcaption .legend, td, thead th, label, .about, .margin, #found,
  .side h4, .side.chosen h4 b, .side.rejected h4 b, mark, .rejected mark, .prompt, footer p, .dangers h3,
  .dangers p, td.shade-0, td.shade-1, td.shade-2, td.shade-3, td.shade-4, td.shade-5, td.shade-6`;
return names.split(',')
  .flatMap((name) => [...document.querySelectorAll(name)].slice(0, 3))
  .map((node) => [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a))
  .map(([high, low]) => (high + .05) / (low + .05));
"""


def test_of_50_000_pairs_a_page_is_shown_at_a_time(browser: Chrome, page: Open, runs: Any) -> None:
    answer = "The answer to this has some words more than a line of text would hold, as they tend to have. " * 4
    folder = runs.write(
        *(
            runs.row(
                place,
                *(
                    runs.candidate(index, f"{answer}{index} {place}", float(index), f"m{index % 3}")
                    for index in range(8)
                ),
            )
            for place in range(50_000 // 28)
        )
    )
    page(folder)
    _found(browser, "49,980 pairs")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".pair")) == 20


def test_calls_are_shown_as_calls_with_what_came_of_them(browser: Chrome, page: Open, tmp_path: Path) -> None:
    def call(city: str) -> dict[str, object]:
        return {"type": "function", "function": {"name": "weather", "arguments": {"city": city, "days": 2}}}

    rows = []
    for city, reward in (("Oslo", 1.0), ("Oslo", 0.5), ("Rome", 0.0)):
        called = {"role": "assistant", "content": "Let me see.", "tool_calls": [call(city)]}
        rollout = [called, {"role": "tool", "content": "3"}, {"role": "assistant", "content": f"{city}: 3 degrees"}]
        tools = [{"type": "function", "name": "weather"}]
        rows.append({"example_id": "a", "prompt": "Cold?", "tools": tools, "response": rollout, "score": reward})
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = (BuilderSettings(), SplitSettings(), DatasetSettings())
    run = tmp_path / "run"
    pair_as_set([str(tmp_path / "rollouts.jsonl")], str(run), settings, with_candidates=True)
    page(run)
    _found(browser, "1 pair")
    browser.find_element(By.CSS_SELECTOR, ".pair summary").click()
    _await(browser, lambda one: one.find_elements(By.CSS_SELECTOR, ".call"))
    for side, city, behind in (("chosen", "Oslo", "mean of 2 rollouts"), ("rejected", "Rome", "of one rollout")):
        answer = browser.find_element(By.CSS_SELECTOR, f".side.{side}")
        assert behind in answer.text
        assert "Let me see." in answer.text
        assert "<tool_call>" not in answer.text
        assert [one.text for one in answer.find_elements(By.CSS_SELECTOR, ".call th")] == ["city", "days"]
        assert [one.text for one in answer.find_elements(By.CSS_SELECTOR, ".call mark")] == [city]
    assert browser.find_element(By.CSS_SELECTOR, ".prompt .earlier summary").text == "tools on offer"

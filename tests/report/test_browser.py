"""The page in a real browser: what one does on it works, fits, and runs nothing of a text's."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from gdc.curation.listed import listed_plan, read_listed
from gdc.schema import SPANS
from tests.report.builders import EVIL, SAMPLES, page_of, params_of, revised_by, tables_of

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)
TITLE = "Which texts are memorized, why, and what helps"
# What is wider than its place. Headings of cards are for screen readers alone, and what is in a
# drawing of plotly's is its own.
TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((e) =>
  e.getClientRects().length && !e.closest(".js-plotly-plot, svg, .cards thead, .texts thead") &&
  (e.getBoundingClientRect().right > innerWidth + 1 || getComputedStyle(e).display !== "inline" &&
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1)
  ).map((e) => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`)"""
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
# What a page does after a click takes longer beside other tests.
expect.set_options(timeout=120_000)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose texts and sources are as evil as they can be, with a span in ``e-0``."""
    spans = pl.DataFrame([("e-0", 0, 4, 3, 2.0)], schema=SPANS, orient="row")
    tables = tables_of(text=f"{EVIL}{ESCAPE} {{{{7*7}}}} " + "w" * 300)
    source = pl.lit(f"<svg onload=alert(1)>{EVIL}:") + pl.col("sample_id")
    path = tmp_path_factory.mktemp("page") / "report.html"
    corpus = tables.corpus.with_columns(source=source)
    shown = replace(tables, corpus=corpus, spans=spans)
    runs = {"none": revised_by({"e-0": 4}, {"e-0": 3}, {})}
    path.write_text(page_of(shown, params_of(), runs), "utf-8")
    return path


@pytest.fixture(scope="module")
def shared(browser: Browser, page_file: Path) -> Iterator[tuple[Page, list[str]]]:
    """The page, and what goes wrong on it: errors, dialogs, and whatever is asked of a network."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if "http" in asked.url[:4] else None)

    def refuse(asked: Dialog) -> None:
        wrong.append(asked.message)
        asked.dismiss()

    page.on("dialog", refuse)
    page.goto(page_file.as_uri())
    yield page, wrong
    page.close()


@pytest.fixture
def opened(shared: tuple[Page, list[str]]) -> Iterator[Page]:
    """The page with no filter, mark or opened text."""
    page, wrong = shared
    page.set_viewport_size({"width": 1400, "height": 900})
    page.select_option("#mark-all", "clear")
    page.click("#clear")
    expect(page.locator("#data-map .point")).to_have_count(6)
    yield page
    assert wrong == []


def listed(page: Page) -> list[str]:
    """The ids of the table of texts, in its order."""
    return [text.split(" · ")[1] for text in page.locator("#texts td .soft").all_inner_texts()]


def shows(page: Page, told: str) -> None:
    """Wait until the page says how many texts it shows."""
    expect(page.locator("#shown")).to_have_text(re.compile(f"^{told}"))


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Draw a loop on the map through points given as shares of the plot's width and height."""
    box = page.locator("#data-map .nsewdrag").first.bounding_box()
    assert box
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_search_filters_and_sorting_change_the_table_and_the_map(opened: Page) -> None:
    assert listed(opened) == ["f-0", "e-0", "c-0", "d-0", "b-0", "a-0"]
    opened.select_option("#quadrant", "hotspot-memorized")
    expect(opened.locator("#data-map .point")).to_have_count(3)
    assert listed(opened) == ["e-0", "c-0", "d-0"]
    opened.select_option("#cause", "near-copies")
    opened.click("#texts th:nth-child(6) button")
    assert listed(opened) == ["c-0", "d-0"]
    opened.click("#texts th:nth-child(6) button")
    assert opened.get_attribute("#texts th:nth-child(6)", "aria-sort") == "ascending"
    assert listed(opened) == ["d-0", "c-0"]
    opened.click("#clear")
    opened.fill("#search", "E-0")
    shows(opened, "1 text shown")
    assert listed(opened) == ["e-0"]
    opened.fill("#search", "")
    opened.select_option("#action", label="paper: weight")
    shows(opened, "2 texts shown")
    assert listed(opened) == ["c-0", "d-0"]
    opened.select_option("#action", "")
    opened.check("#canaries")
    shows(opened, "7 texts shown")


def test_a_loop_on_the_map_chooses_texts_and_a_click_opens_one(opened: Page) -> None:
    drag(opened, (0.6, 0.0), (1.0, 0.0), (1.0, 0.5), (0.6, 0.5), (0.6, 0.0))
    shows(opened, "1 text shown of those chosen on the map")
    assert listed(opened) == ["f-0"]
    opened.click("#clear")
    shows(opened, "6 texts shown")
    point = opened.locator("#data-map .point").last.bounding_box()
    assert point
    opened.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2, steps=5)
    expect(opened.locator("#data-map .hovertext").first).to_be_visible()
    opened.mouse.down()
    opened.mouse.up()
    opened.wait_for_selector("#opened:not([hidden])")
    # The last layer drawn that has a point is that of the noisy outliers.
    assert "noisy-outlier" in opened.inner_text("#opened-title")
    opened.select_option("#up", "difficulty")
    assert opened.inner_text("#texts th:nth-child(5)").startswith("difficulty")


def test_an_opened_text_shows_its_span_curve_cause_and_actions(opened: Page) -> None:
    opened.click("#texts tr:nth-child(2) button.open")
    assert opened.inner_text("#opened u") == EVIL[:4]
    label = "Loss over checkpoints: from 3 to 1 nats per token"
    expect(opened.locator("#opened svg")).to_have_attribute("aria-label", label)
    shown = opened.inner_text("#opened dl >> nth=0")
    assert "secret" in shown
    assert "Arm paper" in shown
    assert "weight, first in pass 3, in 2 of 3 runs" in shown
    assert opened.evaluate("document.activeElement.id") == "opened"


def test_marks_are_downloaded_as_a_plan_that_gdc_takes(opened: Page, tmp_path: Path) -> None:
    opened.select_option("#texts tr:nth-child(1) select", "drop")
    opened.click("#texts tr:nth-child(2) button.open")
    opened.click("#opened .marks button:has-text('mask')")
    with opened.expect_download() as download:
        opened.click("#plan")
    download.value.save_as(tmp_path / "plan.jsonl")
    read = read_listed(tmp_path / "plan.jsonl", name="file")
    assert read.rows() == [("f-0", "drop"), ("e-0", "mask")]
    scored = pl.LazyFrame({"sample_id": [row[0] for row in SAMPLES]})
    spans = pl.DataFrame([("e-0", 0, 4, 3, 2.0)], schema=SPANS, orient="row")
    plan = listed_plan(scored, read, spans, name="plan.jsonl").collect()
    assert plan.filter(pl.col("action") != "keep")["sample_id"].to_list() == ["e-0", "f-0"]
    opened.reload()
    assert opened.input_value("#texts tr:nth-child(1) select") == "drop"


def test_the_texts_shown_are_downloaded_as_ids_and_as_lines_of_json(opened: Page) -> None:
    opened.select_option("#quadrant", "stable-easy")
    shows(opened, "1 text shown")
    with opened.expect_download() as download:
        opened.click("#ids")
    assert Path(download.value.path()).read_text("utf-8") == "a-0\n"
    with opened.expect_download() as download:
        opened.click("#jsonl")
    row = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert (row["sample_ids"], row["quadrant"]) == (["a-0"], "stable-easy")
    assert row["text"].startswith(EVIL)


@pytest.mark.parametrize(
    ("text", "said"),
    [("e-0", "Underlined: memorized."), ("c-0", "is known in this text."), ("a-0", "Below the")],
)
def test_an_opened_text_says_whether_spans_were_looked_for(
    opened: Page, text: str, said: str
) -> None:
    opened.click(f"#texts tr:nth-child({listed(opened).index(text) + 1}) button.open")
    expect(opened.locator("#opened p.soft").first).to_contain_text(said)


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_cut_off(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 900})
    opened.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    opened.click("#texts tr:nth-child(1) button.open")
    opened.wait_for_timeout(200)
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    assert opened.evaluate(TOO_WIDE) == []


def test_axe_finds_no_serious_fault(opened: Page) -> None:
    opened.click("#texts tr:nth-child(1) button.open")
    found = Axe().run(opened).response["violations"]
    serious = [fault for fault in found if fault["impact"] in {"serious", "critical"}]
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in serious] == []


def test_a_script_that_is_not_of_the_page_does_not_run(browser: Browser) -> None:
    """Were a text ever put in as markup, the policy would stop it; without it, it would run."""
    owned = "<script>document.title = 'owned'</script></main>"
    shown = page_of(tables_of(), params_of()).replace("</main>", owned)
    # What follows is plotly and takes seconds.
    head = shown[: shown.index(owned)] + owned
    for html, title in ((head, TITLE), (head.replace("Content-Security-Policy", "x"), "owned")):
        page = browser.new_page()
        page.set_content(html)
        assert page.title() == title
        page.close()

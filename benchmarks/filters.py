"""Filters of the page of 20,000 texts in Chromium: milliseconds until the table has the answer.

python benchmarks/filters.py          # prints
python benchmarks/filters.py --write  # and writes the table to docs/results/speed.md
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl
import result_pages
from machine import machine
from playwright.sync_api import Page, sync_playwright
from screens import LOADING_MS, PROGRAMS
from table import Row, render
from texts import FRAME, write_samples

from gdc.report import build, page, page_data

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.report.builders import params_of, tables_of

NUM_TEXTS: Final = 20_000
NUM_TIMES: Final = 5
MAX_MS: Final = 200.0
QUIET_MS: Final = 3_000
# Element, what is entered there, and the event by which the page learns of it.
FILTERS: Final = {
    "a quadrant": ("quadrant", "hotspot-memorized", "change"),
    "an action": ("action", "top\tdrop", "change"),
    "a rare word, and the pause after typing": ("search", "badlam", "input"),
    "a part of a source": ("source", "file-77", "input"),
}
# Until the page has said how many texts it shows, and the browser has drawn that.
TIMED: Final = """([id, value, event]) => new Promise((resolve) => {
  const field = document.getElementById(id);
  const shown = document.getElementById("shown");
  const watch = new MutationObserver(() => {
    watch.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - started));
  });
  watch.observe(shown, { childList: true });
  const started = performance.now();
  field.value = value;
  field.dispatchEvent(new Event(event));
})"""


def main() -> None:
    """Make the page, set each filter a few times, print the median of the milliseconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit(f"expected one of {', '.join(PROGRAMS)}: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        path.write_text(page_of_texts(Path(folder)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.goto(path.as_uri(), timeout=LOADING_MS)
        rows = [
            Row(f"{name}, ms, of {MAX_MS:g}", median_ms(opened, *filtered), MAX_MS, "<=", 1.0)
            for name, filtered in FILTERS.items()
        ]
        browser.close()
    text = f"{machine()}. {NUM_TEXTS:,} texts.\n\n{render(rows)}"
    sys.stdout.write(text)
    if options.write:
        result_pages.put("benchmarks/filters.py", text)


def page_of_texts(folder: Path) -> str:
    """A report with random texts, the most that a page holds by default."""
    write_samples(folder / "samples.parquet", NUM_TEXTS)
    data = page_data.page_data(
        pl.scan_parquet(folder / "samples.parquet"),
        replace(FRAME, max_texts=NUM_TEXTS),
        lambda ids: pl.DataFrame({"sample_id": ids, "curve": [[3.0, 1.0]] * len(ids)}),
    )
    return page.render_html(build.build_report(tables_of(), params_of()), page.Pictures(), data)


def median_ms(opened: Page, field: str, value: str, event: str) -> float:
    """Milliseconds of a filter, each time after the page had all texts again."""
    found: list[float] = []
    for _ in range(NUM_TIMES):
        opened.click("#clear")
        # Its map is drawn after its table.
        opened.wait_for_timeout(QUIET_MS)
        found.append(opened.evaluate(TIMED, [field, value, event]))
    return statistics.median(found)


if __name__ == "__main__":
    main()

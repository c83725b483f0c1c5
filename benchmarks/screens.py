"""A finished workspace -> pictures of its runs in MLflow and of `dvc plots show`, by Chromium.

Run: python benchmarks/screens.py WORKSPACE. Writes docs/pictures/mlflow.png and dvc-plots.png. The
curve at the end of DVC's page is not on it: its page loads Vega from the network.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PICTURES: Final = Path(__file__).resolve().parent.parent / "docs/pictures"
PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
PORT: Final = 5055
WIDTH: Final = 1400
HEIGHT: Final = 800
# At the zoom of ``show_plots``.
PLOTS_WIDTH: Final = 640
PLOTS_HEIGHT: Final = 1720
NUM_COLOURS: Final = 256
DRAWING_MS: Final = 4_000
LOADING_MS: Final = 120_000


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, help="a folder in which gdc run has ended")
    workspace = parser.parse_args().workspace.resolve()
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit(f"expected one of {', '.join(PROGRAMS)}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with runs_page(workspace) as address:
            take(browser, address, show_arms, PICTURES / "mlflow.png")
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "dvc", "plots", "show", "-q", "-o", folder]
            subprocess.run(command, cwd=workspace, check=True)
            address = (Path(folder) / "index.html").as_uri()
            take(browser, address, show_plots, PICTURES / "dvc-plots.png")
        browser.close()


@contextmanager
def runs_page(workspace: Path) -> Iterator[str]:
    """The address of the runs while `gdc ui` serves them."""
    command = [sys.executable, "-m", "gdc", "ui", "--no-open", "--port", str(PORT)]
    with subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            yield next(line.split()[1] for line in process.stdout if line.startswith("runs"))
        finally:
            process.terminate()


def show_arms(page: Page) -> None:
    """Close MLflow's assistant, and open the run of the flow: its stages and arms stand below."""
    page.get_by_text("curate", exact=True).first.wait_for(timeout=LOADING_MS)
    page.wait_for_timeout(DRAWING_MS)
    assistant = page.get_by_text("MLflow Assistant")
    if assistant.count():
        assistant.locator("xpath=ancestor::div[.//button][1]").locator("button").last.click()
    page.locator(".ag-row button").first.click()


def show_plots(page: Page) -> None:
    """All pictures at once."""
    page.locator("img").first.wait_for(timeout=LOADING_MS)
    page.set_viewport_size({"width": PLOTS_WIDTH, "height": PLOTS_HEIGHT})
    page.evaluate("document.body.style.zoom = 0.4")


def take(browser: Browser, address: str, prepare: Callable[[Page], None], path: Path) -> None:
    """Open a page, make it ready, and write a small picture of it."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(address, timeout=LOADING_MS)
    prepare(page)
    page.wait_for_timeout(DRAWING_MS)
    page.screenshot(path=path)
    page.close()
    with Image.open(path) as taken:
        small = taken.convert("RGB").quantize(NUM_COLOURS)
    small.save(path, optimize=True)


if __name__ == "__main__":
    main()

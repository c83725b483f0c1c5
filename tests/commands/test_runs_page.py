"""The pages of the runs in a real browser, as `gdc ui` opens them."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from gdc.workspace import tracking
from tests.builders import free_port

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)
LOADING_MS = 120_000
expect.set_options(timeout=LOADING_MS)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium"),
]


@pytest.fixture
def address(migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of the runs of a folder with one flow and one arm below it."""
    shutil.copy(migrated_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with tracking.parent_run("curate", {}) as run, run.child("arm/top", {}) as arm:
        arm.log_metrics({"extraction": 0.25})
    port = free_port()
    command = [sys.executable, "-m", "gdc", "ui", "--no-open", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line.split()[1] for line in process.stdout if line.startswith("runs"))
        finally:
            process.terminate()


def test_mlflow_opens_for_model_training_with_the_arms_below_the_flow(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(address, timeout=LOADING_MS)
        flow = page.locator(".ag-row", has_text="curate").first
        expect(flow).to_be_visible()
        expect(page.get_by_text("Model registry")).to_be_visible()
        flow.locator("button").first.click()
        expect(page.get_by_text("arm/top")).to_be_visible()
        browser.close()

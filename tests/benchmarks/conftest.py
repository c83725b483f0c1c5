"""Scripts of benchmarks/, started in small within the tests' own process."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest

from tests.builders import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


class Start(Protocol):
    """Runs ``python benchmarks/NAME.py ARGUMENTS`` with other sizes; what it prints."""

    def __call__(self, name: str, *arguments: str, **sizes: object) -> str: ...


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What scripts write in place of the pages of docs/results."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    pages = import_module("result_pages")
    marks = [f"<!-- written by {command} -->\n{pages.END}" for command in pages.PAGES]
    path = tmp_path / "page.md"
    path.write_text("".join(marks), encoding="utf-8")
    monkeypatch.setattr(pages, "PAGES", dict.fromkeys(pages.PAGES, path))
    monkeypatch.setattr(pages, "version", lambda: "today")
    return path


@pytest.fixture
def start(
    page: Path,  # noqa: ARG001 - none is written to the docs
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Start:
    """Starts a script in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def started(name: str, *arguments: str, **sizes: object) -> str:
        script = import_module(name)
        for size, value in sizes.items():
            monkeypatch.setattr(script, size, value)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        capsys.readouterr()
        script.main()
        return capsys.readouterr().out

    return started

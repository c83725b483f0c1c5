"""What a person sees of a run, and what goes to a file."""

import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flows import terminal
from gdc.workspace.progress import read_progress
from tasks.stages import StageResult


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert terminal._watching == []


def run_two(watch: terminal.Watch) -> None:
    watch.start("ingest")
    for line in ("Running stage 'ingest':", "> python -m gdc.stages.ingest", "3 rows are skipped",
                 " 50%|##  | 1/2 [00:01<00:01, 1.00step/s]", "Updating lock file"):  # fmt: skip
        watch.say("ingest", line)
    watch.end(StageResult("ingest", "executed", 61.0))
    watch.end(StageResult("report", "skipped", 0.0))
    watch.sum_up(0.0)


def test_lines_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.terminal(), terminal.watched(("ingest", "report"), 1) as watch:
        run_two(watch)
    sentence, ended, took = capsys.readouterr().err.splitlines()
    assert sentence == "ingest: 3 rows are skipped"
    assert ended.startswith("ingest: executed in 1 min 1 s (1 of 2 done, 0 s so far")
    assert took == "took 0 s from its first stage on"
    run = read_progress()
    assert run is not None
    assert run.num_done() == 2


def test_a_terminal_has_a_table_and_the_same_lines() -> None:
    output = StringIO()
    with terminal.terminal():
        terminal._watching[0] = Console(file=output, force_terminal=True, width=90)
        with terminal.watched(("ingest", "report"), 1) as watch:
            watch.start("ingest")
        with terminal.watched(("ingest", "report"), 1) as watch:
            run_two(watch)
    assert "0 of 2 done" in output.getvalue()
    assert "ingest: 3 rows are skipped" in output.getvalue()
    assert "python -m" not in output.getvalue()


def test_what_libraries_log_goes_to_a_file_and_ours_to_both(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = logging.StreamHandler()
    logging.getLogger().addHandler(shown)
    try:
        with terminal.terminal():
            logging.getLogger("prefect.client").warning("poised-hog")
            logging.getLogger("gdc.workspace.tracking").warning("a second failure")
        logging.getLogger("prefect.client").warning("afterwards")
    finally:
        logging.getLogger().removeHandler(shown)
    said = capsys.readouterr().err
    assert "a second failure" in said
    assert "afterwards" in said
    assert "poised-hog" not in said
    assert "poised-hog" in terminal.LOG.read_text()
    assert "a second failure" in terminal.LOG.read_text()

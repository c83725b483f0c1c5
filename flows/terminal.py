"""A flow run -> what its terminal shows: a live table or plain lines; all else goes to a file."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from prefect.logging import get_run_logger
from rich.console import Console
from rich.live import Live

from gdc.commands import status
from gdc.workspace.progress import Progress
from tasks.stages import StageResult, is_for_people

LOG: Final = Path("work/run.log")
_OURS: Final = ("gdc", "flows", "tasks")
# Whether a person waits at this terminal for the run of this process.
_watching: list[Console] = []


class Watch:
    """Takes what happens in a run, from any thread, and shows it."""

    def __init__(self, progress: Progress, tell: Callable[[str], None]) -> None:
        self.progress = progress
        self._tell = tell

    def start(self, target: str) -> None:
        """Note that a target starts."""
        self.progress.start(target)

    def say(self, target: str, line: str) -> None:
        """Note a line of a target's output, and show what is meant for people."""
        is_bar = self.progress.say(target, line)
        if _watching and not is_bar and is_for_people(line):
            self._tell(f"{target}: {line}")

    def end(self, result: StageResult) -> None:
        """Say what became of a target; of what has nothing to do only the number of targets."""
        self.progress.end(result.target, result.outcome, result.seconds)
        if result.outcome != "skipped":
            how_far = status.headline(self.progress.state, time.time())
            seconds = f" in {status.span(result.seconds)}" if result.seconds else ""
            self._tell(f"{result.target}: {result.outcome}{seconds} ({how_far})")

    def sum_up(self, seconds_of_steps: float) -> None:
        """Say how long the run took, and how long its trainings and audits alone would."""
        run = self.progress.state
        took = max(0.0, time.time() - run.started)
        told = f"took {status.span(took)} from its first stage on"
        if seconds_of_steps:
            alone = seconds_of_steps / run.num_workers
            told += (
                f", {took / alone:.1f} times its trainings and audits alone "
                f"({status.span(alone)}, {run.num_workers} at a time)"
            )
        self._tell(told)


@contextmanager
def watched(targets: Sequence[str], num_workers: int) -> Iterator[Watch]:
    """Keep the progress of a flow run, and show it where somebody watches."""
    progress = Progress(targets, num_workers)
    try:
        if not _watching:
            yield Watch(progress, get_run_logger().info)
        elif _watching[0].is_terminal:
            with _table(progress, _watching[0]) as tell:
                yield Watch(progress, tell)
        else:
            yield Watch(progress, _write)
    finally:
        progress.close()


@contextmanager
def _table(progress: Progress, console: Console) -> Iterator[Callable[[str], None]]:
    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    with Live(
        get_renderable=lambda: status.table(progress.state, time.time()),
        console=console,
        refresh_per_second=2,
        transient=True,
    ):
        yield tell


def _write(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def terminal() -> Iterator[None]:
    """Have the runs inside shown to a person; what Prefect and libraries log goes to a file."""
    LOG.parent.mkdir(exist_ok=True)
    file = logging.FileHandler(LOG, mode="w", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(
        logging.Formatter(
            "%(asctime)s %(task_run_name)s: %(message)s", defaults={"task_run_name": "curate"}
        )
    )
    root = logging.getLogger()
    shown = [*root.handlers]
    for handler in shown:
        handler.addFilter(_is_ours)
    root.addHandler(file)
    _watching.append(Console(stderr=True))
    try:
        yield
    finally:
        _watching.clear()
        root.removeHandler(file)
        file.close()
        for handler in shown:
            handler.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _OURS

"""DVC targets -> results: each is one process on this machine, a few of them side by side."""

import concurrent.futures
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Protocol

from prefect.futures import PrefectConcurrentFuture
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from tasks import guard
from tasks.stages import StageResult, end_all, reproduce, result_of, stage_task

# A Ctrl-C that another thread gets does not end a wait without a timeout.
WAIT_SECONDS: Final = 0.25


class Watch(Protocol):
    """Is told what a target does; its methods are called from any thread."""

    def start(self, target: str) -> None:
        """Take note that it starts."""

    def say(self, target: str, line: str) -> None:
        """Take a line of its output."""


class Unwatched:
    """Takes no notice."""

    def start(self, target: str) -> None:
        """Do nothing."""

    def say(self, target: str, line: str) -> None:
        """Do nothing."""


@stage_task("stage")
def run_stage(
    target: str, parent_run_id: str | None, start: guard.Start, watch: Watch
) -> StageResult:
    logger = get_run_logger()

    def log(line: str) -> None:
        logger.info(line)
        watch.say(target, line)

    watch.start(target)
    return reproduce(target, parent_run_id, log, start=start)


class Processes:
    """Runs targets on this machine; see ``processes``."""

    def __init__(
        self,
        runner: ThreadPoolTaskRunner[Any],
        parent_run_id: str | None,
        start: guard.Start,
        watch: Watch,
    ) -> None:
        self._runner = runner
        self._of_all = {"parent_run_id": parent_run_id, "start": start, "watch": watch}
        self._running: dict[Future[Any], tuple[str, PrefectConcurrentFuture[Any]]] = {}

    def submit(self, target: str) -> None:
        """Run a target as soon as a worker is free."""
        future = self._runner.submit(run_stage, {"target": target, **self._of_all})
        self._running[future.wrapped_future] = (target, future)

    def wait(self) -> list[StageResult]:
        """Results of those that have ended."""
        ended = concurrent.futures.wait(
            self._running, timeout=WAIT_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED
        ).done
        found = [self._running.pop(future) for future in ended]
        return [
            result_of(target, future.result(raise_on_failure=False)) for target, future in found
        ]

    def end(self) -> None:
        """Start nothing more, and stop what still runs."""
        end_all([future for _, future in self._running.values()])


@contextmanager
def processes(
    parent_run_id: str | None,
    max_workers: int,
    start: guard.Start = guard.start,
    watch: Watch | None = None,
) -> Iterator[Processes]:
    """Keep an executor that runs so many targets at the same time; what still runs ends with it."""
    with ThreadPoolTaskRunner[Any](max_workers=max_workers) as runner:
        executor = Processes(runner, parent_run_id, start, watch or Unwatched())
        try:
            yield executor
        finally:
            executor.end()

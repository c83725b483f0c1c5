"""DVC target -> outcome: one ``dvc repro --single-item`` in a process group of its own."""

import concurrent.futures
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Literal, ParamSpec, TypeVar

from gdc.errors import (
    STAGE_FAILED,
    GdcError,
    TransientError,
    without_controls,
    without_secrets,
)
from gdc.filesystem.system_errors import describe_death
from gdc.workspace import dvc, dvc_files, restored_outputs
from tasks import guard

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.futures import PrefectConcurrentFuture
    from prefect.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")

Outcome = Literal["executed", "restored", "skipped"]
# What DVC prints for a stage, and what it means.
OUTCOMES: Final[tuple[tuple[str, Outcome], ...]] = (
    (r"^Running stage '", "executed"),
    (r"^Stage '.*' is cached - skipping run", "restored"),
    (r"^Stage '.*' didn't change, skipping", "skipped"),
)
# What DVC advises a person who runs it by hand.
ADVICE: Final = re.compile(
    r"To track the changes with git|git add |To enable auto staging|dvc config core\.autostage"
    r"|Use `dvc push`|Data and pipelines are up to date"
)
# What DVC says of a stage that met a ``TransientError``, and torchrun of one of its processes.
EXITED: Final = re.compile(
    rf"ERROR: failed to reproduce .* exited with {TransientError.exit_code}"
    rf"|\s*exitcode\s*: {TransientError.exit_code} \(pid: \d+\)"
)
# What they say of a process that died of a signal: its number, negative or from a shell 128 more.
DIED: Final = re.compile(
    r"ERROR: failed to reproduce .* exited with (?P<dvc>-?\d+)"
    r"|\s*exitcode\s*: (?P<torchrun>-\d+) \(pid: \d+\)"
)
PROGRESS_SECONDS: Final = 5.0  # a progress bar is logged at most this often
# What DVC says of its own work, and what is told again when a run has failed.
_OF_DVC: Final = re.compile(
    r"Running stage '|> |Generating lock file|Updating lock file|Stage '|To (track|enable)"
    r"|\s*git add |ERROR: |error: "
)
NUM_LAST_LINES: Final = 3  # shown of a stage that failed without an `error:` line

_running: Final[set[guard.Process]] = set()


class StageFailedError(GdcError):
    """A stage ended with an error; the message is the stage's own."""

    exit_code: ClassVar[int] = STAGE_FAILED


class StageTransientError(StageFailedError):
    """A stage ended with the exit code of ``TransientError``; running it again may work."""


@dataclass(frozen=True)
class StageResult:
    """What became of one target."""

    target: str
    outcome: Outcome | Literal["failed", "not run"]
    seconds: float
    error: StageFailedError | None = None


def reproduce(
    target: str,
    parent_run_id: str | None,
    log: Callable[[str], None],
    options: Sequence[str] = (),
    start: guard.Start = guard.start,
) -> StageResult:
    """Run one target, with options of ``dvc repro``, and hand its lines to ``log``.

    Args:
        target: A stage of dvc.yaml, or a cell of one.
        parent_run_id: The MLflow run that the stage's run belongs to.
        log: Takes the lines.
        options: Of ``dvc repro``.
        start: How DVC is started.

    Raises:
        StageFailedError: With the stage's error lines; ``StageTransientError`` for exit code 75.
    """
    started = time.monotonic()
    command = dvc.command("repro", "--single-item", *options, target)
    while True:
        dvc_files.keep_copy()
        lines = run_program(target, command, dvc.environment(parent_run_id), log, start)
        dvc_files.keep_copy()
        outcome = outcome_of(target, lines)
        removed = restored_outputs.remove_damaged(target) if outcome == "restored" else []
        if not removed:
            return StageResult(target, outcome, time.monotonic() - started)
        log(
            f"{', '.join(map(str, removed))}: expected what {dvc_files.LOCK} says, got a damaged "
            "copy from DVC's cache. It is made again."
        )


def run_program(
    name: str,
    command: Sequence[str],
    environment: dict[str, str],
    log: Callable[[str], None],
    start: guard.Start = guard.start,
) -> list[str]:
    """Run a program to its end, hand its lines to ``log`` and return them.

    Raises:
        StageFailedError: As ``failure`` words it for ``name``.
    """
    lines = []
    with process_group(command, environment, start) as process:
        assert process.stdout is not None  # noqa: S101  # opened as a pipe
        for line in read_lines(process.stdout):
            lines.append(line)
            log(line)
    if process.wait() != 0:
        raise failure(name, lines)
    return lines


def read_lines(stream: IO[bytes], clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
    r"""Lines of a program's output; of a progress bar (``\r``) one state every few seconds."""
    shown = -PROGRESS_SECONDS
    with io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="") as text:
        for piece in text:
            if piece.endswith("\r"):
                if clock() - shown < PROGRESS_SECONDS:
                    continue
                shown = clock()
            line = piece.rstrip()
            if line and not ADVICE.search(line):
                yield without_controls(without_secrets(line))


def is_for_people(line: str) -> bool:
    """Whether a line of a stage's output is more than what DVC says of its own work."""
    return _OF_DVC.match(line) is None


def outcome_of(target: str, lines: Sequence[str]) -> Outcome:
    """Read from DVC's output whether the stage ran."""
    for line in lines:
        for pattern, outcome in OUTCOMES:
            if re.search(pattern, line):
                return outcome
    raise StageFailedError(f"{target}: DVC did not say what it did: {' / '.join(lines)!r}")


def failure(target: str, lines: Sequence[str]) -> StageFailedError:
    """The error of a stage that failed with this output."""
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    # Of several processes each says it.
    last_lines = [*filter(None, [_death(lines)]), *lines[-NUM_LAST_LINES:]]
    message = "\n".join(dict.fromkeys(errors) or last_lines or ["stopped without a word"])
    # DVC ends with 255 whatever the stage's exit code was.
    transient = any(EXITED.fullmatch(line) for line in lines)
    error = StageTransientError if transient else StageFailedError
    return error(f"{target}: {message}")


def _death(lines: Sequence[str]) -> str | None:
    """What a process of a stage died of, if it was a signal."""
    found = [match for line in lines if (match := DIED.fullmatch(line))]
    # The first: that of torchrun, which DVC's follows, says more.
    codes = [int(match["dvc"] or match["torchrun"]) for match in found]
    return next((said for code in codes if (said := describe_death(_signal(code)))), None)


def _signal(exit_code: int) -> int:
    return -exit_code if exit_code < 0 else exit_code - 128


@contextmanager
def process_group(
    command: Sequence[str], environment: dict[str, str], start: guard.Start = guard.start
) -> Iterator[guard.Process]:
    """Start a program and end whatever still runs of it on the way out.

    A SIGTERM to DVC alone leaves the stage's python running, and it then overwrites outputs. The
    guard ends both also when this process dies without a way out.
    """
    process = start(command, environment)
    _running.add(process)
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            guard.end(process)
        _running.discard(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def stop_stages() -> None:
    """End every stage that runs in this process: first asked, then killed."""
    for stop, seconds in ((guard.ask, guard.GRACE_SECONDS), (guard.kill, guard.KILLED_SECONDS)):
        for process in tuple(_running):
            stop(process)
        deadline = time.monotonic() + seconds
        while _running and time.monotonic() < deadline:
            time.sleep(0.1)


def is_transient(_task: "Task[Any, Any]", _run: "TaskRun", state: "State[Any]") -> bool:
    """Whether a task failed in a way that running it again may mend."""
    return isinstance(state.data, StageTransientError)


def stage_task(name: str) -> "Callable[[Callable[P, R]], Task[P, R]]":
    """Make a Prefect task of what runs a target: its parameter ``target`` names its runs."""
    # Seconds of a run that has nothing to do:
    from prefect import task  # noqa: PLC0415
    from prefect.cache_policies import NO_CACHE  # noqa: PLC0415

    return task(
        name=name,
        task_run_name="{target}",
        # A cache hit of Prefect's would skip DVC's look at the files.
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=2,
        retry_delay_seconds=10,
        retry_condition_fn=is_transient,
    )


def result_of(target: str, value: object) -> StageResult:
    """The result of a task run that has ended with this value, or with this error of its stage."""
    if isinstance(value, StageFailedError):
        return StageResult(target, "failed", 0.0, value)
    if isinstance(value, BaseException):
        raise value
    assert isinstance(value, StageResult)  # noqa: S101  # what our tasks return
    return value


def wait_for_all(futures: "Sequence[PrefectConcurrentFuture[Any]]") -> None:
    """Wait until all have ended; after an interruption nothing new starts, what runs is stopped."""
    waiting = {future.wrapped_future for future in futures}
    try:
        while waiting:
            # With a timeout: a Ctrl-C that another thread gets does not end a wait without one.
            waiting = concurrent.futures.wait(waiting, timeout=0.5).not_done
    finally:
        end_all(futures)


def end_all(futures: "Sequence[PrefectConcurrentFuture[Any]]") -> None:
    """Start none of those that wait, and stop the stages of those that run."""
    for future in futures:
        future.wrapped_future.cancel()
    while not all(future.wrapped_future.done() for future in futures):
        stop_stages()
        time.sleep(0.1)

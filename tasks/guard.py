"""Start a program and end with whoever started us: their end of our standard input closes.

That end closes however their process ends, a SIGKILL included, and DVC cannot be asked to watch it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import IO, Final, Protocol

import psutil

from gdc.workspace import dvc

GRACE_SECONDS: Final = 4.0  # between SIGTERM and SIGKILL
KILLED_SECONDS: Final = 1.0  # that the kernel has for a SIGKILL


class Process(Protocol):
    """A program under a guard, whose number is that of its process group: a part of ``Popen``."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self) -> int:
        """Its exit code, once it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""


# Starts a command with an environment, its output in a pipe.
Start = Callable[[Sequence[str], Mapping[str, str]], Process]


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: int | IO[bytes] | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start a program under a guard, in a process group of its own that ends with this process."""
    # -P: a folder called `tasks` in the workspace must not take the place of ours.
    words = [sys.executable, "-P", "-m", "tasks.guard", *command]
    with ctrl_c_kept_away():
        return subprocess.Popen(  # noqa: S603  # no shell, arguments from our own code
            words,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def ctrl_c_kept_away() -> Iterator[None]:
    """Have what is started meanwhile heed no Ctrl-C: it is asked to end by a SIGTERM."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end under a guard, with our own output, and return its exit code."""
    process = start(command, environment, None)
    try:
        while process.poll() is None:
            # In short steps: a Ctrl-C that another thread gets would not end a long wait.
            time.sleep(0.1)
        return process.returncode
    finally:
        if process.poll() is None:
            end(process)
        if process.stdin is not None:
            process.stdin.close()


def end(process: Process) -> None:
    """End whatever still runs of what ``start`` started: first asked, then killed."""
    ask(process)
    if not _is_over(process, GRACE_SECONDS):
        kill(process)
        _is_over(process, KILLED_SECONDS)


def ask(process: Process) -> None:
    """Ask a program under a guard to end."""
    # The guard alone: it knows whom to spare.
    process.terminate()


def kill(process: Process) -> None:
    """Kill a program under a guard, and whatever it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _is_over(process: Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.poll()  # reaps the leader
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def main() -> None:
    """Run the command line that we were given; our process group is ours alone."""
    Thread(target=_end_with_starter, daemon=True).start()
    command = sys.argv[1:]
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  # no shell
    arguments = (program, dvc.is_command(command))
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=_stop, args=arguments).start())
    code = program.wait()
    raise SystemExit(code if code >= 0 else 128 - code)


def _stop(program: subprocess.Popen[bytes], is_dvc: bool) -> None:
    """End the program; of DVC only what it runs: it dies in the middle of a write if it is asked.

    What it starts after that is asked too, and whoever wants it gone for sure kills the group.
    """
    asked: set[psutil.Process] = set()
    while program.poll() is None:
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(program.pid)
            targets = leader.children(recursive=True) if is_dvc else [leader]
            for process in set(targets) - asked:
                process.terminate()
            asked.update(targets)
        time.sleep(0.1)


def _end_with_starter() -> None:
    # Not through sys.stdin: its lock, still held, would break the interpreter's own end.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Servers and other programs that tests start, wait for and end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

START_SECONDS: Final = 300.0


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program with all that it starts; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd=folder,
            user=user,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(look: Callable[[], str | None], process: subprocess.Popen[bytes], *logs: Path) -> str:
    """What is looked for, within minutes and while the process runs; else a failure with logs."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if (seen := look()) is not None:
            return seen
        if process.poll() is not None:
            break
        time.sleep(1)
    pytest.fail("\n".join(log.read_text(encoding="utf-8") for log in logs))


def found(words: str, log: Path) -> str | None:
    return words if words in log.read_text(encoding="utf-8") else None

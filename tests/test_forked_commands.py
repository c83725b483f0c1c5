"""A command that a library or the system ends is told of in words; a stop ends its child too."""

import re
import signal
import subprocess
import sys
import time
from threading import Event, Thread

import psutil
import pytest

from gdc.cli import application

# The command line, with something else in place of what `gdc map` does.
PROGRAM = """
import os, resource, signal, sys, time
from gdc.cli import application
sys.argv = ["gdc", "map", "trace"]
def act(**_):
    {act}
application.app = act
application.main()
"""
OUT_OF_MEMORY = (
    "import polars; resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); "
    "polars.zeros(2**36, eager=True)"
)


def started(act: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(act=act)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("print('all')", 0, ""),
        ("sys.exit(75)", 75, ""),
        (OUT_OF_MEMORY, 2, "got SIGABRT. A library gave up, .*ulimit -v"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 2, "got SIGKILL. The system kills .*memory"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
    ],
)
def test_the_end_of_a_command_is_that_of_its_child_and_a_death_has_words(
    act: str, code: int, said: str
) -> None:
    process = started(act)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    last = (errors.strip().splitlines() or [""])[-1]
    if said:
        assert re.fullmatch(f"error: gdc map: expected it to end by itself, {said}.*", last)
    else:
        assert "error" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_ends_with_the_command(number: int) -> None:
    process = started("sys.stdout.write('.'); sys.stdout.flush(); time.sleep(300)")
    assert process.stdout is not None
    process.stdout.read(1)
    [child] = psutil.Process(process.pid).children()
    started_at = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (-number, 128 + number)
    assert not psutil.wait_procs([child], timeout=30)[1]
    assert time.monotonic() - started_at < 60


def test_a_program_with_threads_runs_a_command_in_its_own_process() -> None:
    ended = Event()
    thread = Thread(target=ended.wait)
    thread.start()
    try:
        assert not application._is_forked(["map"])
    finally:
        ended.set()
        thread.join()

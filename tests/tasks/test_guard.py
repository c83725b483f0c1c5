"""Programs under a guard: their exit codes, and how they end when we are stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import guard
from tests.builders import is_running

pytestmark = pytest.mark.slow

WAITS = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))"
SAYS = "time.sleep(3); print('done', end='')"
# As a command that starts one stage does.
PROGRAM = """
import atexit, os, sys, time
# As libraries do at the end of a process, Ray for one.
atexit.register(time.sleep, 300)
from flows.program import as_run
from tasks import guard

with as_run():
    guard.run([sys.executable, "-c", *sys.argv[1:]], dict(os.environ))
"""


def test_the_exit_code_is_that_of_the_program() -> None:
    for program, code in (
        ("", 0),
        ("raise SystemExit(75)", 75),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ):
        assert guard.run([sys.executable, "-c", program], os.environ) == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_ends_what_it_started_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{WAITS}; time.sleep(300)", str(started)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not started.exists() or not started.read_text():
        time.sleep(0.05)
    # As a terminal does it.
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + number
    assert errors == b"error: stopped; what was finished is kept, run again to go on\n"
    assert not is_running(int(started.read_text()))


def test_a_ctrl_c_that_reaches_what_was_started_alone_is_not_heeded() -> None:
    # As a person or a scheduler may send it to all; at any moment of the guard's own start.
    process = guard.start([sys.executable, "-c", f"import time; {SAYS}"], os.environ)
    assert process.stdout is not None
    for _ in range(40):
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.read() == b"done"
    assert process.wait() == 0
    # Only now: a guard ends what it started once this is closed.
    with process:
        pass


def test_what_a_stop_raises_where_python_drops_it_is_not_told() -> None:
    program = (
        "import sys\n"
        "from flows.program import as_run\n"
        "class Dropped:\n"
        "    def __init__(self, error): self.error = error\n"
        "    def __del__(self): raise self.error\n"
        "with as_run():\n"
        "    Dropped(SystemExit(143))\n"
        "    Dropped(ValueError('of a library'))\n"
        "assert sys.unraisablehook is sys.__unraisablehook__\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 0
    assert (b"of a library" in done.stderr, b"SystemExit" in done.stderr) == (True, False)


def test_signals_are_as_before_once_a_run_has_ended() -> None:
    program = (
        "import signal\n"
        "from flows.program import as_run\n"
        "numbers = (signal.SIGINT, signal.SIGTERM)\n"
        "before = [signal.getsignal(number) for number in numbers]\n"
        "with as_run():\n"
        "    assert signal.getsignal(signal.SIGTERM) not in before\n"
        "assert [signal.getsignal(number) for number in numbers] == before\n"
        "assert signal.set_wakeup_fd(-1) == -1\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")

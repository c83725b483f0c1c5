"""What the flows share: one run per folder, a mistake is one message and its exit code, a stop."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from gdc.environment import never_fail_to_print
from gdc.errors import GdcError, TransientError
from gdc.workspace import dvc_files, run_lock

STOPPED: Final = "error: stopped; what was finished is kept, run again to go on\n"
# Between a SIGTERM or Ctrl-C and the end, whatever still waits for a server or a process.
STOP_SECONDS: Final = 8.0
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def only_run_here() -> Iterator[None]:
    """Hold the folder for this flow run; two would overwrite each other's outputs.

    What a run that was killed has left there is put right first.
    """
    with run_lock.held():
        if told := dvc_files.mend():
            sys.stderr.write(f"{told}\n")
        yield


def show_no_tracebacks() -> None:
    """Prefect logs a traceback of every failure; of ours the message says it all."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], GdcError):
        record.exc_info = None
    return True


@contextmanager
def as_command() -> Iterator[None]:
    """Run a program: a mistake is one message and its exit code."""
    never_fail_to_print()
    # Prefect hands a SIGTERM on to what stood here.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        raise SystemExit(128 + signal.SIGINT) from None


@contextmanager
def as_run() -> Iterator[None]:
    """Run a flow as a program; a stop ends it within seconds, whatever is gone by then."""
    with as_command():
        stops = _watch_for_stops()
        try:
            yield
        except BaseException as error:
            if stops:
                # Whatever the stop broke on its way.
                sys.stderr.write(STOPPED)
                raise SystemExit(128 + stops[0]) from None
            if isinstance(error, httpx.HTTPError):
                raise TransientError(
                    "Prefect's server: expected an answer, got "
                    f"{str(error) or type(error).__name__}. Run again to go on."
                ) from None
            raise


def _watch_for_stops() -> list[int]:
    """The signals that asked this process to stop, as they come; the first ends it in time.

    A thread learns of them through a pipe: the main one may wait for something that never comes.
    """
    stops: list[int] = []

    def exit_once(number: int, _frame: object) -> None:
        for stop in _STOPS:
            signal.signal(stop, signal.SIG_IGN)
        stops.append(number)
        sys.exit(128 + number)

    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(read, stops), daemon=True).start()
    # An exit also ends what we started. Prefect hands a SIGTERM on to what stood here.
    signal.signal(signal.SIGTERM, exit_once)
    # Who started us may have us ignore Ctrl-C, and ask us by SIGTERM.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, exit_once)
    return stops


def _end_in_time(read: int, stops: list[int]) -> None:
    number = next(n for n in iter(lambda: os.read(read, 1)[0], None) if n in _STOPS)
    stops.append(number)
    # What Prefect says while its server may be gone helps nobody.
    logging.disable(logging.CRITICAL)
    logging.getLogger("prefect._internal.concurrency").disabled = True  # it heeds no level
    threading.excepthook = lambda _: None
    time.sleep(STOP_SECONDS)
    sys.stderr.write(STOPPED)
    # Stages and the server end with us: a guard stands over each.
    os._exit(128 + number)

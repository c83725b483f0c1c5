"""What the flows share: one run per folder, messages without tracebacks, a stop in time."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Final

import httpx

from gdc.errors import GdcError, TransientError
from gdc.workspace import dvc_files, foreign_files, run_lock

STOPPED: Final = "error: stopped; what was finished is kept, run again to go on\n"
# Between a SIGTERM or Ctrl-C and the end, whatever still waits for a server or a process.
STOP_SECONDS: Final = 8.0
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
# A RuntimeError of Prefect's, of a server that ended between its start and the flow's.
_UNREACHED: Final = "Failed to reach API"


@contextmanager
def only_run_here() -> Iterator[None]:
    """Hold the folder for this flow run; two would overwrite each other's outputs.

    What a run that was killed has left there is put right first.
    """
    with run_lock.hold_folder():
        put_right()
        yield


def put_right() -> None:
    """Mend a damaged dvc.lock and set the user's files aside, and say so."""
    for told in filter(None, (dvc_files.repair(), foreign_files.set_aside())):
        sys.stderr.write(f"{told}\n")


def show_no_tracebacks() -> None:
    """Prefect logs a traceback of every failure; of ours the message says it all."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], GdcError):
        record.exc_info = None
    return True


@contextmanager
def as_run() -> Iterator[None]:
    """Run a flow in this process; a stop ends it within seconds, whatever is gone by then."""
    with _watched_stops() as stops:
        try:
            yield
        except BaseException as error:
            if stops:
                # Whatever the stop broke on its way. Nothing is left to do, and what libraries do
                # at the end of a process takes seconds.
                sys.stderr.write(STOPPED)
                sys.stdout.flush()
                os._exit(128 + stops[0])
            if isinstance(error, httpx.HTTPError) or str(error).startswith(_UNREACHED):
                raise TransientError(
                    "Prefect's server: expected an answer, got "
                    f"{str(error) or type(error).__name__}. Run again to go on."
                ) from None
            raise


@contextmanager
def _watched_stops() -> Iterator[list[int]]:
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
    before = {number: signal.getsignal(number) for number in _STOPS}
    hook_before, sys.unraisablehook = sys.unraisablehook, _tell_unless_stopped
    before_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    Thread(target=_end_in_time, args=(read, stops), daemon=True).start()
    # An exit also ends what we started. Prefect hands a SIGTERM on to what stood here.
    signal.signal(signal.SIGTERM, exit_once)
    # Who started us may have us ignore Ctrl-C, and ask us by SIGTERM.
    if before[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, exit_once)
    try:
        yield stops
    finally:
        # After a stop all stays as it is: the process is about to end, and must do so in time.
        if not stops:
            sys.unraisablehook = hook_before
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(write)


def _tell_unless_stopped(raised: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a stop that came where Python drops it: the thread ends us all the same."""
    if isinstance(raised.exc_value, Exception):
        sys.__unraisablehook__(raised)


def _end_in_time(read: int, stops: list[int]) -> None:
    while (byte := os.read(read, 1)) and byte[0] not in _STOPS:
        pass
    if not byte:
        os.close(read)
        return
    number = byte[0]
    stops.append(number)
    # What Prefect says while its server may be gone helps nobody.
    logging.disable(logging.CRITICAL)
    logging.getLogger("prefect._internal.concurrency").disabled = True  # it heeds no level
    threading.excepthook = lambda _: None
    time.sleep(STOP_SECONDS)
    sys.stderr.write(STOPPED)
    # Stages and the server end with us: a guard stands over each.
    os._exit(128 + number)

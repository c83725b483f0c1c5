"""What the flows share: one run per folder, and a mistake is one message and its exit code."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gdc import dvc_files
from gdc.errors import GdcError, TransientError

LOCK: Final = Path("work/.lock")
HOLDER: Final = Path("work/.lock.pid")


@contextmanager
def only_run_here() -> Iterator[None]:
    """Hold the folder for this flow run; two would overwrite each other's outputs.

    What a run that was killed has left there is put right first.
    """
    LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TransientError(
            f"{Path.cwd()}: expected to be the only run in this folder, got {holder()} here too. "
            "Wait until it ends, or stop it."
        ) from None
    try:
        HOLDER.write_text(str(os.getpid()), encoding="utf-8")
        if told := dvc_files.mend():
            sys.stderr.write(f"{told}\n")
        yield
    finally:
        lock.release()


def holder() -> str:
    """Who holds the folder: its file appears a moment after the lock, and anyone may delete it."""
    number = HOLDER.read_text(encoding="utf-8") if HOLDER.exists() else ""
    return f"process {number}" if number else "another process"


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
    """Run a flow as a program: a mistake is one message and its exit code."""
    # Prefect hands a SIGTERM on to what stood here; an exit also ends its temporary server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped; what was finished is kept, run again to go on\n")
        raise SystemExit(130) from None

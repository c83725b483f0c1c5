"""Allows one flow run in a folder at a time, as two would overwrite each other's outputs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gdc.errors import ConfigError, TransientError

LOCK: Final = Path("work/.lock")
HOLDER: Final = Path("work/.lock.pid")


@contextmanager
def hold_folder() -> Iterator[None]:
    """Lock the current folder for this process.

    Raises:
        TransientError: Another process has locked it.
        ConfigError: The folder is not writable.
    """
    try:
        LOCK.parent.mkdir(exist_ok=True)
        lock = FileLock(LOCK)
        lock.acquire(blocking=False)
        HOLDER.write_text(str(os.getpid()), encoding="utf-8")
    except Timeout:
        raise TransientError(
            f"{Path.cwd()}: expected to be the only run in this folder, got {_holder()} here too. "
            "Wait until it ends, or stop it."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{LOCK}: expected to be able to write it, got {error.strerror or error}. Make the "
            "folder yours, or run in another one."
        ) from None
    try:
        yield
    finally:
        lock.release()


def require_free() -> None:
    """Raise what ``hold_folder`` raises if another run has locked the current folder."""
    with hold_folder():
        pass


def _holder() -> str:
    """Name the process that holds the lock, as far as it is known.

    Its file is written a moment after the lock is taken, and anyone may delete it.
    """
    number = HOLDER.read_text(encoding="utf-8") if HOLDER.exists() else ""
    return f"process {number}" if number else "another process"

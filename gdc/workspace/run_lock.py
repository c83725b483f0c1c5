"""One flow run in a folder at a time; two would overwrite each other's outputs."""

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
def held() -> Iterator[None]:
    """Hold the current folder.

    Raises:
        TransientError: Another process holds it.
        ConfigError: The folder cannot be written to.
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
    """Refuse a folder that another run holds, as ``held`` does."""
    with held():
        pass


def _holder() -> str:
    """Who holds the folder: its file appears a moment after the lock, and anyone may delete it."""
    number = HOLDER.read_text(encoding="utf-8") if HOLDER.exists() else ""
    return f"process {number}" if number else "another process"

"""What the operating system refuses -> a message with its cause and what to do."""

import errno
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from gdc.errors import DataError, GdcError

_ROOM: Final = "Make room on the disk, then run again: nothing is left half written."
_REMEDIES: Final[Mapping[int, str]] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit on the size of a file (ulimit -f), or take another disk.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n 4096), then run again.",
    errno.ENFILE: "Close other programs, or raise the system's limit on open files.",
    errno.EROFS: "Name a folder on a disk that can be written.",
    errno.EACCES: "Name another file or folder, or have its owner give you access.",
    errno.EPERM: "Name another file or folder, or have its owner give you access.",
    errno.ENAMETOOLONG: "Give it a shorter name.",
    errno.ELOOP: "Remove the link that leads back to itself, or name another file or folder.",
    errno.EIO: "The disk may be failing: look at the system's log, and copy what you need.",
    errno.ENOMEM: "Close other programs, or use a machine with more memory.",
    errno.EAGAIN: "Raise the limit on processes (ulimit -u), then run again.",
}
# Signals that end a process before it can print a message of ours.
_DEATHS: Final[Mapping[int, str]] = {
    signal.SIGABRT: (
        "A library gave up, as it does without memory or at a damaged file. Raise the limit on "
        "memory (ulimit -v) or close other programs; if that does not help, make the file that "
        "was read again."
    ),
    signal.SIGKILL: (
        "The system kills a program when memory runs out, and a scheduler when a limit is "
        "reached. Close other programs, use a machine with more memory, or raise the limit, then "
        "run again."
    ),
    signal.SIGSEGV: (
        "A library crashed, as it does at a damaged file or at a limit on the stack (ulimit -s). "
        "Make the file that was read again, or raise the limit."
    ),
    signal.SIGBUS: "A file became shorter while it was read, or its disk is full. " + _ROOM,
    signal.SIGILL: "A library was built for another processor. Install it for this one.",
    signal.SIGXCPU: "Raise the limit on processor time (ulimit -t), then run again.",
    signal.SIGXFSZ: _REMEDIES[errno.EFBIG],
}
# What libraries in other languages make of an error of the system.
_FOREIGN: Final = re.compile(r"(?i)\(?os error (\d+)\)?|\[errno (\d+)\]")
# Of torch's allocator, the C++ library, and the loader of shared libraries.
_NO_MEMORY: Final = re.compile(
    r"(?i)can(not|'t) allocate memory|std::bad_alloc|failed to map segment from shared object"
)


def describe_death(number: int) -> str | None:
    """Say what a signal that ended a process means and what to do; None for one to stop it."""
    if number not in _DEATHS:
        return None
    return f"expected it to end by itself, got {signal.Signals(number).name}. {_DEATHS[number]}"


@contextmanager
def wording_system_errors() -> Iterator[None]:
    """Turn a full disk, a limit or a lack of rights into a message.

    Raises:
        DataError: The system refused something for such a reason.
        GdcError: It refused it to a stage or a service: what that said, and what to do.
    """
    try:
        yield
    except MemoryError:
        raise _worded(errno.ENOMEM, "") from None
    # Polars, torch and others wrap what the system says in errors of their own.
    except Exception as error:
        number = _number(error)
        if number not in _REMEDIES:
            raise
        if isinstance(error, GdcError) and error.exit_code != DataError.exit_code:
            # Of a stage or a service, maybe on another machine, which the message names.
            raise type(error)(f"{error}\n{_REMEDIES[number]}") from None
        name = error.filename if isinstance(error, OSError) and error.filename else ""
        raise _worded(number, str(name)) from None


def _number(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if _NO_MEMORY.search(str(error)):
        return errno.ENOMEM
    found = _FOREIGN.search(str(error))
    return int(found[1] or found[2]) if found else 0


def _worded(number: int, name: str) -> DataError:
    where = f"{name}: " if name else ""
    return DataError(
        f"{where}expected the system to do as asked, got: {os.strerror(number)}. "
        f"{_REMEDIES[number]}"
    )

"""A command in a child of this process, so that one of us is left to say what it died of."""

import ctypes
import os
import signal
import sys
from typing import Final

from gdc.errors import DataError
from gdc.filesystem.system_errors import describe_death

# Of prctl(2).
_END_WITH_PARENT: Final = 1


def wait_for_child() -> None:
    """Return in a child of this process; the process itself ends as that child does.

    Raises:
        DataError: In the parent, if the child died of a signal that nobody sent to stop it.
    """
    # A Ctrl-C goes to both: it is the child that heeds it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getpid()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, before)
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            # It died before we could ask to end with it.
            os._exit(128 + signal.SIGKILL)
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0 and (said := describe_death(-code)):
        raise DataError(f"gdc {sys.argv[1]}: {said}")
    raise SystemExit(code if code >= 0 else 128 - code)

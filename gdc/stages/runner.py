"""How a stage starts, and how it fails: a message and an exit code, no traceback."""

import argparse
import signal
import sys
from collections.abc import Callable

from gdc.errors import GdcError


def run(main: Callable[[], None]) -> None:
    """Run a stage's ``main``; a ``GdcError`` becomes its message and its exit code.

    A SIGTERM becomes an exit, so that what is half written is removed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main()
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None


def parse_cell(*, arm: bool) -> argparse.Namespace:
    """The matrix item a stage was started for: ``--seed`` and, when asked, ``--arm``."""
    parser = argparse.ArgumentParser()
    if arm:
        parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()

"""Start a program and end with whoever started us: their end of our standard input closes.

That end closes however their process ends, a SIGKILL included, and DVC cannot be asked to watch it.
"""

import os
import signal
import subprocess
import sys
from threading import Thread


def main() -> None:
    """Run the command line that we were given; our process group is ours alone."""
    Thread(target=_end_with_starter, daemon=True).start()
    done = subprocess.run(  # noqa: S603  # no shell, arguments from our own code
        sys.argv[1:], stdin=subprocess.DEVNULL, check=False
    )
    raise SystemExit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


def _end_with_starter() -> None:
    # Not through sys.stdin: its lock, still held, would break the interpreter's own end.
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()

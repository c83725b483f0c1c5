"""Start-up time: of the command's help, and of a graph with nothing to do.

    python benchmarks/startup.py

Brings the default graph up to date first.
"""

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from table import Row, render
from timing import timed

from gdc.workspace import dvc

ROOT = Path(__file__).resolve().parent.parent
NUM_RUNS = 5
REPRO = dvc.command("repro")
COMMANDS: Final[Mapping[str, Sequence[str | Path]]] = {
    "python": [sys.executable, "-c", "pass"],
    "help": [Path(sys.executable).parent / "gdc", "--help"],
    "repro": REPRO,
}


def main() -> None:
    """Print medians of whole processes."""
    start(REPRO)
    seconds = {
        name: statistics.median(timed(lambda: start(command)) for _ in range(NUM_RUNS))  # noqa: B023
        for name, command in COMMANDS.items()
    }
    sys.stderr.write(f"python itself: {seconds['python']:.2f} s\n")
    sys.stdout.write(
        render(
            [
                Row("`gdc --help`, of half a second", seconds["help"], 0.5, "<=", 1),
                Row("`dvc repro` with nothing to do, of 5 s", seconds["repro"], 5, "<=", 1),
            ]
        )
    )


def start(command: Sequence[str | Path]) -> None:
    """Run a program to its end in the repository; what it prints goes to standard error."""
    subprocess.run(command, cwd=ROOT, env=dvc.environment(), check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()

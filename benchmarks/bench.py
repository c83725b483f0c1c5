"""Run every benchmark and write their tables to docs/results/speed.md.

python benchmarks/bench.py
"""

import subprocess
import sys
import time
from pathlib import Path

import result_pages
from machine import machine

HERE = Path(__file__).resolve().parent
SCRIPTS = ("startup", "training", "audits", "scoring", "corpus")


def main() -> None:
    """Time one script after the other: nothing else may run meanwhile."""
    started = time.monotonic()
    tables = [table_of(script) for script in SCRIPTS]
    minutes = (time.monotonic() - started) / 60
    text = f"{machine()}, {minutes:.0f} minutes.\n\n" + "\n".join(tables)
    sys.stdout.write(text)
    result_pages.put("make bench", text)


def table_of(script: str) -> str:
    """What a script prints."""
    started = time.monotonic()
    command = [sys.executable, str(HERE / f"{script}.py")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    sys.stderr.write(f"{script}: {(time.monotonic() - started) / 60:.1f} minutes\n")
    return done.stdout


if __name__ == "__main__":
    main()

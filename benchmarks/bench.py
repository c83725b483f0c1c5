"""Run every benchmark and write their tables into the README.

python benchmarks/bench.py
"""

import subprocess
import sys
import time
from pathlib import Path

import readme
from machine import machine

HERE = Path(__file__).resolve().parent
SCRIPTS = ("startup", "training", "audits", "scoring", "corpus")


def main() -> None:
    """Time one script after the other: nothing else may run meanwhile."""
    started = time.monotonic()
    tables = [
        subprocess.run(
            [sys.executable, HERE / f"{script}.py"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for script in SCRIPTS
    ]
    minutes = (time.monotonic() - started) / 60
    text = f"{machine()}, {minutes:.0f} minutes.\n\n" + "\n".join(tables)
    sys.stdout.write(text)
    readme.put("make bench", text)


if __name__ == "__main__":
    main()

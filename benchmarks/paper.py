"""Run a preset of the paper's experiments in a folder of its own and print its tables.

python benchmarks/paper.py paper-lstm
"""

import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil

SOURCE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run what is not up to date in ``work/<preset>``; print seeds, machine, duration, tables."""
    preset = sys.argv[1]
    folder = SOURCE / "work" / preset
    folder.mkdir(parents=True, exist_ok=True)
    gdc = [str(Path(sys.executable).parent / "gdc")]
    # A repository of its own: DVC works in no folder that git ignores.
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    started = time.monotonic()
    subprocess.run([*gdc, "init", preset, "--force"], cwd=folder, check=True, stdout=sys.stderr)
    subprocess.run([*gdc, "run"], cwd=folder, check=True, stdout=sys.stderr)
    minutes = (time.monotonic() - started) / 60
    tables = subprocess.run(
        [*gdc, "show", "--markdown"], cwd=folder, check=True, capture_output=True, text=True
    )
    sys.stdout.write(f"Preset `{preset}`, {machine()}, {minutes:.0f} minutes.\n\n{tables.stdout}")


def machine() -> str:
    """Processor and cores."""
    names = (
        [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return f"{(names or [platform.processor()])[0]}, {psutil.cpu_count()} cores"


if __name__ == "__main__":
    main()

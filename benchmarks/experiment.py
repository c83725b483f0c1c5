"""Run an experiment in a folder of its own and print its tables; what is up to date is kept.

A run that was killed goes on where it stood. The tables of ``leaderboard`` are written to
docs/results/leaderboard.md too.

python benchmarks/experiment.py paper-lstm
python benchmarks/experiment.py leaderboard
"""

import subprocess
import sys
import time
from pathlib import Path

from machine import machine
from result_pages import note, noted, put, sentence

SOURCE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run what is not up to date in ``work/<preset>``; print machine, duration and tables."""
    preset = sys.argv[1]
    folder = SOURCE / "work" / preset
    folder.mkdir(parents=True, exist_ok=True)
    # A repository of its own: DVC works in no folder that git ignores.
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    started = time.monotonic()
    gdc(folder, "init", preset, "--force")
    gdc(folder, "run")
    if preset == "leaderboard":
        gdc(folder, "leaderboard")
        page = (folder / "reports" / "leaderboard.md").read_text(encoding="utf-8")
        # Its heading would be a second one of the page of results.
        tables = page.partition("\n")[2].lstrip()
    else:
        tables = gdc(folder, "show", "--markdown", capture=True)
    # What was up to date is what this code would make.
    note(folder, is_all=True)
    minutes = (time.monotonic() - started) / 60
    text = (
        f"Preset `{preset}`, {machine()}, {minutes:.0f} minutes since the last start.\n\n{tables}"
    )
    sys.stdout.write(f"{text}\n{sentence(noted(folder))}")
    if preset == "leaderboard":
        put("make leaderboard", text, noted(folder))


def gdc(folder: Path, *arguments: str, capture: bool = False) -> str:
    """Run the command; return what it printed, or let it print to our standard error."""
    done = subprocess.run(
        [Path(sys.executable).parent / "gdc", *arguments],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE if capture else sys.stderr,
        text=True,
    )
    return done.stdout or ""


if __name__ == "__main__":
    main()

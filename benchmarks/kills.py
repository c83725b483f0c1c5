"""Hundreds of kills of small runs of the pipeline: does each go on, to the same bytes?

python benchmarks/kills.py [--write] [--rounds N] [--until HH:MM] [--reference WORKSPACE]
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import result_pages
from machine import machine

from gdc.statistics.markdown import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.flows import builders, killing

# What a trial has to do again, the stages that follow from it aside: of each kind some.
TARGETS = (
    ("ingest",), ("train@0",), ("halves", "score"), ("calibrate", "partition"), ("spans",),
    ("intervene",), ("retrain@none-1",), ("retrain@mask-spans-1", "evaluate@none-1"),
    ("evaluate@mask-spans-1", "report"), ("train@0", "retrain@none-1", "report"), ("curate",),
)  # fmt: skip
KILLS_A_TRIAL = 5


@dataclass
class Found:
    """What a campaign found so far."""

    kills: list[killing.Kill] = field(default_factory=list)
    trials: int = 0
    faults: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


def main() -> None:
    """Kill until so many rounds are done or the time is over; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--until", help="HH:MM at which no further trial begins")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds until a signal")
    parser.add_argument("--reference", type=Path, help="a finished workspace of the tests")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text, found = "no round was done in time\n", Found()
    with tempfile.TemporaryDirectory() as place:
        reference = options.reference or make_reference(Path(place))
        for found in campaign(reference, Path(place), options):
            text = f"{machine()}, seed {options.seed}.\n\n{result_table(found)}\n"
            if options.write:
                result_pages.put("make kills", text)
    sys.stdout.write(text)
    sys.exit(1 if found.faults else 0)


def make_reference(place: Path) -> Path:
    """A workspace whose run nobody disturbed."""
    folder = builders.make_workspace(place / "reference")
    builders.run_flow(folder)
    return folder


def campaign(reference: Path, place: Path, options: argparse.Namespace) -> Iterator[Found]:
    """Trials one after the other: some targets are forgotten, the runs of them killed."""
    found = Found()
    chance = random.Random(options.seed)  # noqa: S311 - no secret
    expected = builders.digests(reference, killing.RESULTS)
    while len(found.kills) < options.rounds and not is_over(options.until):
        folder = place / f"trial-{found.trials}"
        shutil.copytree(reference, folder, symlinks=True)
        builders.forget(folder, chance.choice(TARGETS))
        trial = killing.Trial(folder, chance, options.longest)
        kills = trial.kill_often(KILLS_A_TRIAL)
        faults = [fault for kill in kills for fault in kill.faults] + trial.finish(expected)
        found.kills += kills
        found.trials += 1
        found.faults += faults
        found.seconds = time.monotonic() - found.started
        tell(found, kills, faults)
        yield found
        shutil.rmtree(folder)


def is_over(until: str | None) -> bool:
    """Whether it is that time of the day, or later."""
    return until is not None and time.strftime("%H:%M") >= until


def tell(found: Found, kills: Sequence[killing.Kill], faults: Sequence[str]) -> None:
    """Say how far it is, and what was wrong."""
    last = ", ".join(f"{kill.how} {kill.victim} at {kill.moment}" for kill in kills)
    sys.stderr.write(f"{len(found.kills)} rounds, {found.trials} trials; {last}; {faults}\n")
    sys.stderr.flush()


def result_table(found: Found) -> str:
    """Rounds by what was killed and when, and what was found."""
    rounds: defaultdict[tuple[str, str], list[killing.Kill]] = defaultdict(list)
    for kill in found.kills:
        rounds[kill.victim, kill.how].append(kill)
    rows = []
    for (victim, how), kills in sorted(rounds.items()):
        aimed = [sum(kill.moment == moment for kill in kills) for moment in killing.MOMENTS]
        rows.append([victim, how, str(len(kills)), *map(str, aimed)])
    heading = ["killed", "signal", "rounds", *(f"at {moment}" for moment in killing.MOMENTS)]
    heading[3] = "at any moment"
    differences = sum(fault.startswith("other bytes") for fault in found.faults)
    stuck = sum(fault.startswith("does not go on") for fault in found.faults)
    return (
        f"{table(heading, rows)}\n"
        f"{len(found.kills)} rounds in {found.trials} workspaces, each run to its end afterwards, "
        f"in {found.seconds / 60:.0f} minutes: "
        f"{differences} files with other bytes, {stuck} workspaces that do not go on, "
        f"{len(found.faults) - differences - stuck} other faults (a process or a lock left, a "
        "traceback, an MLflow run without an end).\n"
        + "".join(f"\n- {fault}" for fault in dict.fromkeys(found.faults))
    )


if __name__ == "__main__":
    main()

"""Hundreds of kills of small runs of the pipeline: does each go on, to the same bytes?

python benchmarks/kills.py [--write] [--rounds N] [--until HH:MM] [--reference WORKSPACE]

Each round is added to a file as soon as it is over: stopped and started again, it goes on.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import forked_flow
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
KILLS_A_TRIAL = 6
ROWS = Path("work/kills.jsonl").resolve()
SERVER = "Prefect's server"
COLD_SHARE = 0.15


@dataclass
class Found:
    """What a campaign found so far."""

    kills: list[dict[str, Any]] = field(default_factory=list)
    ended: set[float] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    code: set[str] = field(default_factory=set)
    seconds: float = 0.0


def main() -> None:
    """Kill until so many rounds are done or the time is over; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="those in the file included")
    parser.add_argument("--until", help="HH:MM at which no further trial begins")
    parser.add_argument("--longest", type=float, default=25.0, help="seconds until a signal")
    parser.add_argument("--reference", type=Path, help="a finished workspace of the tests")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file of rounds")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    # What a trial has started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; start it again to go on"))
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    if len(read(options.rows).kills) < options.rounds and not is_over(options.until):
        with tempfile.TemporaryDirectory() as place:
            os.environ["PREFECT_HOME"] = f"{place}/prefect"
            os.chdir(place)
            forked_flow.load()
            with shared_server():
                campaign(Path(place), options)
    found = read(options.rows)
    text = f"{machine()}.\n\n{result_table(found)}"
    if options.write:
        result_pages.put("make kills", text, sorted(found.code))
    sys.stdout.write(text)
    sys.exit(1 if found.faults else 0)


def campaign(place: Path, options: argparse.Namespace) -> None:
    """Trials one after the other: some targets are forgotten, the runs of them killed."""
    reference = options.reference or make_reference(place)
    expected = builders.digests(reference, killing.RESULTS)
    chance = random.Random()  # noqa: S311 - no secret
    num_rounds = len(read(options.rows).kills)
    while num_rounds < options.rounds and not is_over(options.until):
        folder = place / "trial"
        shutil.copytree(reference, folder, symlinks=True)
        builders.forget(folder, targets := chance.choice(TARGETS))
        trial = killing.Trial(folder, chance, options.longest, start=starter(chance))
        known = {"trial": time.time(), "forgotten": targets, "code": result_pages.version()}
        for row in rows_of(trial, expected):
            add(options.rows, row | known)
            num_rounds += "victim" in row
        if row["faults"]:
            shutil.copytree(folder, options.rows.with_suffix(f".fault-{num_rounds}"), symlinks=True)
        shutil.rmtree(folder)


@contextmanager
def shared_server() -> Iterator[None]:
    """A Prefect server for the runs that are forked: most of a cold start is its start."""
    from flows.server import prefect_server  # noqa: PLC0415 - Prefect reads its settings then

    with prefect_server() as wait:
        wait()
        yield


def starter(chance: random.Random) -> killing.Start:
    """What starts runs: as a user does, or as forks, which takes a third of the time."""
    home = {"PREFECT_HOME": os.environ["PREFECT_HOME"]}

    def start(folder: Path, victim: str, variables: Mapping[str, str]) -> killing.Flow:
        if victim == SERVER or chance.random() < COLD_SHARE:
            return killing.start_alone(folder, victim, {**variables, **home})
        return forked_flow.start(folder, {**builders.ENVIRONMENT, **variables})

    return start


def rows_of(trial: killing.Trial, expected: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rounds of a trial, and what its end showed."""
    for kill in trial.kill_often(KILLS_A_TRIAL):
        yield asdict(kill)
    started = time.monotonic()
    faults = trial.finish(expected)
    yield {"faults": faults, "seconds": time.monotonic() - started}


def make_reference(place: Path) -> Path:
    """A workspace whose run nobody disturbed."""
    folder = builders.make_workspace(place / "reference")
    builders.run_flow(folder)
    return folder


def is_over(until: str | None) -> bool:
    """Whether it is that time of the day, or later."""
    return until is not None and time.strftime("%H:%M") >= until


def add(rows: Path, row: dict[str, Any]) -> None:
    """Add a row to the file, and tell of it."""
    line = json.dumps(row) + "\n"
    with rows.open("a", encoding="utf-8") as file:
        file.write(line)
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}")
    sys.stderr.flush()


def read(rows: Path) -> Found:
    """All rounds of the file; that of a mended fault has a text `mended`, put in by hand."""
    found = Found()
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    for row in map(json.loads, lines):
        if "victim" in row:
            found.kills.append(row)
        else:
            found.ended.add(row["trial"])
        found.seconds += row["seconds"]
        found.code.add(row.get("code") or result_pages.UNKNOWN)
        if "mended" in row:
            found.mended.append(row["mended"])
        else:
            found.faults += row["faults"]
    return found


def result_table(found: Found) -> str:
    """Rounds by what was killed and when, and what was found."""
    differences = sum(fault.startswith("other bytes") for fault in found.faults)
    stuck = sum(fault.startswith("does not go on") for fault in found.faults)
    during = Counter(kill["during"] for kill in found.kills)
    num_cut_off = sum(kill["trial"] not in found.ended for kill in found.kills)
    text = (
        f"{rounds_table(found.kills)}\n"
        f"{len(found.kills)} rounds in {found.seconds / 60:.0f} minutes; {len(found.ended)} "
        f"workspaces were run to their end afterwards, those of {num_cut_off} rounds were not, as "
        "the campaign was stopped: "
        f"{differences} files with other bytes, {stuck} workspaces that do not go on, "
        f"{len(found.faults) - differences - stuck} other faults (a process or a lock left, a "
        "traceback, an MLflow run without an end).\n\n"
        f"What ran when the signal came: {counts(during)}.\n"
    )
    if found.faults:
        text += "\n" + "".join(f"- {fault}\n" for fault in dict.fromkeys(found.faults))
    if found.mended:
        text += f"\nFound by a round and mended since: {counts(Counter(found.mended))}.\n"
    return text


def counts(counter: Counter[str]) -> str:
    """The most frequent first."""
    return ", ".join(f"{name} ({count})" for name, count in counter.most_common())


def rounds_table(kills: Sequence[dict[str, Any]]) -> str:
    """One row for each victim and signal, one column for each kind of moment."""
    rounds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for kill in kills:
        rounds[kill["victim"], kill["how"]].append(kill["moment"])
    heading = ["killed", "signal", "rounds", "at any moment"]
    heading += [f"in a write of {moment}" for moment in killing.MOMENTS[1:]]
    rows = [
        [victim, how, str(len(at)), *(str(at.count(moment)) for moment in killing.MOMENTS)]
        for (victim, how), at in sorted(rounds.items())
    ]
    return table(heading, rows)


if __name__ == "__main__":
    main()

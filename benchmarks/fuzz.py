"""Thousands of wrong inputs for everything that reads a file of the user's.

python benchmarks/fuzz.py [--write] [--seed SEED] [--share SHARE] [TARGET ...]
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import result_pages
from machine import machine

from gdc.errors import USER_ERROR
from gdc.statistics.markdown import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
OUTCOMES = ("accepted", "refused", "traceback", "hang", "wrong result")
# A damaged size must not take the machine's memory.
MEMORY = 16 * 2**30


def main() -> None:
    """Give each target its inputs; print the table, and write it to docs/results if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of a campaign")
    options = parser.parse_args()
    num_faults = 0
    for text, num_faults in campaign(options.targets, options.seed, options.share):  # noqa: B007
        # What was found so far stays, whatever ends the rest.
        if options.write:
            result_pages.put("make fuzz", text)
    sys.stdout.write(text)
    sys.exit(1 if num_faults else 0)


def campaign(names: Sequence[str], seed: int, share: float) -> Iterator[tuple[str, int]]:
    """Attack these targets or all; after each, the table and the number of faults so far."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true"}
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - after the environment is set

    started = time.monotonic()
    rows, totals = [], [0] * len(OUTCOMES)
    for name in names or TARGETS:
        num_inputs = max(1, round(TARGETS[name][1] * share))
        counts, seconds = in_a_process(name, num_inputs, seed)
        numbers = [counts.get(outcome, 0) for outcome in OUTCOMES]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        rows.append([name, f"{sum(numbers):,}", *(f"{n:,}" for n in numbers), f"{seconds:.0f}"])
        spent = time.monotonic() - started
        last = ["all", f"{sum(totals):,}", *(f"{n:,}" for n in totals), f"{spent:.0f}"]
        heading = ["input", "inputs", *OUTCOMES, "seconds"]
        shown = table(heading, [*rows, last])
        text = f"{machine()}, {spent / 60:.0f} minutes, seed {seed}.\n\n{shown}\n"
        yield text, sum(totals[2:])


def in_a_process(name: str, num_inputs: int, seed: int) -> tuple[Counter[str], float]:
    """Attack a target in forks of this process: another goes on where a library aborts one."""
    started = time.monotonic()
    counts = Counter[str]()
    while counts.total() < num_inputs:
        with tempfile.TemporaryDirectory() as folder:
            counts += attack_once(Path(folder), name, num_inputs - counts.total(), seed)
        seed += 1
    seconds = time.monotonic() - started
    sys.stderr.write(f"{name}: {dict(counts)} in {seconds:.0f} s\n")
    return counts, seconds


def attack_once(folder: Path, name: str, num_inputs: int, seed: int) -> Counter[str]:
    """The inputs of one fork: all, or those up to the one that aborted it."""
    forked = multiprocessing.get_context("fork")
    receiver, sender = forked.Pipe(duplex=False)
    process = forked.Process(target=attack_one, args=(sender, folder, name, num_inputs, seed))
    process.start()
    sender.close()
    counts = Counter[str]()
    with suppress(EOFError):
        while True:
            counts = receiver.recv()
    process.join()
    if process.exitcode:
        counts["refused" if is_worded(folder) else "traceback"] += 1
    return counts


def is_worded(folder: Path) -> bool:
    """Whether a user who gives the last command of an aborted fork gets a message."""
    from tests.fuzz.targets import COMMAND  # noqa: PLC0415 - after the environment is set

    if not (folder / COMMAND).exists():
        return False
    arguments = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    command = [sys.executable, "-P", "-m", "gdc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    sys.stderr.write(f"{command}: {done.returncode} {done.stderr[-500:]}\n")
    return done.returncode == USER_ERROR and "\nerror: " in f"\n{done.stderr}"


def attack_one(sender: Connection, folder: Path, name: str, num_inputs: int, seed: int) -> None:
    """Attack one target in a folder; tell its faults, and send its counts after each input."""
    from tests.fuzz.campaign import attack  # noqa: PLC0415 - see above
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(folder)
    tally = attack(TARGETS[name][0], num_inputs, seed, sender.send)
    for place, account in tally.faults.items():
        sys.stderr.write(f"---- {name}: {place}\n{account}\n")


if __name__ == "__main__":
    main()

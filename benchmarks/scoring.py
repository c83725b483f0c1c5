"""Time of scoring a trace, compared with only reading it and with a loop over samples in Python.

    python benchmarks/scoring.py
    python benchmarks/scoring.py --samples 4000000
    python benchmarks/scoring.py --samples 40000000 --against ../former --parts files

Makes a trace (by default 4 GB of losses) in work/scoring and removes it. Every part runs in a
process of its own, in turns, and is timed after the imports. Parts compared with only reading are
shown for the turn with the median ratio; all others by their shortest run, as other work on the
machine only lengthens it. The linear series reads the first rows of the same trace.

``--against`` compares with another checkout of this repository: reading and `gdc map`, of its
default axis and of the paper's, run by turns with its code and with ours, and medians of processor
seconds and of time on the clock are printed, alone and over those of reading. Other parts can be
named where both have what they call.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from table import Row, render
from timing import of_median_ratio

from gdc import scores
from gdc.commands.map import UNTESTED_AXIS, Request, run
from gdc.config import PartitionConfig, ScoreConfig
from gdc.mapping import quadrants
from gdc.recording.trace import TraceScan, loss_column, loss_table
from gdc.schema import CHECKPOINTS, TRACE_INDEX
from gdc.workspace import traces

FOLDER = Path(__file__).resolve().parent.parent / "work" / "scoring"
LOOPED = (1_000_000, 5)
SHORT = ("read", "difficulty_memorization_quadrants", "quantile_epsilon")
LONG = ("all_scores", "unchecked_files", "files", "files_by_memorization")
COMPARED = ("files", "files_by_memorization")
COMPARABLE = (*SHORT, "computed", "unchecked_files", *COMPARED)
# What takes a minute runs once.
NUM_TURNS, LINEAR_TURNS, AGAINST_TURNS = 5, 2, 3
GIVEN = {"kind": "absolute", "value": 1.0}
SCORE = {
    "mode": "probe",
    "num_early": 2,
    "epsilon": GIVEN,
    "hysteresis": 0.1,
    "enabled": ("memorization",),
}
QUANTILE = {"kind": "quantile", "value": 0.3}
PARTITION = PartitionConfig.model_validate(
    {
        "axis": "memorization",
        "difficulty": {"kind": "quantile", "value": 0.5},
        "memorization": {"kind": "quantile", "value": 0.9},
    }
)
Result = Mapping[str, float]
Part = tuple[str, int, int]  # its name, samples, checkpoints
MAKE = "make"


# ---- the parts, each in a process of its own


def read(trace: TraceScan) -> None:
    """The limit: every loss is read and added up."""
    losses = trace.samples.drop(TRACE_INDEX.names())
    losses.select(pl.all().sum()).collect(engine="streaming")


def difficulty_memorization_quadrants(trace: TraceScan, **rules: object) -> pl.DataFrame:
    """Three columns in memory."""
    table, _ = scores.scan_scores(trace, score_rules(**rules))
    points = table.select("difficulty", "memorization").collect(engine="streaming")
    summary = quadrants.summarize(points, PARTITION, trace.samples.select("sample_id"))
    quadrant = quadrants.quadrant(PARTITION.axis, summary.thresholds)
    return points.lazy().with_columns(quadrant=quadrant).collect(engine="streaming")


def quantile_epsilon(trace: TraceScan) -> None:
    """The same with a quantile of all losses for epsilon, which takes a pass of its own."""
    difficulty_memorization_quadrants(trace, epsilon=QUANTILE)


def all_scores(trace: TraceScan) -> None:
    """Every score of the losses alone, summed, so that no column is kept."""
    everything = (*scores.FORGETTING, *scores.STREAMED)
    table, _ = scores.scan_scores(trace, score_rules(enabled=everything))
    table.drop("sample_id").select(pl.all().sum()).collect(engine="streaming")


def with_std(trace: TraceScan) -> None:
    """What the loop computes."""
    table, _ = scores.scan_scores(trace, score_rules(enabled=("std", "mean_loss")))
    table.drop("sample_id").collect(engine="streaming")


def loop(trace: TraceScan) -> None:
    """A dict of lists, then numpy for each sample, as the scripts of dataset-cartography do."""
    table = trace.samples.collect()
    curves: dict[str, list[float]] = {sample: [] for sample in table["sample_id"]}
    for name in trace.columns("probe"):
        for sample, loss in zip(table["sample_id"], table[name], strict=True):
            curves[sample].append(loss)
    rows = []
    for curve in curves.values():
        forgotten = sum(a < 1 < b for a, b in pairwise(curve))
        rows.append(
            (np.mean(curve[:2]), forgotten / (len(curve) - 1), np.mean(curve), np.std(curve))
        )


def mapped(trace: TraceScan) -> pl.LazyFrame:
    """Ids and scores of the default map, of those losses alone that it reads."""
    rules = score_rules(enabled=(UNTESTED_AXIS,))
    columns = scores.columns_read(trace.columns("probe"), rules)
    return scores.scan_scores(traces.scan(FOLDER / "trace", columns=columns), rules)[0]


def computed(trace: TraceScan) -> None:
    """All that `gdc map` writes of the losses, summed in place of written."""
    mapped(trace).drop("sample_id").select(pl.all().sum()).collect(engine="streaming")


def unchecked_files(trace: TraceScan) -> None:
    """The limit of `gdc map`: its table, with thresholds that are given and nothing checked."""
    folder = FOLDER / "unchecked"
    folder.mkdir(exist_ok=True)
    quadrant = quadrants.quadrant(UNTESTED_AXIS, (2.0, 0.1))
    mapped(trace).with_columns(quadrant=quadrant).sink_parquet(
        folder / "scores.parquet", compression="zstd", compression_level=1
    )


def files(_: TraceScan) -> None:
    """The command `gdc map`: ids, difficulty, the axis and quadrants, written."""
    run(Request(FOLDER / "trace", FOLDER / "map", mode="probe"))


def files_by_memorization(_: TraceScan) -> None:
    """The same by the paper's axis: it reads all losses, and a quantile of them for epsilon."""
    run(Request(FOLDER / "trace", FOLDER / "map", mode="probe", axis="memorization"))


PARTS: Mapping[str, Callable[[TraceScan], object]] = {
    part.__name__: part
    for part in (
        read,
        difficulty_memorization_quadrants,
        quantile_epsilon,
        all_scores,
        computed,
        unchecked_files,
        files,
        files_by_memorization,
        with_std,
        loop,
    )
}


def score_rules(**changes: object) -> ScoreConfig:
    """The rules with some of them changed."""
    return ScoreConfig.model_validate({**SCORE, **changes})


def run_part(part: str, num_samples: int, num_checkpoints: int) -> Result:
    """Seconds, processor seconds and GB at most, in this process."""
    # In the repository `gdc map` would refuse a folder below work/, which is the pipeline's.
    os.chdir(FOLDER)
    trace = traces.scan(FOLDER / "trace")
    chosen = trace.checkpoints.head(num_checkpoints)
    names = [*TRACE_INDEX.names(), *map(loss_column, chosen["checkpoint"])]
    samples = trace.samples.select(names)
    if num_samples < trace.num_samples:
        samples = samples.head(num_samples)
    trace = TraceScan(samples, chosen, num_samples, trace.name)
    started, processor = time.perf_counter(), time.process_time()
    PARTS[part](trace)
    return {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - processor,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


# ---- the trace


def make_trace(folder: Path, num_samples: int, num_checkpoints: int) -> None:
    """Falling curves with noise; ids of twelve digits."""
    (folder / "train").mkdir(parents=True)
    rows = [(t, t, float(t), "probe", 0.1) for t in range(num_checkpoints)]
    pl.DataFrame(rows, schema=CHECKPOINTS, orient="row").write_parquet(
        folder / "checkpoints.parquet"
    )
    ids = pl.int_range(num_samples).cast(pl.String).str.zfill(12).alias("sample_id")
    num_tokens = pl.lit(100, pl.Int64).alias("num_tokens")
    pl.select(ids, num_tokens).write_parquet(folder / "train" / "index.parquet")
    rng = np.random.default_rng(0)
    first = 3 + rng.standard_normal(num_samples, dtype=np.float32)
    for t in range(num_checkpoints):
        losses = rng.standard_normal(num_samples, dtype=np.float32)
        losses *= 0.3
        losses += first * np.float32(0.85**t)
        table = loss_table([np.abs(losses, out=losses)]).rename({loss_column(0): loss_column(t)})
        table.write_parquet(folder / "train" / f"{loss_column(t)}.parquet", compression="zstd")


# ---- what is printed


def in_a_process(
    part: str, num_samples: int, num_checkpoints: int, checkout: Path | None = None
) -> Result:
    """Run one part by itself."""
    result: Result = json.loads(start(part, num_samples, num_checkpoints, checkout))
    return result


def start(part: str, num_samples: int, num_checkpoints: int, checkout: Path | None = None) -> str:
    """What a process of this script prints, with the package of a checkout; None: ours."""
    command = [sys.executable, __file__, "--part", part, "--samples", str(num_samples)]
    command += ["--checkpoints", str(num_checkpoints)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)} if checkout else None
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def by_turns(parts: Sequence[Part], num_turns: int) -> list[dict[Part, Result]]:
    """Run all parts, one after the other, so many times."""
    turns: list[dict[Part, Result]] = []
    for _ in range(num_turns):
        turns.append({})
        for part in parts:
            turns[-1][part] = in_a_process(*part)
            line(part, turns[-1][part])
    return turns


def seconds_of(turns: Sequence[Mapping[Part, Result]], part: Part) -> float:
    """Of the shortest run."""
    return min(turn[part]["seconds"] for turn in turns)


def side_by_side(
    turns: Sequence[Mapping[Part, Result]], ours: Part, theirs: Part
) -> tuple[float, float]:
    """Seconds of both in one turn."""
    return of_median_ratio((turn[ours]["seconds"], turn[theirs]["seconds"]) for turn in turns)


def line(part: Part, result: Result) -> None:
    """All measures of a part, for who watches."""
    name, num_samples, num_checkpoints = part
    sys.stderr.write(
        f"{name:36} {num_samples:>11,} x {num_checkpoints} {result['seconds']:8.2f} s "
        f"(processor {result['processor']:.2f} s) {result['gigabytes']:5.2f} GB\n"
    )


def compare(num_samples: int, num_checkpoints: int) -> list[Row]:
    """All comparisons."""
    read, to_quadrants, quantile, scored, unchecked, written, by_memorization = (
        (name, num_samples, num_checkpoints) for name in (*SHORT, *LONG)
    )
    turns = by_turns([read, to_quadrants, quantile], NUM_TURNS)
    long = by_turns([scored, unchecked, written, by_memorization], 1)
    size = f"{num_samples * num_checkpoints:.0e} losses".replace("e+0", "e")
    rows = [
        Row(f"{size} to quadrants, only reading them, s",
            *side_by_side(turns, to_quadrants, read), "<=", 2),
        Row("the same with a quantile of all losses for epsilon",
            *side_by_side(turns, quantile, read), "<=", 2),
        Row("their memory at most, of 4 GB", max(turn[quantile]["gigabytes"] for turn in turns), 4,
            "<=", 1),
        Row("all scores of the losses, of 60 s", seconds_of(long, scored), 60, "<=", 1),
        Row("`gdc map` with all its files, only reading, s", seconds_of(long, written),
            seconds_of(turns, read)),
        Row("the same, reading, computing and writing alone, s", seconds_of(long, written),
            seconds_of(long, unchecked)),
        Row("`gdc map` by memorization, only reading, s", seconds_of(long, by_memorization),
            seconds_of(turns, read)),
    ]  # fmt: skip
    looped = (min(LOOPED[0], num_samples), min(LOOPED[1], num_checkpoints))
    ours, theirs = ("with_std", *looped), ("loop", *looped)
    seconds = (
        seconds_of(by_turns([ours], NUM_TURNS), ours),
        seconds_of(by_turns([theirs], 1), theirs),
    )
    claim = f"{looped[0]:.0e} x {looped[1]} losses, a loop over samples, s".replace("e+0", "e")
    return [*rows, Row(claim, *seconds, "<=", 0.01), *linear(num_samples, num_checkpoints)]


def linear(num_samples: int, num_checkpoints: int) -> list[Row]:
    """Twice as many rows in twice the time."""
    sizes = [num_samples]
    while sizes[0] >= 2_000_000:
        sizes.insert(0, sizes[0] // 2)
    parts = [("difficulty_memorization_quadrants", size, num_checkpoints) for size in sizes]
    turns = by_turns(parts, LINEAR_TURNS)
    seconds = [seconds_of(turns, part) for part in parts]
    return [
        Row(f"{size:,} rows to quadrants, twice the time of half as many, s", more, 2 * less,
            "<=", 1.1)
        for size, less, more in zip(sizes[1:], seconds[:-1], seconds[1:], strict=True)
    ]  # fmt: skip


def against(checkout: Path, parts: Sequence[str], num_samples: int, num_checkpoints: int) -> str:
    """Medians of our code and of another checkout, run by turns: a line for each part."""
    codes = {"former": checkout.resolve(), "ours": FOLDER.parent.parent}
    seen: dict[tuple[str, str], list[Result]] = {}
    for _ in range(AGAINST_TURNS):
        for part, code in product(dict.fromkeys(["read", *parts]), codes):
            result = in_a_process(part, num_samples, num_checkpoints, codes[code])
            line((f"{part}, {code}", num_samples, num_checkpoints), result)
            seen.setdefault((part, code), []).append(result)
    lines = ["part, code: processor seconds (of reading), seconds (of reading), GB at most"]
    for (part, code), results in seen.items():
        shown = [f"{max(result['gigabytes'] for result in results):.2f}"]
        for measure in ("seconds", "processor"):  # put first, so the other way round
            ours, reading = (
                median(result[measure] for result in runs) for runs in (results, seen["read", code])
            )
            shown.insert(0, f"{ours:.2f} (x{ours / reading:.2f})")
        lines.append(f"{part}, {code}: {', '.join(shown)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the trace, compare, remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--parts", nargs="+", choices=COMPARABLE, default=COMPARED)
    parser.add_argument("--part", choices=[MAKE, *PARTS], help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    if given.part == MAKE:
        make_trace(FOLDER / "trace", given.samples, given.checkpoints)
        return
    if given.part:
        sys.stdout.write(json.dumps(run_part(given.part, given.samples, given.checkpoints)))
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        # A process inherits the peak of the one that starts it, so this one stays small.
        start(MAKE, given.samples, given.checkpoints)
        if given.against:
            sys.stdout.write(against(given.against, given.parts, given.samples, given.checkpoints))
            return
        sys.stdout.write(render(compare(given.samples, given.checkpoints)))
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()

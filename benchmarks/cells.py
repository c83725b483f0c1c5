"""Overhead of the flow for each cell of a matrix, by the number of cells, in processor seconds.

    python benchmarks/cells.py 30 100          # prints
    python benchmarks/cells.py 30 100 200 --write  # and writes the table to docs/results/speed.md

A workspace has every stage of the pipeline, but each only copies its inputs; a matrix of the given
number of cells stands in for `retrain`. `gdc run` is started in it once, and the processor seconds
of it and of all processes below it are counted, so that other work on the machine hardly matters.
A run with one cell is taken off.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import result_pages
from machine import machine

from gdc.statistics import markdown

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.flows.toy_pipeline import make_pipeline, whole_graph, write_graph

BAR: Final = 1.3
# Copies a file, without python: what is measured is the flow.
CELL: Final = "mkdir -p data/cells && cp data/intervene data/cells/${item.seed}"


class Run(NamedTuple):
    """What a run took."""

    num_cells: int
    processor_seconds: float
    seconds: float


def main() -> None:
    """Run with each number of cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("num_cells", type=int, nargs="+", help="cells of a run")
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    if min(options.num_cells) < 2:
        parser.error(f"expected at least 2 cells, got {min(options.num_cells)}")
    fixed, *runs = (measure(num_cells) for num_cells in (1, *options.num_cells))
    text = f"{machine()}.\n\n{table(fixed, runs)}"
    sys.stdout.write(text)
    if options.write:
        result_pages.put("benchmarks/cells.py", text)


def measure(num_cells: int) -> Run:
    """Run a workspace with so many cells, from nothing to the end."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_pipeline(workspace)
        write_graph(workspace, graph_with(num_cells))
        before, begun = _used(), time.monotonic()
        command = [sys.executable, "-P", "-m", "gdc", "run"]
        variables = {**os.environ, "MLFLOW_TRACKING_URI": ""}
        done = subprocess.run(
            command, cwd=workspace, env=variables, capture_output=True, text=True, check=False
        )
        seconds, used = time.monotonic() - begun, _used() - before
        num_made = len(list((workspace / "data/cells").iterdir())) if done.returncode == 0 else 0
        if num_made != num_cells:
            raise SystemExit(f"expected {num_cells} cells, got {num_made}: {done.stdout}")
    sys.stderr.write(f"{num_cells} cells: {used:.1f} processor seconds, {seconds:.1f} s\n")
    return Run(num_cells, used, seconds)


def graph_with(num_cells: int) -> dict[str, Any]:
    """All stages, and the matrix."""
    graph = whole_graph()
    graph["stages"]["cells"] = {
        "matrix": {"seed": list(range(num_cells))},
        "cmd": CELL,
        "deps": ["data/intervene"],
        "outs": ["data/cells/${item.seed}"],
    }
    return graph


def table(fixed: Run, runs: list[Run]) -> str:
    """Overhead of a cell, and how it grows from the first number of cells."""
    heading = ("cells", "processor seconds", "for each cell", "ratio", "bar", "")
    each = [(run.processor_seconds - fixed.processor_seconds) / (run.num_cells - 1) for run in runs]
    rows = []
    for run, of_cell in zip(runs, each, strict=True):
        ratio = of_cell / each[0]
        verdict = "" if run is runs[0] else "reached" if ratio <= BAR else "**missed**"
        used = f"{run.processor_seconds:.1f}"
        rows.append([f"{run.num_cells}", used, f"{of_cell:.2f}", f"{ratio:.2f}", f"{BAR}", verdict])
    return markdown.table(heading, rows)


def _used() -> float:
    """Processor seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

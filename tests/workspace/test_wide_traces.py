"""A trace of more checkpoints than polars has threads to open files in."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gdc.recording.trace import Trace
from gdc.workspace import paths
from tests.builders import trace_of, write_trace

# Their number with a limit of 4 is to it as 600 checkpoints are to 512.
NUM_CHECKPOINTS = 40


def wide_trace() -> Trace:
    losses = np.abs(np.random.default_rng(0).normal(2, 1, (50, NUM_CHECKPOINTS)))
    return trace_of({f"s{i:02d}": curve for i, curve in enumerate(losses.tolist())})


def test_it_is_read_with_the_same_bytes_and_without_a_warning_in_however_few_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_trace(7, wide_trace())
    program = f"""
import sys
from pathlib import Path
from gdc.commands.map import map_trace
from gdc.scores import score_samples
from gdc.workspace import traces
from tests.mapping.builders import config, quantile
from tests.scores.builders import config as rules

out = Path(sys.argv[1])
score = rules(enabled=("std", "relative_area"), epsilon=quantile(0.3))
map_trace(
    Path("{paths.trace_path(7)}"), out,
    rules(enabled=("memorization", "std"), epsilon=quantile(0.3)),
    config(quantile(0.5), quantile(0.9), axis="std"),
)
trace = traces.read(7)
scored = score_samples([trace], [trace.index.select("sample_id")], score, seed=0)
scored.samples.write_parquet(out / "scored.parquet")
trace.losses.collect().write_parquet(out / "losses.parquet")
"""
    for limit in ("1", "4", "512"):
        done = subprocess.run(
            [sys.executable, "-c", program, limit],
            check=True, capture_output=True, text=True, timeout=300,
            env={**os.environ, "POLARS_MAX_BLOCKING_THREAD_COUNT": limit},
        )  # fmt: skip
        assert done.stderr == ""
    for name in ("scores.parquet", "scored.parquet", "losses.parquet"):
        assert len({(tmp_path / limit / name).read_bytes() for limit in ("1", "4", "512")}) == 1

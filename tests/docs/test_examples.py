"""The examples run, and find what they were made to show."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests.builders import REPOSITORY


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name), str(folder)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_trace_is_mapped_and_the_forgotten_samples_are_flagged(tmp_path: Path) -> None:
    told = run("map_a_trace.py", tmp_path)
    assert "most often forgotten: sample-0000" in told
    quadrants = pl.read_parquet(tmp_path / "map/quadrants.parquet")
    flagged = quadrants.filter(quadrant="hotspot-memorized")["sample_id"].to_list()
    assert 30 < len(flagged) <= 50
    assert set(flagged) <= {f"sample-{i:06d}" for i in range(50)}


@pytest.mark.slow
def test_a_trainer_is_recorded_and_its_repeated_secret_stands_out(tmp_path: Path) -> None:
    told = run("record_a_trainer.py", tmp_path)
    secrets = ", ".join(f"secret-{i}" for i in range(8))
    assert told.endswith(f"lost most of their loss: {secrets}\n")


@pytest.mark.slow
def test_a_model_is_audited_and_gives_the_planted_secret_away(tmp_path: Path) -> None:
    told = run("audit_a_model.py", tmp_path)
    assert "planted secrets extracted: 100 %" in told
    audit = pl.read_parquet(tmp_path / "audit/audit.parquet")
    assert audit.filter(pl.col("num_repeats") == 0)["extracted"].sum() == 0
    assert (audit.height, json.loads((tmp_path / "audit/report.json").read_text()) != {}) == (
        10, True,
    )  # fmt: skip

"""The limit that `gdc map` is compared with is a true one: its files hold the same."""

from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from gdc.commands.map import UNTESTED_AXIS, map_trace
from gdc.config import PartitionConfig
from gdc.filesystem.table_files import read_parquet
from gdc.workspace import traces
from tests.builders import REPOSITORY


def test_files_without_checks_hold_what_gdc_map_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    monkeypatch.chdir(tmp_path)
    scoring = import_module("scoring")
    monkeypatch.setattr(scoring, "FOLDER", tmp_path)
    scoring.make_trace(tmp_path / "trace", 1000, 4)
    scoring.unchecked_files(traces.scan(tmp_path / "trace"))
    rules = {"kind": "absolute", "value": 2.0}, {"kind": "absolute", "value": 0.1}
    partition = PartitionConfig.model_validate(
        {"axis": UNTESTED_AXIS, "difficulty": rules[0], "memorization": rules[1]}
    )
    score = scoring.score_rules(enabled=(UNTESTED_AXIS,))
    map_trace(tmp_path / "trace", tmp_path / "map", score, partition)
    whole = read_parquet(tmp_path / "map/scores.parquet")
    assert whole.height == 1000
    unchecked = read_parquet(tmp_path / "unchecked/scores.parquet")
    assert_frame_equal(unchecked.with_columns(pl.col("quadrant").cast(pl.String)), whole)

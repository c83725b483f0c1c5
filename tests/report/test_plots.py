"""The data map: ties can be seen, equal bytes each time."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.report import build, plots
from tests.report.builders import (
    frame_of,
    tables_of,
)


@given(num=st.integers(1, 30), max_points=st.integers(1, 30), seed=st.integers(0, 99))
def test_thinning_keeps_a_subset_in_order_that_depends_on_ids_alone(
    num: int, max_points: int, seed: int
) -> None:
    points = pl.DataFrame({"sample_id": [f"s{i:02}" for i in range(num)]})
    kept = plots.thin(points, max_points)
    assert kept.height == min(num, max_points)
    assert kept["sample_id"].to_list() == sorted(set(kept["sample_id"]) & set(points["sample_id"]))
    shuffled = points.sample(fraction=1, shuffle=True, seed=seed)
    assert_frame_equal(plots.thin(shuffled, max_points).sort("sample_id"), kept)


@pytest.mark.parametrize(
    ("scores", "height"),
    [
        pytest.param([0.0, 0.5, 0.75, 0.5], 0.4 * 0.25, id="two fifths of the smallest gap"),
        pytest.param([0.5, 0.5], 0.0, id="one value has no gap"),
        pytest.param(list(range(26)), 0.0, id="many values need none"),
    ],
)
def test_jitter_never_mixes_two_values(scores: list[float], height: float) -> None:
    assert plots.jitter_height(pl.Series(scores, dtype=pl.Float64)) == height


def test_the_picture_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    points = build.map_points(tables_of())
    for name in ("a.png", "b.png"):
        plots.data_map_png(points, frame_of(), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first

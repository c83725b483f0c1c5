"""A streaming quantile equals those of numpy and polars, whatever the sample."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.statistics import streaming_quantile

# Few distinct values, so that many tie, and any others.
values = st.one_of(
    st.integers(0, 4).map(lambda quarters: quarters / 4),
    st.floats(-(2.0**60), 2.0**60, width=32),
    st.just(float("nan")),
    st.none(),
)
columns = st.lists(st.lists(values, min_size=1, max_size=20), min_size=1, max_size=4)
shares = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))


def table_of(column: Sequence[float | None], dtype: type[pl.DataType]) -> pl.LazyFrame:
    halves = {"a": column, "b": list(reversed(column))}
    return pl.LazyFrame(halves, schema={"a": dtype, "b": dtype})


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
@given(columns=columns, share=shares)
def test_a_quantile_is_that_of_all_values_of_all_columns(
    dtype: type[pl.DataType], columns: list[list[float | None]], share: float
) -> None:
    tables = [table_of(column, dtype) for column in columns]
    everything = pl.Series([v for column in columns for v in column + column], dtype=dtype)
    known = everything.cast(pl.Float64).fill_nan(None).drop_nulls()
    num_rows = [len(column) for column in columns]
    found = streaming_quantile.quantile(tables, share, num_rows)
    assert found == known.quantile(share, interpolation="linear")
    in_memory = [table.collect() for table in tables]
    assert found == streaming_quantile.quantile(in_memory, share, num_rows)
    if known.len():
        assert found == pytest.approx(np.quantile(known, share), rel=1e-9, abs=1e-30)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    "order",
    [np.arange(50_000), np.random.default_rng(0).permutation(50_000)],
    ids=["rising", "any"],
)
def test_a_misleading_sample_costs_passes_but_gives_the_same_quantile(
    monkeypatch: pytest.MonkeyPatch, order: np.ndarray, share: float
) -> None:
    monkeypatch.setattr(streaming_quantile, "_NUM_SLICES", 2)
    monkeypatch.setattr(streaming_quantile, "_SLICE_ROWS", 16)
    losses = np.sort(np.random.default_rng(1).normal(3, 1, 50_000).astype(np.float32))[order]
    found = streaming_quantile.quantile([pl.LazyFrame({"loss": losses})], share, [50_000])
    assert found == pytest.approx(np.quantile(losses.astype(np.float64), share), rel=1e-15)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_file_is_read_to_its_end(tmp_path: Path, share: float) -> None:
    """Row groups come one after the other."""
    losses = np.random.default_rng(1).normal(3, 1, 30_000)
    pl.DataFrame({"loss": losses}).write_parquet(tmp_path / "loss.parquet", row_group_size=777)
    found = streaming_quantile.quantile(
        [pl.scan_parquet(tmp_path / "loss.parquet")], share, [30_000]
    )
    assert found == pytest.approx(np.quantile(losses, share), rel=1e-15)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_table_in_memory_of_several_chunks_is_read_to_its_end(share: float) -> None:
    losses = np.random.default_rng(1).normal(3, 1, 30_000)
    table = pl.concat(
        [pl.DataFrame({"loss": losses[:777]}), pl.DataFrame({"loss": losses[777:]})], rechunk=False
    )
    found = streaming_quantile.quantile([table], share, [30_000])
    assert found == pytest.approx(np.quantile(losses, share), rel=1e-15)


def test_many_columns_on_disk_do_not_ask_for_more_threads_than_polars_has(tmp_path: Path) -> None:
    """With a limit of 64 threads in place of 512, 20 files in 8 places at a time would be 160."""
    for column in range(20):
        losses = np.random.default_rng(column).random(140_000, dtype=np.float32)
        table = pl.DataFrame({f"loss_{column}": losses})
        table.write_parquet(tmp_path / f"{column}.parquet", row_group_size=5_000)
    program = f"""
import polars as pl
from gdc.statistics import streaming_quantile

files = [pl.scan_parquet(f"{tmp_path}/{{column}}.parquet") for column in range(20)]
table = pl.concat(files, how="horizontal")
print(streaming_quantile.quantile([table], 0.5, [140_000]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True, timeout=300,
        env={**os.environ, "POLARS_MAX_BLOCKING_THREAD_COUNT": "64"},
    )  # fmt: skip
    assert float(done.stdout) == pytest.approx(0.5, abs=0.01)
    assert "thread" not in done.stderr


def test_a_column_without_rows_has_no_quantile() -> None:
    assert (
        streaming_quantile.quantile([pl.LazyFrame(schema={"loss": pl.Float32})], 0.5, [0]) is None
    )


def test_rows_that_a_damaged_file_hides_are_missed(tmp_path: Path) -> None:
    """Polars' decoder may fail in the middle, and the batches then just end."""
    path = tmp_path / "a.parquet"
    losses = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    pl.DataFrame({"a": losses}).write_parquet(path, row_group_size=5000)
    whole = path.read_bytes()
    refused = 0
    # The lengths of pages and groups stand at the end.
    for place in range(len(whole) - 900, len(whole) - 8):
        damaged = bytearray(whole)
        damaged[place] ^= 0x08
        path.write_bytes(damaged)
        try:
            batches = pl.scan_parquet(path).collect_batches(engine="streaming")
            if sum(batch.height for batch in batches) >= 30_000:
                continue
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            continue
        with pytest.raises((pl.exceptions.PolarsError, pl.exceptions.PanicException)):
            streaming_quantile.quantile([pl.scan_parquet(path)], 0.5, [30_000])
        refused += 1
        break
    assert refused == 1


def test_a_table_with_other_rows_than_told_is_refused() -> None:
    table = pl.DataFrame({"loss": [1.0, 2.0]})
    for place in (table, table.lazy()):
        with pytest.raises(pl.exceptions.ComputeError, match="expected 3 rows, got 2"):
            streaming_quantile.quantile([place], 0.5, [3])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(
    ("order", "error"),
    [
        pytest.param(lambda rows: rows, 1 / 64, id="sorted"),
        pytest.param(lambda rows: rows[::-1], 1 / 64, id="sorted the other way"),
        # Four standard errors of 64 x 64 rows, at a quantile of a half.
        pytest.param(np.random.default_rng(2).permutation, 1 / 32, id="any"),
    ],
)
def test_spread_rows_stand_for_all_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    order: Callable[[np.ndarray], np.ndarray],
    error: float,
) -> None:
    monkeypatch.setattr(streaming_quantile, "_PLACE_VALUES", 64)
    losses = order(np.sort(np.random.default_rng(1).normal(3, 1, 100_000)))
    part = streaming_quantile.spread_rows(pl.LazyFrame({"loss": losses}), 100_000)["loss"]
    found = float(np.quantile(part, share))
    assert len(part) == streaming_quantile.num_spread_rows(100_000, 1) == 64 * 64
    assert 0 < abs(np.mean(losses < found) - share) < error


def test_spread_rows_are_whole_rows_in_their_order_and_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of several files are those of one: row groups and shards do not matter."""
    monkeypatch.setattr(streaming_quantile, "_PLACE_VALUES", 2000)
    rows = pl.select(a=pl.int_range(100_000).cast(pl.Float64)).with_columns(b=-pl.col("a"))
    rows.write_parquet(tmp_path / "whole.parquet", row_group_size=5_001)
    rows[:30_001].write_parquet(tmp_path / "0.parquet")
    rows[30_001:].write_parquet(tmp_path / "1.parquet")
    parts = [pl.scan_parquet(tmp_path / f"{shard}.parquet") for shard in range(2)]
    whole, sharded = (
        streaming_quantile.spread_rows(table, 100_000)
        for table in (pl.scan_parquet(tmp_path / "whole.parquet"), pl.concat(parts))
    )
    assert whole.equals(sharded)
    assert whole["a"].is_sorted()
    assert whole["a"].is_unique().all()
    assert whole["b"].equals((-whole["a"]).alias("b"))
    assert (whole["a"] // (100_000 / 64)).n_unique() == 64


def test_a_table_with_fewer_rows_than_places_is_read_whole() -> None:
    table = pl.LazyFrame({"loss": [3.0, 1.0, 2.0]})
    assert streaming_quantile.spread_rows(table, 3)["loss"].to_list() == [3.0, 1.0, 2.0]
    with pytest.raises(pl.exceptions.ComputeError, match="expected 9 rows, got 3"):
        streaming_quantile.spread_rows(table, 9)

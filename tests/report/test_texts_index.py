"""The index of the page of all texts: order without a sort, rows of several parts, a new table."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.report.sample_table import JOINED, sample_table
from gdc.report.texts_index import TextsIndex, best_first, open_index
from tests.report.builders import tables_of

values = st.one_of(st.just(float("nan")), st.integers(-3, 3).map(float))


@given(column=st.lists(values, max_size=20), number=st.integers(1, 25), down=st.booleans())
def test_the_first_are_those_of_a_stable_sort(column: list[float], number: int, down: bool) -> None:
    table = pl.DataFrame({"value": pl.Series(column, dtype=pl.Float64)}).with_row_index("row")
    expected = table.with_columns(pl.col("value").fill_nan(None)).sort(
        "value", "row", descending=[down, False], nulls_last=True
    )
    found = best_first(np.array(column, dtype=np.float64), number, down=down)
    assert found.tolist() == expected["row"].head(number).to_list()


def write_samples(path: Path, text: str) -> pl.LazyFrame:
    made = tables_of(text=text)
    joined = {name: getattr(made, name).lazy() for name in JOINED}
    sample_table(joined, {"none": made.plans["none"].lazy()}, {}).sink_parquet(path)
    return pl.scan_parquet(path)


def test_an_index_is_made_once_for_each_table(tmp_path: Path) -> None:
    path, folder = tmp_path / "samples.parquet", tmp_path / "work/index"
    index = open_index(write_samples(path, "old"), path, folder)
    made = (folder / "wide.arrow").stat().st_mtime_ns
    again = open_index(pl.scan_parquet(path), path, folder)
    assert (folder / "wide.arrow").stat().st_mtime_ns == made
    assert again.narrow.equals(index.narrow)
    assert again.number("quadrant", "nowhere") == -1
    changed = write_samples(path, "new")
    os.utime(path, ns=(1, 1))
    texts = open_index(changed, path, folder).wide.select("text").collect()["text"]
    assert texts.str.starts_with("new").all()


@pytest.mark.parametrize("numbers", [[3, 0, 4, 2], []])
def test_rows_come_from_all_parts_in_the_order_asked_for(numbers: list[int]) -> None:
    wide = pl.DataFrame({"text": list("abcde"), "_source": "x", "_text": "y"})
    batches = wide.to_arrow().to_batches(max_chunksize=2)
    index = TextsIndex(wide, wide.lazy(), batches, batches[0].schema, {})
    assert len(batches) == 3
    found = index.rows(np.array(numbers, dtype=np.int64))
    assert found.columns == ["text"]
    assert found["text"].to_list() == ["abcde"[number] for number in numbers]

"""Parquet files, good and bad, against rows written by hand."""

from pathlib import Path

import polars as pl
import pytest

from gdc.errors import DataError
from tests.corpus.sources.builders import good, parquet, read


def test_parquet_rows_are_numbered_from_1_in_each_file() -> None:
    Path("d").mkdir()
    pl.DataFrame({"n": [1, 2], "text": ["a", "b"]}).write_parquet("d/1.parquet")
    pl.DataFrame({"text": pl.Series(["c"], dtype=pl.Categorical)}).write_parquet("d/2.parquet")
    assert good(parquet("d")) == [
        ("a", "d/1.parquet:1"),
        ("b", "d/1.parquet:2"),
        ("c", "d/2.parquet:1"),
    ]


def test_bad_parquet_rows_have_the_reasons_of_any_other_row() -> None:
    pl.DataFrame({"id": [1, 2, 1, None], "text": ["a", None, "c", "d"]}).write_parquet("a.parquet")
    found = read(parquet(key="id"))
    assert found.rows.rows() == [("a", "a.parquet:1", "1")]
    assert found.bad_rows.rows() == [
        ("a.parquet:2", "text is null"),
        ("a.parquet:3", "duplicate key, first at a.parquet:1"),
        ("a.parquet:4", "key is null"),
    ]


def test_a_text_may_be_its_own_key() -> None:
    pl.DataFrame({"text": ["a", "b", "a"]}).write_parquet("a.parquet")
    assert read(parquet(key="text")).rows["text"].to_list() == ["a", "b"]


def test_a_column_of_numbers_is_no_text() -> None:
    pl.DataFrame({"text": [1.5]}).write_parquet("a.parquet")
    assert read(parquet()).bad_rows["reason"].to_list() == ["expected a string, got float"]


def test_a_missing_column_is_named_with_those_there() -> None:
    pl.DataFrame({"body": ["x"], "n": [1]}).write_parquet("a.parquet")
    with pytest.raises(DataError, match=r"expected column 'text', got columns \['body', 'n'\]"):
        read(parquet())


@pytest.mark.parametrize("keep", [0, 3, 100, -20])
def test_a_damaged_parquet_file_is_refused(keep: int) -> None:
    pl.DataFrame({"text": ["hello"] * 99}).write_parquet("whole.parquet")
    Path("a.parquet").write_bytes(Path("whole.parquet").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.parquet: expected a Parquet file.*remove it"):
        read(parquet())

"""A sort in parts against a sort of the whole, and rows that are read in many parts against one."""

from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from gdc.corpus.buckets import sorted_on_disk
from gdc.corpus.samples import contents_of
from tests.builders import rows_of

TABLES = st.lists(st.lists(st.text("abc", min_size=1, max_size=2), max_size=6), min_size=1)


@settings(max_examples=10)
@given(tables=TABLES)
def test_buckets_one_after_the_other_are_a_stable_sort_by_content(tables: list[list[str]]) -> None:
    whole = contents_of(rows_of([text for texts in tables for text in texts]))
    parts, first = [], 0
    for texts in tables:
        parts.append(whole[first : first + len(texts)])
        first += len(texts)
    with TemporaryDirectory() as folder, sorted_on_disk(Path(folder) / "new", parts) as buckets:
        assert len(buckets) == len(tables)
        for _ in range(2):
            expected = whole.sort("content_id", maintain_order=True)
            assert_frame_equal(pl.concat(buckets), expected)
        assert sorted(buckets.ids()) == sorted(whole["content_id"])
        for part, bucket in zip(buckets.split(whole), buckets, strict=True):
            assert sorted(part["content_id"]) == bucket["content_id"].to_list()


def test_no_more_files_are_open_than_the_system_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdc.corpus.buckets.MAX_BUCKETS", 2)
    tables = [contents_of(rows_of([str(i)])) for i in range(9)]
    with sorted_on_disk(tmp_path / "new", tables) as buckets:
        assert len(buckets) == 2
        assert sum(bucket.height for bucket in buckets) == 9


def test_nothing_stays_on_disk_and_what_a_kill_left_there_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "rows_000007.parquet").write_text("left")
    with sorted_on_disk(folder, [contents_of(rows_of(["x"]))]) as buckets:
        assert sorted(folder.iterdir()) == buckets.files
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), sorted_on_disk(folder, [contents_of(rows_of(["x"]))]):
        _ = 1 / 0
    assert not folder.exists()

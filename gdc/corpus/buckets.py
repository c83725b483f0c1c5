"""Contents in source order, of any number -> buckets on disk, in order, for a sort in parts."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from gdc import schema
from gdc.corpus import samples
from gdc.filesystem import table_files

# Open files; a larger corpus has larger buckets.
MAX_BUCKETS: Final = 512
_DIGITS: Final = 4  # of a content id, in hexadecimal, that tell its bucket


@dataclass(frozen=True)
class Buckets:
    """Contents by ``content_id``: a bucket holds all copies of its own, and comes before the next.

    Iterating reads the buckets from disk, one at a time: ``content_id``, ``text`` and ``source``,
    sorted by ``content_id``, then in source order.
    """

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for file in self.files:
            yield table_files.read_parquet(file).sort("content_id", "row").drop("row")

    def ids(self) -> pl.Series:
        """``content_id`` of every row, in no order."""
        return table_files.scan_parquet(*self.files).select("content_id").collect()["content_id"]

    def beginnings(self) -> pl.Series:
        """``samples.beginning`` of every row, in the order of ``ids``."""
        first = samples.beginning(pl.col("text")).alias("beginning")
        return table_files.scan_parquet(*self.files).select(first).collect()["beginning"]

    def split(self, rows: pl.DataFrame) -> list[pl.DataFrame]:
        """The rows whose ``content_id`` belongs to each bucket, in order."""
        bucket = rows.select(_bucket(len(self))).to_series()
        return [rows.filter(bucket == number) for number in range(len(self))]


@contextmanager
def sorted_on_disk(folder: Path, contents: Iterable[pl.DataFrame]) -> Iterator[Buckets]:
    """Write contents to as many buckets as there are tables of them.

    Memory holds one table, or one bucket, at a time; that is as large, but for a text with so many
    copies that they fill more than one.

    Args:
        folder: Its content goes at the beginning and at the end.
        contents: Tables as ``corpus.contents_of`` returns them, at least one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield Buckets(_distribute(_spill(folder, contents), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _spill(folder: Path, contents: Iterable[pl.DataFrame]) -> list[Path]:
    files, num_rows = list[Path](), 0
    for table in contents:
        files.append(folder / f"rows_{len(files):06d}.parquet")
        table.with_row_index("row", offset=num_rows).write_parquet(files[-1])
        num_rows += table.height
    return files


def _distribute(spilled: list[Path], folder: Path) -> list[Path]:
    if len(spilled) == 1:
        return spilled
    num_buckets = min(len(spilled), MAX_BUCKETS)
    files = [folder / f"bucket_{number:03d}.parquet" for number in range(num_buckets)]
    columns = schema.to_arrow(table_files.scan_parquet(spilled[0]).head(0).collect()).schema
    with ExitStack() as opened:
        writers = [opened.enter_context(pq.ParquetWriter(file, columns)) for file in files]
        for path in spilled:
            rows = table_files.read_parquet(path)
            for writer, part in zip(writers, Buckets(files).split(rows), strict=True):
                writer.write_table(schema.to_arrow(part))
            path.unlink()
    return files


def _bucket(num_buckets: int) -> pl.Expr:
    """By its first digits, so that buckets have the order of their ids."""
    digits = pl.col("content_id").str.head(_DIGITS).str.to_integer(base=16, dtype=pl.Int64)
    return digits * num_buckets // 16**_DIGITS

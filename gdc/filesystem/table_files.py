"""The path of a table file -> its rows, and back: the only place where polars opens files."""

from collections.abc import Iterator
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Final

import polars as pl

from gdc.filesystem.durable import new_file
from gdc.filesystem.path_checks import require_file

_GROUP_ROWS: Final = 512**2  # as polars has it
_GROUP_BYTES: Final = 2**26


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, also one with ``*?[]~`` in its name, which polars would expand.

    Raises:
        DataError: It is no regular file.
        OSError: It does not exist, or cannot be read.
    """
    require_file(path)
    return pl.read_parquet(path.absolute(), glob=False)


def scan_parquet(*paths: Path) -> pl.LazyFrame:
    """Open Parquet files as one lazy table, rows in the order given; see ``read_parquet``."""
    for path in paths:
        require_file(path)
    return pl.scan_parquet([path.absolute() for path in paths], glob=False)


def scan_ipc(path: Path) -> pl.LazyFrame:
    """Open a file of Arrow as a lazy table; see ``read_parquet``."""
    require_file(path)
    return pl.scan_ipc(path.absolute(), glob=False)


def whole_batches(table: pl.LazyFrame, num_rows: int | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a lazy table, batch by batch, in any order.

    Args:
        table: Opened from files.
        num_rows: That it has; None: they are counted, which reads files that lie side by side.

    Raises:
        ComputeError: Fewer rows come than there are: polars ends without an error where its decoder
            fails.
    """
    num_read = 0
    for batch in table.collect_batches(engine="streaming", maintain_order=False):
        num_read += batch.height
        yield batch
    if num_rows is None:
        num_rows = table.select(pl.len()).collect(engine="streaming").item()
    if num_read != num_rows:
        raise pl.exceptions.ComputeError(f"expected {num_rows} rows, got {num_read}")


def read_ndjson(path: Path) -> pl.DataFrame:
    """Read a file of JSON lines; see ``read_parquet``."""
    require_file(path)
    with path.open("rb") as file:
        return pl.read_ndjson(file)


def read_csv(path: Path) -> pl.DataFrame:
    """Read a file of comma-separated values with a header; see ``read_parquet``."""
    require_file(path)
    with path.open("rb") as file:
        return pl.read_csv(file, infer_schema_length=None)


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table, whole or not at all; its row groups take at most about 64 MB of memory."""
    rows = max(1, int(table.height * _GROUP_BYTES / max(1, table.estimated_size())))
    with new_file(path) as temporary:
        table.write_parquet(
            temporary, compression="zstd", statistics=True, row_group_size=min(rows, _GROUP_ROWS)
        )


def sink_part(path: Path, table: pl.LazyFrame) -> pl.LazyFrame:
    """Write a table that need not fit into memory, to be read again soon, and open it."""
    table.sink_parquet(path, compression="uncompressed", statistics=False)
    return scan_parquet(path)


def checksum(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits."""
    require_file(path)
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()

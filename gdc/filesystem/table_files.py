"""The path of a table file -> its rows: the only place where polars opens files."""

from pathlib import Path

import polars as pl

from gdc.filesystem.path_checks import require_file


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file, whatever its name: polars takes ``*?[]`` for patterns, ``~`` for home.

    Raises:
        DataError: It is no regular file.
        OSError: It is not there, or cannot be read.
    """
    require_file(path)
    return pl.read_parquet(path.absolute(), glob=False)


def scan_parquet(*paths: Path) -> pl.LazyFrame:
    """Open Parquet files, one after the other; see ``read_parquet``."""
    for path in paths:
        require_file(path)
    return pl.scan_parquet([path.absolute() for path in paths], glob=False)


def read_ndjson(path: Path) -> pl.DataFrame:
    """Read a file of JSON lines; see ``read_parquet``."""
    require_file(path)
    with path.open("rb") as file:
        return pl.read_ndjson(file)

"""A trace folder, whoever wrote it -> a refusal of ids, lengths and losses that cannot be.

All is read a block of samples at a time. Ids that are not in order cost 16 bytes of each sample.
"""

import math
from pathlib import Path
from typing import Final

import polars as pl

from gdc.errors import DataError
from gdc.filesystem import table_files
from gdc.recording.trace import TraceScan, loss_column
from gdc.workspace import traces

# Of ids whose hashes are equal: so many are looked at, as two that differ hardly ever have one.
_NUM_CANDIDATES: Final = 1000
_SHOWN_CHARS: Final = 80


def require_samples(folder: Path) -> None:
    """Refuse a trace whose samples cannot be told apart, or that have no tokens.

    Raises:
        DataError: A ``sample_id`` is null or stands in two rows, or ``num_tokens`` is null or
            below 1.
    """
    indices = [shard / "index.parquet" for shard in traces.shard_folders(folder)]
    for path in indices:
        _require_none(path, pl.col("sample_id").is_null(), "a sample_id in every row")
        is_odd = pl.col("num_tokens").is_null() | (pl.col("num_tokens") < 1)
        _require_none(path, is_odd, "num_tokens of at least 1 in every row")
    _require_distinct(indices)


def require_losses(folder: Path, scan: TraceScan, mode: str) -> None:
    """Refuse losses below 0 and infinite ones; null and NaN say that a sample was not seen.

    Args:
        folder: The folder of the training samples or of a shard.
        scan: What was opened of the trace.
        mode: The checkpoints that are read.

    Raises:
        DataError: A loss is negative or infinite.
    """
    chosen = scan.checkpoints.filter(pl.col("mode") == mode)
    for checkpoint in chosen["checkpoint"]:
        name = loss_column(checkpoint)
        # NaN is neither.
        is_odd = (pl.col(name) < 0) | (pl.col(name) == math.inf)
        _require_none(folder / f"{name}.parquet", is_odd, "losses of at least 0, and finite")


def _require_none(path: Path, is_odd: pl.Expr, expected: str) -> None:
    """Refuse a file in which a condition on its one column holds anywhere."""
    (name,) = is_odd.meta.root_names()[:1]
    rows = table_files.scan_parquet(path).select(name)
    # As a filter, so that parts whose least and greatest value are in the file are not read.
    num_odd: int = rows.filter(is_odd).select(pl.len()).collect(engine="streaming").item()
    if num_odd:
        row, value = rows.with_row_index().filter(is_odd).head(1).collect().row(0)
        raise DataError(
            f"{path}: expected {expected}, got {num_odd:,} without, the first in row {row}: "
            f"{value}. {traces.ANEW}"
        )


def _require_distinct(indices: list[Path]) -> None:
    ids = table_files.scan_parquet(*indices).select("sample_id")
    if _is_rising(ids):
        return
    hashes = ids.select(_hash()).collect(engine="streaming").to_series().sort()
    repeated = hashes.filter(hashes == hashes.shift(1))
    if repeated.is_empty():
        return
    candidates = repeated.unique(maintain_order=True).head(_NUM_CANDIDATES)
    found = (
        ids.filter(_hash().is_in(candidates.implode()))
        .group_by("sample_id")
        .len()
        .filter(pl.col("len") > 1)
        .sort("len", "sample_id", descending=[True, False])
        .collect(engine="streaming")
    )
    if found.is_empty():
        return
    sample_id, num_rows = found.row(0)
    raise DataError(
        f"{_holding(indices, sample_id)}: expected every sample_id once, got {_shown(sample_id)} "
        f"in {num_rows:,} rows; in all {len(repeated):,} rows too many. Give every sample an id "
        f"of its own. {traces.ANEW}"
    )


def _hash() -> pl.Expr:
    return pl.col("sample_id").hash()


def _is_rising(ids: pl.LazyFrame) -> bool:
    """Whether every id is greater than the one before it, so that none comes twice."""
    column = pl.col("sample_id")
    rises: bool = ids.select((column > column.shift(1)).all()).collect(engine="streaming").item()
    return rises


def _holding(indices: list[Path], sample_id: str) -> str:
    is_it = pl.col("sample_id") == sample_id
    return " and ".join(
        str(path)
        for path in indices
        if table_files.scan_parquet(path).select(is_it.any()).collect(engine="streaming").item()
    )


def _shown(sample_id: str) -> str:
    text = repr(sample_id)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."

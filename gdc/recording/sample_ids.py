"""A data set of the user's, or the ids of its samples -> the index of a trace."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import ConfigError, DataError

# Where a data set holds its ids, if nobody says so.
USUAL_COLUMNS: Final = ("sample_id", "id")
_ID_TYPES: Final = (str, bytes, int, float, np.generic)
_SHOWN_CHARS: Final = 80


def index_of(dataset: Any, id_column: str | None, name: str) -> pl.DataFrame:
    """The samples of a data set, in its order.

    Args:
        dataset: Ids; or samples that can be counted: a ``datasets.Dataset``, a table of polars or
            pandas, a torch ``Dataset``, a list.
        id_column: Column or key of the ids; None: ``sample_id`` or ``id`` where there is one,
            otherwise the row numbers are the ids.
        name: Of the argument, for messages.

    Returns:
        A table with ``sample_id``, each id as text, and ``original_id``, as it was given.

    Raises:
        ConfigError: The samples cannot be counted, or have no such column.
        DataError: An id is missing, or stands in two rows.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(
            f"{name}: expected samples that can be counted, got {type(dataset).__name__}. Losses "
            "are recorded by row number: give a list of the ids, in the order of the rows."
        )
    ids = _ids(dataset, id_column, name)
    original = _series(ids)
    if original.null_count():
        row = int(original.is_null().arg_max() or 0)
        raise DataError(
            f"{name}: expected an id in every row, got {original.null_count():,} without, the "
            f"first in row {row}. Give every sample an id, or name another id_column."
        )
    text = _text(original)
    repeated = text.filter(text.is_duplicated())
    if len(repeated):
        shown = repr(repeated[0])[:_SHOWN_CHARS]
        raise DataError(
            f"{name}: expected every id once, got {shown} in {(text == repeated[0]).sum():,} rows; "
            f"in all {len(repeated):,} rows share an id. Give every sample an id of its own, or "
            "leave id_column out of the data set to number the rows."
        )
    return pl.DataFrame([text, original])


def with_lengths(index: pl.DataFrame, lengths: NDArray[np.int64]) -> pl.DataFrame:
    """The index with ``num_tokens``; of length 0 (not seen yet) it is 1."""
    known = pl.Series(np.maximum(lengths, 1), dtype=pl.Int64)
    return index.select("sample_id", num_tokens=known).hstack([index["original_id"]])


def _ids(dataset: Any, id_column: str | None, name: str) -> Sequence[Any]:
    columns = getattr(dataset, "column_names", getattr(dataset, "columns", None))
    # An empty table is also true of no value, so it is asked for its length.
    first = dataset[0] if columns is None and len(dataset) else None
    keys = first if isinstance(first, Mapping) else columns
    known = [] if keys is None else list(keys)
    wanted = (id_column,) if id_column is not None else USUAL_COLUMNS
    found = next((column for column in wanted if column in known), None)
    if found is None and id_column is not None:
        raise ConfigError(
            f"{name}: expected a column {id_column!r} with the ids, got {known or 'no columns'}. "
            "Name one of them as id_column, or leave it out to number the rows."
        )
    if found is not None and columns is not None:
        return list(dataset[found])
    # To read all samples of a data set that computes them takes time, so it has to be asked for.
    if found is not None and (id_column is not None or isinstance(dataset, list | tuple)):
        return [dataset[i][found] for i in range(len(dataset))]
    if isinstance(first, _ID_TYPES) or (first is not None and getattr(first, "shape", None) == ()):
        return list(dataset.tolist() if hasattr(dataset, "tolist") else dataset)
    return range(len(dataset))


def _series(ids: Sequence[Any]) -> pl.Series:
    name = "original_id"
    plain = ids if isinstance(ids, range) else [_plain(value) for value in ids]
    try:
        series = pl.Series(name, plain, dtype=None if len(ids) else pl.String, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        series = pl.Series(name, [None], dtype=pl.Object)
    # Ids of several types, or of one that Parquet does not know, are kept as their text.
    if series.dtype == pl.Object:
        return pl.Series(name, [None if v is None else str(v) for v in plain], dtype=pl.String)
    return series


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating) and np.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _text(original: pl.Series) -> pl.Series:
    name = "sample_id"
    if original.dtype == pl.Binary:
        return original.bin.encode("hex").alias(name)
    if original.dtype.is_float() and (original == original.floor()).all():
        # pandas makes numbers of rows floating where one was missing.
        return original.cast(pl.Int64).cast(pl.String).alias(name)
    if original.dtype.is_nested():
        return pl.Series(name, [str(value) for value in original.to_list()], dtype=pl.String)
    return original.cast(pl.String).alias(name)

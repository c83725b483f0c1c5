"""Columns -> an exact quantile of all their values, without sorting, copying or loading them all.

Where a pass over a table costs too much, ``spread_rows`` is the part of it to take the quantile of.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

# The sample of a table: this many slices, evenly spaced, of this many rows.
_NUM_SLICES: Final = 8
_SLICE_ROWS: Final = 16_384
# What a pass finds of a column.
_BRACKET_PARTS: Final = ("values", "below", "low", "high", "between")
# Share of the values kept on either side of the sample's quantile.
_MARGIN: Final = 0.01

# The part of a table that stands for all of it: in so many places the rows with so many values. A
# place costs about as much as decoding a row group.
NUM_PLACES: Final = 64
_PLACE_VALUES: Final = 2**17

# On disk or in memory.
Table = pl.LazyFrame | pl.DataFrame
# Tables with the number of their rows.
_Sized = Sequence[tuple[Table, int]]


def quantile(tables: Sequence[Table], share: float, num_rows: Sequence[int]) -> float | None:
    """Compute the quantile, with linear interpolation (numpy's default), of all values.

    A sample gives two values that bracket it; one pass over the tables counts the values below the
    bracket and keeps those inside. Where the quantile lies outside, as may happen with a sorted
    table, further passes use a wider bracket. Memory: a fiftieth of the values, more in each
    further pass; a table in memory is not copied.

    Args:
        tables: Frames whose columns are all of one float type. Nulls and NaNs are ignored.
        share: In [0, 1].
        num_rows: Of each table; counting them would take another pass.

    Returns:
        The quantile in double precision; None: all values are null or NaN.

    Raises:
        ComputeError: A table gives another number of rows.
    """
    sized = list(zip(tables, num_rows, strict=True))
    sample = np.concatenate([_sample(table, size) for table, size in sized])
    margin = _MARGIN
    while True:
        bracket = _count_bracket(sized, *_bracket_ends(sample, share, margin))
        if bracket.num_values == 0:
            return None
        index = (bracket.num_values - 1) * share
        first, second = bracket.value_at(math.floor(index)), bracket.value_at(math.ceil(index))
        if first is not None and second is not None:
            return first if first == second else (index % 1) * (second - first) + first
        margin *= 8


def spread_rows(table: pl.LazyFrame, num_rows: int) -> pl.DataFrame:
    """Read rows that are spread over a table: the same ones at every call, whatever they hold.

    The table is cut into 64 equal parts, and of each part rows with 131,072 values that follow one
    another are read, or all where it has fewer. Where they begin is drawn with a fixed seed.

    Args:
        table: Opened from files.
        num_rows: That it has.

    Raises:
        ComputeError: The table gives fewer rows.
    """
    rng = np.random.default_rng(0)
    places = []
    for start, end, length in _places(num_rows, len(table.collect_schema())):
        place = table.slice(start + int(rng.integers(end - start - length + 1)), length)
        places.append(_collected(place))
    rows = pl.concat(places)
    expected = num_spread_rows(num_rows, rows.width)
    if rows.height != expected:
        raise pl.exceptions.ComputeError(f"expected {expected} rows, got {rows.height}")
    return rows


def num_spread_rows(num_rows: int, num_columns: int) -> int:
    """How many rows ``spread_rows`` reads of a table of this size."""
    return sum(length for *_, length in _places(num_rows, num_columns))


def _places(num_rows: int, num_columns: int) -> Iterator[tuple[int, int, int]]:
    """Begin and end of each part of the rows, and how many are read of it."""
    length = max(1, _PLACE_VALUES // num_columns)
    ends = (num_rows * part // NUM_PLACES for part in range(NUM_PLACES + 1))
    return ((start, end, min(end - start, length)) for start, end in pairwise(ends))


@dataclass(frozen=True)
class _Bracket:
    """Two values, the number of values below, at and between them, and the values between."""

    low: float
    high: float
    num_values: int
    num_below: int
    num_low: int
    num_high: int
    between: NDArray[np.floating]

    def value_at(self, index: int) -> float | None:
        """The value at this index in sorted order; None: it lies outside the bracket."""
        index -= self.num_below
        if index < 0:
            return None
        if index < self.num_low:
            return self.low
        index -= self.num_low
        if index < len(self.between):
            return float(np.partition(self.between, index)[index])
        index -= len(self.between)
        return self.high if index < self.num_high else None


def _sample(table: Table, num_rows: int) -> NDArray[np.floating]:
    step = max(num_rows // _NUM_SLICES, _SLICE_ROWS)
    starts = range(0, max(num_rows, 1), step)
    parts = [_collected(table.slice(start, _SLICE_ROWS)) for start in starts]
    values = np.concatenate([column.to_numpy() for part in parts for column in part.iter_columns()])
    return np.asarray(values[~np.isnan(values)])


def _collected(part: Table) -> pl.DataFrame:
    """Read a part, and no other meanwhile: polars takes a thread, of 512, for each open file."""
    return part if isinstance(part, pl.DataFrame) else part.collect(engine="streaming")


def _bracket_ends(sample: NDArray[np.floating], share: float, margin: float) -> list[np.floating]:
    """The sample's quantiles at ``share`` minus and plus ``margin``; infinite past its ends."""
    index, width = share * (len(sample) - 1), margin * (len(sample) - 1)
    first, last = math.floor(index - width), math.ceil(index + width)
    low, high = (sample.dtype.type(end) for end in (-np.inf, np.inf))
    return [
        np.partition(sample, first)[first] if 0 <= first < len(sample) else low,
        np.partition(sample, last)[last] if 0 <= last < len(sample) else high,
    ]


def _count_bracket(tables: _Sized, low: np.floating, high: np.floating) -> _Bracket:
    """Count and collect the values of the bracket in one pass over every table.

    Raises:
        ComputeError: A table gives another number of rows.
    """
    counts, between = np.zeros(4, np.int64), [np.empty(0, low.dtype)]
    for table, num_rows in tables:
        names, ends = table.collect_schema().names(), (float(low), float(high))
        parts = [part for name in names for part in _bracket_of(pl.col(name), *ends)]
        found = table.lazy().select(pl.len().alias("len"), *parts).collect(engine="streaming")
        if found["len"].item() != num_rows:
            raise pl.exceptions.ComputeError(f"expected {num_rows} rows, got {found['len'].item()}")
        for name in names:
            *numbers, inside = (found[f"{name} {part}"].item() for part in _BRACKET_PARTS)
            counts += numbers
            between.append(inside.to_numpy())
    num_values, num_below, num_low, num_high = counts.tolist()
    return _Bracket(
        low=float(low),
        high=float(high),
        num_values=num_values,
        num_below=num_below,
        num_low=num_low,
        num_high=num_high if low < high else 0,
        between=np.concatenate(between),
    )


def _bracket_of(value: pl.Expr, low: float, high: float) -> list[pl.Expr]:
    """``_BRACKET_PARTS`` of one column; NaN, greater than all numbers here, is in none of them."""
    found = (
        (value <= np.inf).sum(),
        (value < low).sum(),
        (value == low).sum(),
        (value == high).sum(),
        value.filter(value.is_between(low, high, closed="none")).implode(),
    )
    return [of.name.suffix(f" {part}") for of, part in zip(found, _BRACKET_PARTS, strict=True)]

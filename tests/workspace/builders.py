"""What tests of files share."""

from pathlib import Path

import polars as pl

from gdc.schema import (
    MASKED,
)

NAN = float("nan")


VALUES: dict[pl.DataType, list[object]] = {
    pl.String(): ["é\n", None],
    pl.Int64(): [2**40, None],
    pl.Float64(): [0.1, None],
    pl.Boolean(): [True, None],
    pl.List(pl.Boolean): [[True, False], None],
    MASKED: [[{"start": 2, "end": 5}], None],
}


def table_of(schema: pl.Schema) -> pl.DataFrame:
    """Two rows that hold a value and a null in every column."""
    return pl.DataFrame({name: VALUES[dtype] for name, dtype in schema.items()}, schema=schema)


def all_files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def damage(path: Path, place: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[place] ^= 0xFF
    path.write_bytes(whole)

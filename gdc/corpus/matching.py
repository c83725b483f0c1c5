"""Ids of a trace or a plan and the rows of a file -> the rows in the order of the ids."""

import polars as pl

from gdc.errors import DataError

_NUM_SHOWN = 3


def match_rows(ids: pl.Series, rows: pl.DataFrame, *, names: tuple[str, str]) -> pl.DataFrame:
    """Find the row of each id.

    Args:
        ids: Distinct ids.
        rows: With a column ``sample_id`` of distinct ids.
        names: What holds the ids and what holds the rows, for messages.

    Returns:
        The rows of ``ids``, in their order.

    Raises:
        DataError: An id has no row.
    """
    asked = pl.DataFrame({"sample_id": ids})
    missing = asked.join(rows, on="sample_id", how="anti", maintain_order="left")["sample_id"]
    if len(missing):
        ids_of, rows_of = names
        raise DataError(
            f"{rows_of}: expected a row for each of the {len(ids):,} ids of {ids_of}, got none for "
            f"{len(missing):,}, such as {_listed(missing)}; ids of its {rows.height:,} rows are "
            f"such as {_listed(rows['sample_id'])}. Name the field that holds the ids with "
            "--id-field; without it the id of a row is its number, from 0."
        )
    return asked.join(rows, on="sample_id", how="left", maintain_order="left")


def require_numbered(ids: pl.Series, num_rows: int, *, names: tuple[str, str]) -> None:
    """Refuse ids that are taken for row numbers but do not number all rows, from 0.

    A file of which rows were left out, or whose ids start from 1, would be matched wrongly and
    silently.

    Raises:
        DataError: There are fewer or more ids than rows.
    """
    if len(ids) != num_rows:
        ids_of, rows_of = names
        raise DataError(
            f"{rows_of}: expected as many rows as {ids_of} has samples, {len(ids):,}, as their "
            f"ids are taken for row numbers, got {num_rows:,}. Give the file that the run read, or "
            "name the field that holds the ids: --id-field."
        )


def _listed(ids: pl.Series) -> str:
    return ", ".join(repr(value[:40]) for value in ids.head(_NUM_SHOWN))

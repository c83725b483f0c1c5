"""What reference models say of the samples: a file for each, and the table of all of them."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from gdc.config import BASE
from gdc.errors import SchemaError
from gdc.schema import REFERENCE_LOSS, REFERENCE_TOKENS
from gdc.workspace import tables
from gdc.workspace.paths import REFERENCE_FOLDER, reference_tokens_path

_REFERENCE: Final = "Make it again: gdc stage reference."


def write_reference(number: int | str, table: pl.DataFrame) -> None:
    """Write the losses under one reference model."""
    tables.write_table(REFERENCE_FOLDER / f"{number}.parquet", table, REFERENCE_LOSS)


def write_reference_tokens(number: int | str, table: pl.DataFrame) -> None:
    """Write the token losses under one reference model; no rows: they are not recorded."""
    tables.write_table(reference_tokens_path(number), table, REFERENCE_TOKENS)


def read_unseen_tokens(numbers: Sequence[int | str], samples: pl.DataFrame) -> pl.DataFrame | None:
    """Token losses of some samples under the reference models that did not see them.

    Args:
        numbers: Of the models.
        samples: Table with ``sample_id``.

    Returns:
        ``REFERENCE_TOKENS`` table in the order of the models; None: not recorded.
    """
    found = [pl.DataFrame(schema=REFERENCE_TOKENS)]
    for number in numbers:
        asked = samples.lazy().select("sample_id")
        if number != BASE:
            seen = tables.read("halves").lazy().filter(pl.col("seen").list.get(int(number)))
            asked = asked.join(seen, on="sample_id", how="anti")
        found.append(_tokens_of(number, asked))
    table = pl.concat(found)
    return None if table.is_empty() else table


def read_all_reference_tokens(numbers: Sequence[int], samples: pl.DataFrame) -> pl.DataFrame | None:
    """Token losses of some samples under all of these reference models.

    Args:
        numbers: Of the models.
        samples: Table with ``sample_id``.

    Returns:
        ``sample_id`` and a column of lists for each model, named by its number; None: not recorded.
    """
    asked = samples.lazy().select("sample_id")
    found = [_tokens_of(number, asked) for number in numbers]
    if not found or any(table.is_empty() for table in found):
        return None
    named = [
        table.rename({"token_losses": str(number)})
        for number, table in zip(numbers, found, strict=True)
    ]
    return pl.concat(named, how="align_full")


def _tokens_of(number: int | str, asked: pl.LazyFrame) -> pl.DataFrame:
    path = reference_tokens_path(number)
    if not path.exists():
        return pl.DataFrame(schema=REFERENCE_TOKENS)
    with tables.naming_file(path, tables.RUN):
        tokens = tables.scan_table(path, REFERENCE_TOKENS)
        return tokens.join(asked, on="sample_id", how="semi").collect(engine="streaming")


def read_base_reference() -> pl.DataFrame:
    """The ``REFERENCE_LOSS`` table of the pretrained model as a reference."""
    return tables.read_table(REFERENCE_FOLDER / f"{BASE}.parquet", REFERENCE_LOSS, _REFERENCE)


def read_references(numbers: Sequence[int]) -> pl.DataFrame | None:
    """The ``REFERENCES`` table of these models, sorted by ``sample_id``; None without models."""
    if not numbers:
        return None
    paths = [REFERENCE_FOLDER / f"{number}.parquet" for number in numbers]
    losses = [tables.read_table(path, REFERENCE_LOSS, _REFERENCE) for path in paths]
    table, num_missing = with_losses(tables.read("halves"), losses)
    if num_missing:
        raise SchemaError(
            f"{REFERENCE_FOLDER}: expected the samples of halves.parquet in every model's losses, "
            "got fewer. Re-run: gdc stage reference."
        )
    return table


def with_losses(table: pl.DataFrame, losses: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, int]:
    """Put the losses under all models beside the halves.

    Args:
        table: ``HALVES`` table.
        losses: A ``REFERENCE_LOSS`` table for each model, in the order of ``seen``.

    Returns:
        ``REFERENCES`` table sorted by ``sample_id``, and the number of its samples that a model
        has no loss of.
    """
    table = table.sort("sample_id")
    columns = [f"loss_{number}" for number in range(len(losses))]
    for name, of_model in zip(columns, losses, strict=True):
        table = table.join(
            of_model.rename({"loss": name}), on="sample_id", how="left", maintain_order="left"
        )
    num_missing = table.select(pl.any_horizontal(pl.col(columns).is_null()).sum()).item()
    return table.select("sample_id", pl.concat_list(columns).alias("loss"), "seen"), num_missing

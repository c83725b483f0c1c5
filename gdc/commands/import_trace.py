"""Losses that another tool has recorded -> a trace folder."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from gdc.errors import ConfigError, DataError
from gdc.filesystem import durable, table_files
from gdc.recording.recorder import Mode, TraceRecorder

# Of dataset cartography: a file for each epoch, a line for each sample.
_DYNAMICS: Final = re.compile(r"dynamics_epoch_(\d+)\.jsonl")
_READERS: Final = {
    ".parquet": table_files.read_parquet,
    ".csv": table_files.read_csv,
    ".jsonl": table_files.read_ndjson,
}
# Names under which the columns of a long table are looked for.
_NAMES: Final = {
    "id": ("sample_id", "id", "guid", "uid", "index"),
    "step": ("step", "global_step", "checkpoint", "iteration", "epoch"),
    "loss": ("loss", "nll"),
}


class Columns(NamedTuple):
    """Names of the columns of a long table; None: a usual name."""

    id: str | None = None
    step: str | None = None
    loss: str | None = None


def import_trace(source: Path, out: Path, columns: Columns, mode: Mode) -> tuple[int, int]:
    """Write a trace of the losses in a file or folder.

    Args:
        source: A folder with ``dynamics_epoch_<n>.jsonl`` of dataset cartography (``guid``,
            ``logits_epoch_<n>``, ``gold``), or a table in Parquet, CSV or JSON lines with a row for
            each sample at each step: id, step, loss (nats per token) and, if known, ``num_tokens``.
        out: Folder of the trace, not there yet.
        columns: Of a table.
        mode: Whether the losses come from the training pass or from a frozen model.

    Returns:
        Numbers of samples and of checkpoints.

    Raises:
        ConfigError: A column is not there, or the file is of another kind.
        DataError: A loss cannot be, a sample stands twice in a step, or ``out`` is there.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: expected no such folder yet, got one. Name another --out.")
    losses = _dynamics(source) if source.is_dir() else _long_table(source, columns)
    losses = losses.filter(pl.col("loss").is_not_null() & pl.col("loss").is_not_nan())
    _require_losses(losses, source)
    ids = losses["id"].unique(maintain_order=True)
    rows = pl.DataFrame({"id": ids, "row": np.arange(len(ids))})
    losses = losses.join(rows, on="id", how="left", maintain_order="left")
    with durable.new_folder(out) as folder, TraceRecorder(folder, ids.to_list()) as recorder:
        for (step,), at_step in losses.sort("step", maintain_order=True).group_by(
            "step", maintain_order=True
        ):
            tokens = at_step["num_tokens"].to_numpy()
            recorder.record(at_step["row"].to_numpy(), at_step["loss"].to_numpy() * tokens, tokens)
            recorder.checkpoint(step=int(str(step)), epoch=float(at_step["epoch"][0]), mode=mode)
    return len(ids), losses["step"].n_unique()


def _dynamics(folder: Path) -> pl.DataFrame:
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := _DYNAMICS.fullmatch(path.name)) is not None
    }
    if not found:
        raise ConfigError(
            f"{folder}: expected dynamics_epoch_0.jsonl and so on of dataset cartography, got "
            "none. Name their folder, or a table with id, step and loss (.parquet, .csv, .jsonl)."
        )
    return pl.concat(_epoch_of(found[epoch], epoch) for epoch in sorted(found))


def _epoch_of(path: Path, epoch: int) -> pl.DataFrame:
    table = table_files.read_ndjson(path)
    logits_column = f"logits_epoch_{epoch}"
    missing = sorted({"guid", "gold", logits_column} - set(table.columns))
    if missing:
        raise ConfigError(
            f"{path}: expected guid, gold and {logits_column} in each line, got {table.columns}. "
            "Write it as dataset cartography does."
        )
    logits = table[logits_column].to_list()
    gold = table["gold"].to_list()
    return pl.DataFrame(
        {
            "id": table["guid"],
            "step": pl.Series([epoch] * table.height, dtype=pl.Int64),
            "epoch": pl.Series([epoch + 1.0] * table.height, dtype=pl.Float64),
            "loss": [
                float(np.logaddexp.reduce(row) - row[label])
                for row, label in zip(logits, gold, strict=True)
            ],
            "num_tokens": pl.Series([1] * table.height, dtype=pl.Int64),
        }
    )


def _long_table(path: Path, columns: Columns) -> pl.DataFrame:
    read = _READERS.get(path.suffix)
    if not path.exists():
        raise DataError(f"{path}: not found. Name a folder, or a table of {', '.join(_READERS)}.")
    if read is None:
        raise ConfigError(
            f"{path}: expected a folder or a table of {', '.join(_READERS)}, got another ending. "
            "Save the losses as one of these."
        )
    try:
        table = read(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found. Name the file or folder of the losses.") from None
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a table that can be read ({error}). Save it anew.") from None
    names = {
        kind: _column(table, kind, given, path)
        for kind, given in zip(Columns._fields, columns, strict=True)
    }
    has_epochs = "epoch" in table.columns and table.schema["epoch"].is_numeric()
    tokens = pl.col("num_tokens") if "num_tokens" in table.columns else pl.lit(1)
    try:
        return table.select(
            pl.col(names["id"]).alias("id"),
            pl.col(names["step"]).cast(pl.Int64).alias("step"),
            pl.col("epoch" if has_epochs else names["step"]).cast(pl.Float64).alias("epoch"),
            pl.col(names["loss"]).cast(pl.Float64).alias("loss"),
            tokens.cast(pl.Int64).alias("num_tokens"),
        )
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(
            f"{path}: expected numbers in {names['step']} and {names['loss']}, got others "
            f"({str(error).splitlines()[0]}). Mend the table."
        ) from None


def _column(table: pl.DataFrame, kind: str, given: str | None, path: Path) -> str:
    wanted = _NAMES[kind] if given is None else (given,)
    found = next((name for name in wanted if name in table.columns), None)
    if found is None:
        raise ConfigError(
            f"{path}: expected a column {' or '.join(wanted)} for the {kind}, got {table.columns}. "
            f"Name it: --{kind}-column."
        )
    return found


def _require_losses(losses: pl.DataFrame, source: Path) -> None:
    odd = losses.filter((pl.col("loss") < 0) | pl.col("loss").is_infinite())
    if odd.height:
        raise DataError(
            f"{source}: expected losses of at least 0, and finite, got {odd.height:,} others, the "
            f"first {odd['loss'][0]} of {odd['id'][0]!r} at step {odd['step'][0]}. Mend them."
        )
    if not losses.height:
        raise DataError(f"{source}: expected losses, got none. Record some.")
    twice = losses.filter(pl.struct("id", "step").is_duplicated())
    if twice.height:
        raise DataError(
            f"{source}: expected one loss of each sample at a step, got several, as of "
            f"{twice['id'][0]!r} at step {twice['step'][0]}. Keep one, or give samples ids of "
            "their own."
        )

"""The folder of a trace, of our own or of another program -> its tables, checked."""

import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from gdc.errors import DataError, SchemaError
from gdc.filesystem.json_values import JsonObject
from gdc.filesystem.table_files import checksum, scan_parquet
from gdc.recording.trace import GAINS, TOKEN_FILES, TWIN, Trace, TraceScan, loss_column
from gdc.recording.trace_files import CHECKSUMS
from gdc.schema import (
    CHECKPOINTS,
    FIRST_SEEN,
    REFERENCE_LOSS,
    SELF_INFLUENCE,
    TOKEN_LOSSES,
    TRACE_INDEX,
    require,
)
from gdc.workspace.files import read_json
from gdc.workspace.paths import trace_path
from gdc.workspace.tables import TRAIN, TableChunks, naming_file, read_table, scan_table

ANEW: Final = "Write the trace again, with the program that recorded it."
FIRST_SEEN_FILE: Final = "first_seen.parquet"
BASE: Final = "base.parquet"
_TOKEN_LENGTHS: Final = pl.Schema({"sample_id": pl.String, "early": pl.Int64, "late": pl.Int64})

# Polars opens the files of all checkpoints at once, each in a thread of at most 512. More of them
# wait their turn; none waits for another, so one thread would do, and this is no deadlock.
warnings.filterwarnings("ignore", "POLARS_MAX_BLOCKING_THREAD_COUNT reached", UserWarning)


def read(seed: int) -> Trace:
    """Open the trace of a tracked run; its losses stay on disk until they are collected.

    What else was recorded has readers of its own.
    A damaged page is found only then: see ``naming_damage``.

    Raises:
        SchemaError: A checkpoint's file is missing or has another number of rows than the index.
        DataError: A file is damaged where it describes itself.
    """
    folder = trace_path(seed)
    checkpoints = read_table(folder / "checkpoints.parquet", CHECKPOINTS, TRAIN)
    shards = shard_folders(folder)
    index = _read_index(*shards)
    losses = pl.concat(
        pl.concat(_scan_losses(shard, checkpoints), how="horizontal") for shard in shards
    )
    heldout_index = _read_index(folder / "heldout")
    heldout_losses = pl.concat(_scan_losses(folder / "heldout", checkpoints), how="horizontal")
    num = heldout_index.height - int(_is_twin(heldout_index).sum())
    return Trace(
        index,
        checkpoints,
        losses,
        heldout_index[:num],
        heldout_losses.head(num),
        twin_index=heldout_index[num:],
        twin_losses=heldout_losses.slice(num),
    )


def read_folder(folder: Path) -> Trace:
    """Open a trace folder, whoever wrote it, with its held-out samples where it has some.

    Gains, and token losses where both files are there, are read; other losses stay on disk.

    Raises:
        SchemaError: A file is missing, or has other columns or another number of rows.
        DataError: A file is damaged.
    """
    found = scan(folder)
    names = TRACE_INDEX.names()
    heldout_index = pl.DataFrame(schema=TRACE_INDEX)
    heldout_losses = found.samples.clear().drop(names)
    if (folder / "heldout" / "index.parquet").exists():
        heldout_index = read_table(folder / "heldout" / "index.parquet", TRACE_INDEX, ANEW)
        columns = _scan_losses(folder / "heldout", found.checkpoints, remedy=ANEW)
        heldout_losses = pl.concat(columns, how="horizontal")
    num = heldout_index.height - int(_is_twin(heldout_index).sum())
    has_tokens = all((folder / name).exists() for name in TOKEN_FILES.values())
    return Trace(
        found.samples.select(names).collect(),
        found.checkpoints,
        found.samples.drop(names),
        heldout_index.select(names)[:num],
        heldout_losses.head(num),
        tokens=_read_both_tokens(folder) if has_tokens else None,
        gains=_read_recorded(folder, GAINS, SELF_INFLUENCE, ANEW),
        name=str(folder),
    )


def shard_folders(folder: Path) -> list[Path]:
    """The folders with the training samples of a trace, in row order.

    One, ``train``; or in it one for each process that wrote the trace.

    Raises:
        DataError: Something else is called as shards are, or one is missing.
    """
    train = folder / "train"
    found = sorted(train.glob("shard_*"))
    for path in found:
        if not (re.fullmatch(r"shard_\d+", path.name) and path.is_dir()):
            raise DataError(
                f"{path}: expected no more than folders shard_00000, shard_00001, ... under such "
                "names, got another. Move it out of the trace."
            )
    numbers = [int(path.name.partition("_")[2]) for path in found]
    if numbers != list(range(len(found))):
        raise DataError(
            f"{train}: expected shards 0 to {len(found) - 1}, one of each, got "
            f"{', '.join(path.name for path in found)}. Put back what is missing."
        )
    if found and (train / "index.parquet").exists():
        raise DataError(
            f"{train}: expected samples in index.parquet or in folders shard_00000, shard_00001, "
            "..., got both. Move those of another run out of the trace."
        )
    return found or [train]


def scan(
    folder: Path,
    mode: str | None = None,
    shards: Sequence[Path] | None = None,
    columns: Collection[str] | None = None,
) -> TraceScan:
    """Open the training samples of a trace folder, whoever wrote it; nothing of them is read.

    Args:
        folder: With ``checkpoints.parquet``, ``train/index.parquet`` and a file a checkpoint.
        mode: The checkpoints whose losses are asked for; None: all of them.
        shards: Those asked for, whose rows then stand one after the other; None: all of them.
        columns: The loss columns of the mode that are wanted; None: all of them. Of files side by
            side polars reads all, even where one column is asked for.

    Raises:
        SchemaError: A file is missing, or has other columns or another number of rows.
        DataError: A file is damaged where it describes itself, or checkpoints are not numbered.
    """
    path = folder / "checkpoints.parquet"
    checkpoints = read_table(path, CHECKPOINTS, ANEW)
    _require_rising(checkpoints["checkpoint"], path)
    if num_unknown := checkpoints["step"].null_count():
        raise DataError(f"{path}: expected a step in every row, got {num_unknown} without. {ANEW}")
    for name in ("step", "epoch"):
        _require_no_fall(checkpoints[name], path)
    samples, num_samples = [], 0
    for shard in shard_folders(folder) if shards is None else shards:
        index = shard / "index.parquet"
        num_samples += _num_rows(index, TRACE_INDEX, ANEW)
        known = scan_parquet(index).select(TRACE_INDEX.names())
        losses = _scan_losses(shard, checkpoints, mode, ANEW, columns)
        samples.append(pl.concat([known, *losses], how="horizontal"))
    # A shard of more processes than samples may have none.
    if shards is None and not num_samples:
        raise DataError(f"{folder / 'train'}: expected samples, got no rows in its index. {ANEW}")
    return TraceScan(pl.concat(samples), checkpoints, num_samples, str(folder))


def verify(folder: Path) -> int:
    """Compare every file of a trace with the checksum that was taken when it was written.

    Returns:
        The number of files.

    Raises:
        SchemaError: A file, or the list of checksums of a folder, is missing.
        DataError: A file is not as it was written, or no checksum of it was.
    """
    num_files = 0
    for part in (folder, *shard_folders(folder), *folder.glob("heldout")):
        found = dict.fromkeys(path.name for path in part.glob("*.parquet"))
        known = {**found, **read_json(part / CHECKSUMS)}
        verify_files(part, known, ANEW)
        num_files += len(known)
    return num_files


def read_token_losses(
    seed: int, asked: pl.Series | None = None
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The losses of every token of the training and of the held-out samples of a tracked run.

    Args:
        seed: Of the run.
        asked: Ids of the training samples whose losses are to be held; None: all.

    Returns:
        Two ``TOKEN_LOSSES`` tables in the row order of the trace; None: they were not recorded.

    Raises:
        SchemaError: One of them is missing, or does not hold the samples and tokens of the trace.
        DataError: A file is damaged, or a loss is not finite.
    """
    folder = trace_path(seed)
    if not any((folder / name).exists() for name in TOKEN_FILES.values()):
        return None
    return _read_both_tokens(folder, asked)


def read_self_influence(seed: int) -> pl.DataFrame | None:
    """The ``SELF_INFLUENCE`` table of a tracked run, as its trace; None: it was not recorded.

    Raises:
        SchemaError: It does not hold the samples of the trace.
        DataError: The file is damaged, or a gain is not finite.
    """
    return _read_recorded(trace_path(seed), GAINS, SELF_INFLUENCE)


def read_base(seed: int) -> pl.DataFrame | None:
    """The ``REFERENCE_LOSS`` table of the pretrained model that a run started from; None: of none.

    Raises:
        SchemaError: It does not hold the samples of the trace.
        DataError: The file is damaged, or a loss is not finite.
    """
    return _read_recorded(trace_path(seed), BASE, REFERENCE_LOSS)


def _read_recorded(
    folder: Path, name: str, schema: pl.Schema, remedy: str = TRAIN
) -> pl.DataFrame | None:
    """A table with one number for each training sample; None: it was not recorded."""
    table = _read_of_samples(folder, name, schema, remedy)
    if table is not None:
        _require_finite(_num_odd(table[table.columns[1]].drop_nulls()), folder / name, remedy)
    return table


def read_first_seen(folder: Path) -> pl.DataFrame | None:
    """The ``FIRST_SEEN`` table of a trace, whoever wrote it; None: it was not recorded.

    Raises:
        SchemaError: It does not hold the samples of the trace.
        DataError: The file is damaged.
    """
    return _read_of_samples(folder, FIRST_SEEN_FILE, FIRST_SEEN, ANEW)


def _read_of_samples(
    folder: Path, name: str, schema: pl.Schema, remedy: str
) -> pl.DataFrame | None:
    """A table with a row for each training sample; None: there is none."""
    path = folder / name
    if not path.exists():
        return None
    table = read_table(path, schema, remedy)
    _require_samples(table, _read_index(*shard_folders(folder)), path, remedy)
    return table


def _read_index(*folders: Path) -> pl.DataFrame:
    """``TRACE_INDEX`` of parts of a trace, one after the other."""
    return pl.concat(read_table(folder / "index.parquet", TRACE_INDEX, TRAIN) for folder in folders)


def _scan_losses(
    folder: Path,
    checkpoints: pl.DataFrame,
    mode: str | None = None,
    remedy: str = TRAIN,
    wanted: Collection[str] | None = None,
) -> list[pl.LazyFrame]:
    """A column for each checkpoint of the mode; NaN, as others may write, is not seen either."""
    expected = _num_rows(folder / "index.parquet", TRACE_INDEX, remedy)
    columns = []
    for checkpoint, of_mode in checkpoints.select("checkpoint", "mode").iter_rows():
        name = loss_column(checkpoint)
        path = folder / f"{name}.parquet"
        num_rows = _num_rows(path, pl.Schema({name: pl.Float32()}), remedy)
        if num_rows != expected:
            raise SchemaError(
                f"{path}: expected {expected} rows as in index, got {num_rows}. {remedy}"
            )
        if mode in (None, of_mode) and (wanted is None or name in wanted):
            columns.append(scan_parquet(path).select(pl.col(name).fill_nan(None)))
    return columns


def verify_files(folder: Path, checksums: JsonObject, remedy: str = TRAIN) -> None:
    """Refuse what is not as its checksum says; see ``verify``."""
    for name, expected in checksums.items():
        path = folder / name
        with naming_file(path, remedy):
            found = checksum(path)
        if found != expected:
            raise DataError(f"{path}: expected BLAKE2b {expected}, got {found}. {remedy}")


def _read_both_tokens(
    folder: Path, asked: pl.Series | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    train, heldout = _read_tokens(folder, "train", asked), _read_tokens(folder, "heldout")
    return train, heldout.filter(~_is_twin(heldout))


def _is_twin(samples: pl.DataFrame) -> pl.Series:
    """Whether each held-out sample is a twin; those stand last."""
    return samples["sample_id"].cast(pl.String).str.starts_with(TWIN)


def _read_tokens(folder: Path, part: str, asked: pl.Series | None = None) -> pl.DataFrame:
    path = folder / TOKEN_FILES[part]
    # A recorder's has the ids of the tokens too.
    schema = scan_table(path, TOKEN_LOSSES, TRAIN).collect_schema()
    tables, lengths = [pl.DataFrame(schema=schema)], [pl.DataFrame(schema=_TOKEN_LENGTHS)]
    num_odd = 0
    for table in TableChunks(path, schema.names(), remedy=TRAIN):
        losses = pl.col("early", "late").list
        lengths.append(table.select("sample_id", losses.len().cast(pl.Int64)))
        num_odd += sum(_num_odd(table[name].explode()) for name in ("early", "late"))
        is_asked = True if asked is None else pl.col("sample_id").is_in(asked.implode())
        tables.append(table.filter(is_asked))
    _require_lengths(pl.concat(lengths), folder, part)
    _require_finite(num_odd, path)
    return pl.concat(tables)


def _require_lengths(found: pl.DataFrame, folder: Path, part: str) -> None:
    """Refuse token losses of other samples or tokens than those of the index."""
    path = folder / TOKEN_FILES[part]
    index = _read_index(*(shard_folders(folder) if part == "train" else [folder / part]))
    _require_samples(found, index, path)
    for name in ("early", "late"):
        num_odd = int(found[name].ne_missing(index["num_tokens"]).sum())
        if num_odd:
            raise SchemaError(
                f"{path}: expected num_tokens losses in {name} of every sample, got other numbers "
                f"in {num_odd}. {TRAIN}"
            )


def _require_samples(
    table: pl.DataFrame, index: pl.DataFrame, path: Path, remedy: str = TRAIN
) -> None:
    if not table["sample_id"].equals(index["sample_id"]):
        raise SchemaError(
            f"{path}: expected the {index.height} samples of index in its order, got "
            f"{table.height} rows that are not. {remedy}"
        )


def _require_rising(numbers: pl.Series, path: Path) -> None:
    if numbers.null_count() or not (numbers[1:] > numbers[:-1]).all():
        shown = ", ".join(map(str, numbers[:10].to_list()))
        raise DataError(
            f"{path}: expected checkpoints whose numbers rise from row to row, got {shown}"
            f"{', ...' if len(numbers) > 10 else ''}. {ANEW}"
        )


def _require_no_fall(numbers: pl.Series, path: Path) -> None:
    """Refuse rows in another order than that of the training: early losses would be late ones."""
    known = numbers.drop_nulls()
    if not ((known >= 0) & known.is_finite()).all() or not (known[1:] >= known[:-1]).all():
        shown = ", ".join(map(str, known[:10].to_list()))
        raise DataError(
            f"{path}: expected {numbers.name}s of at least 0 that do not fall from row to row, "
            f"got {shown}{', ...' if len(known) > 10 else ''}. {ANEW}"
        )


def _num_odd(values: pl.Series) -> int:
    """How many are missing or not finite."""
    return int((~values.is_finite()).fill_null(value=True).sum())


def _require_finite(num_odd: int, path: Path, remedy: str = TRAIN) -> None:
    if num_odd:
        raise DataError(f"{path}: expected finite numbers, got {num_odd} that are not. {remedy}")


def _num_rows(path: Path, schema: pl.Schema, remedy: str) -> int:
    """Rows of a Parquet file of a trace, from what it says of itself."""
    with naming_file(path, remedy):
        table = scan_parquet(path)
        found = pl.DataFrame(schema=table.collect_schema())
        require(found, schema, name=str(path), remedy=remedy)
        num_rows: int = table.select(pl.len()).collect().item()
    return num_rows

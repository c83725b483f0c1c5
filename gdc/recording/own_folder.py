"""A folder that a recorder is given -> the certainty that it may write its trace there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from gdc.errors import DataError
from gdc.filesystem.table_files import read_parquet
from gdc.recording.trace import GAINS, TOKEN_FILES
from gdc.recording.trace_files import TraceFiles
from gdc.schema import CHECKPOINTS

# Of a ``CHECKPOINTS`` table: number, step, epoch, mode and learning rate.
CheckpointRow = tuple[int, int, float, str, float | None]
ANOTHER: Final = "Name another folder, or move it away."


def checkpoints_of(folder: Path, *, resume: bool) -> list[CheckpointRow]:
    """Rows of the ``CHECKPOINTS`` table of a trace that goes on; none where none was begun.

    Raises:
        DataError: There are some, and nobody asked to ``resume``.
    """
    path = folder / "checkpoints.parquet"
    rows = (
        list(read_parquet(path).select(CHECKPOINTS.names()).iter_rows()) if path.is_file() else []
    )
    if rows and not resume:
        raise DataError(
            f"{folder}: expected no trace yet, got one of {len(rows)} checkpoints. "
            f"Give resume=True to continue it. {ANOTHER}"
        )
    return rows


def checkpoint_table(rows: list[CheckpointRow]) -> pl.DataFrame:
    """``CHECKPOINTS`` table of the rows."""
    return pl.DataFrame(rows, schema=CHECKPOINTS, orient="row")


def require_no_step_back(rows: list[CheckpointRow], step: int, folder: Path) -> None:
    """Refuse another checkpoint whose step lies before that of the last one.

    Raises:
        DataError: It does.
    """
    last = rows[-1][1] if rows else 0
    if step < last:
        raise DataError(
            f"{folder}: expected a step of at least {last}, that of the last checkpoint, got "
            f"{step}. Record a new run into another folder, or load the state of this one."
        )


def require_own_folder(
    folder: Path, files: TraceFiles, own: Mapping[str, pl.DataFrame | None], world_size: int
) -> None:
    """Refuse a folder of other things, or with the trace of another data set.

    Args:
        folder: The folder of the trace.
        files: The files of this process in it.
        own: Index of its ``training`` and of its ``held-out`` samples; None: there are none.
        world_size: Number of processes that record.

    Raises:
        DataError: The folder holds something else.
    """
    known = {
        "train", "heldout", "checkpoints.parquet", "first_seen.parquet", "checksums.json",
        GAINS, *TOKEN_FILES.values(),
    }  # fmt: skip
    found = sorted({path.name for path in folder.glob("[!.]*")} - known)
    if found:
        raise DataError(
            f"{folder}: expected an empty folder or a trace, got {', '.join(found[:3])}. {ANOTHER}"
        )
    path = files.train / "index.parquet"
    if not path.is_file():
        if any((folder / "train").rglob("index.parquet")):
            raise DataError(
                f"{path}: not found. Expected a trace of {world_size} processes, as many as record "
                f"now, got one of another number. {ANOTHER}"
            )
        return
    for split, part in (("training", files.train), ("held-out", files.heldout)):
        _require_same_samples(part / "index.parquet", split, own[split])


def require_whole(files: TraceFiles, num_checkpoints: int, *, with_heldout: bool) -> None:
    """Compare the checkpoints of a trace that goes on with their checksums.

    Raises:
        DataError: A file is missing, or not as it was written.
    """
    try:
        files.require_whole(num_checkpoints, with_heldout=with_heldout)
    except DataError as error:
        raise DataError(
            f"{files.folder}: expected the {num_checkpoints} checkpoints of a trace that goes on, "
            f"got: {error} Put the file back, or record into another folder."
        ) from None


def _require_same_samples(file: Path, split: str, index: pl.DataFrame | None) -> None:
    if not file.is_file() and index is None:
        return
    stored = read_parquet(file)["sample_id"] if file.is_file() else None
    if stored is None or index is None or not stored.equals(index["sample_id"]):
        raise DataError(
            f"{file}: expected the {split} samples of this data set in its order, got those of "
            f"another: {0 if stored is None else len(stored)} samples against "
            f"{0 if index is None else index.height}. {ANOTHER}"
        )

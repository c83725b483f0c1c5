"""The files of a trace that is being recorded: written in the background, whole, with checksums."""

import json
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.filesystem.durable import new_file
from gdc.filesystem.table_files import checksum, write_parquet
from gdc.recording.trace import GAINS, TOKEN_FILES, loss_column, loss_table
from gdc.schema import (
    CHECKPOINTS,
    FIRST_SEEN,
    SELF_INFLUENCE,
    TOKEN_LOSSES,
    TRACE_INDEX,
    require,
)

# Beside the files of each folder of a trace: BLAKE2b of each.
CHECKSUMS: Final = "checksums.json"


class Processes(Protocol):
    """The processes that record one trace together, seen from one of them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def world_size(self) -> int:
        """Number of processes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files that belong to all of them."""

    def shard_rows(self, num_rows: int) -> slice:
        """The samples whose losses this process writes; each falls to exactly one."""


class TraceFiles:
    """Writes a trace checkpoint by checkpoint.

    Losses are written in the background, one file for each checkpoint, so that memory holds those
    of one or two checkpoints. With several processes each writes its own rows as a shard; the main
    process also writes the files that are not sharded.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self._processes = folder, processes
        self.train, self.heldout = folder / "train", folder / "heldout"
        if processes.world_size > 1:
            self.train /= f"shard_{processes.rank:05d}"
        self._background = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files that are not sharded."""
        return self._processes.is_main

    def write_indices(self, index: pl.DataFrame, heldout_index: pl.DataFrame | None) -> None:
        """Write which samples the rows of all losses are.

        Args:
            index: ``TRACE_INDEX`` table of the training samples; further columns are kept.
            heldout_index: The same of the held-out samples; None: there are none.
        """
        rows = self._processes.shard_rows(index.height)
        self._submit(self.train, "index", index[rows], TRACE_INDEX)
        if heldout_index is not None and self._processes.is_main:
            self._submit(self.heldout, "index", heldout_index, TRACE_INDEX)

    def append(
        self,
        checkpoint: int,
        losses: NDArray[np.float32],
        heldout: NDArray[np.float32] | None,
    ) -> None:
        """Take the losses of all samples at a checkpoint, nats per token; NaN: not seen."""
        name = loss_column(checkpoint)
        rows = self._processes.shard_rows(len(losses))
        self._submit_losses(self.train, name, losses[rows])
        if heldout is not None and self._processes.is_main:
            self._submit_losses(self.heldout, name, heldout)

    def list_checkpoints(self, checkpoints: pl.DataFrame) -> None:
        """Say which checkpoints are complete: once what was appended before is written.

        Args:
            checkpoints: ``CHECKPOINTS`` table.
        """
        if self._processes.is_main:
            self._submit(self.folder, "checkpoints", checkpoints, CHECKPOINTS)

    def write_first_seen(self, first_seen: pl.DataFrame) -> None:
        """Say when each sample was first trained on: a ``FIRST_SEEN`` table."""
        if self._processes.is_main:
            self._submit(self.folder, "first_seen", first_seen, FIRST_SEEN)

    def write_gains(self, gains: pl.DataFrame) -> None:
        """Say what the steps so far taught of each sample: a ``SELF_INFLUENCE`` table."""
        if self._processes.is_main:
            self._submit(self.folder, Path(GAINS).stem, gains, SELF_INFLUENCE)

    def remove_gains(self) -> None:
        """Remove what ``write_gains`` has written, if it has, in the main process only."""
        if (self.folder / GAINS).exists():
            self.flush()
            self._remove(GAINS)

    def write_tokens(self, part: str, tokens: pl.DataFrame) -> None:
        """Write the losses of the tokens of a part, a key of ``TOKEN_FILES``.

        Args:
            part: Training or held-out samples.
            tokens: ``TOKEN_LOSSES`` table of all of them; further columns are kept.
        """
        if self._processes.is_main:
            self._submit(self.folder, Path(TOKEN_FILES[part]).stem, tokens, TOKEN_LOSSES)

    def remove_tokens(self, part: str) -> None:
        """Remove what ``write_tokens`` has written, in the main process only."""
        self._remove(TOKEN_FILES[part])

    def flush(self) -> None:
        """Return when all that was taken is written."""
        while self._pending:
            self._pending.pop(0).result()

    def close(self) -> None:
        """``flush``, and end the thread that writes."""
        try:
            self.flush()
        finally:
            self._background.shutdown()

    def write(self, name: str, table: pl.DataFrame, schema: pl.Schema) -> None:
        """Write another table of the trace at once, in the main process only."""
        self._write(self.folder, name, table, schema)

    def require_whole(self, num_checkpoints: int, *, with_heldout: bool) -> None:
        """Compare this process's files of the first checkpoints with their checksums.

        Raises:
            DataError: One is missing, or not as it was written.
        """
        names = [f"{name}.parquet" for name in ("index", *map(loss_column, range(num_checkpoints)))]
        for folder in self._own_folders(with_heldout=with_heldout):
            known = _read_checksums(folder)
            for name in names:
                path = folder / name
                found = checksum(path) if path.is_file() else None
                if found is None or found != known.get(name):
                    raise DataError(
                        f"{path}: expected BLAKE2b {known.get(name)}, got {found or 'no file'}."
                    )

    def remove_after(self, num_checkpoints: int, *, with_heldout: bool) -> None:
        """Remove this process's losses of later checkpoints than the first ones."""
        kept = {f"{loss_column(checkpoint)}.parquet" for checkpoint in range(num_checkpoints)}
        for folder in self._own_folders(with_heldout=with_heldout):
            known = _read_checksums(folder)
            later = {path.name for path in folder.glob("loss_*.parquet")} - kept
            _write_checksums(folder, {name: known[name] for name in known.keys() - later})
            for name in later:
                (folder / name).unlink()

    def _own_folders(self, *, with_heldout: bool) -> Iterable[Path]:
        return [self.train, *([self.heldout] if with_heldout and self._processes.is_main else [])]

    def _remove(self, name: str) -> None:
        if self._processes.is_main:
            known = _read_checksums(self.folder)
            _write_checksums(self.folder, {key: known[key] for key in known.keys() - {name}})
            (self.folder / name).unlink()

    def _submit_losses(self, folder: Path, name: str, losses: NDArray[np.float32]) -> None:
        table = loss_table([losses]).rename({loss_column(0): name})
        self._submit(folder, name, table, table.schema)

    def _submit(self, folder: Path, name: str, table: pl.DataFrame, schema: pl.Schema) -> None:
        # With a slow disk training waits, so that losses do not fill the memory.
        while len(self._pending) > 1:
            self._pending.pop(0).result()
        self._pending.append(self._background.submit(self._write, folder, name, table, schema))

    @staticmethod
    def _write(folder: Path, name: str, table: pl.DataFrame, schema: pl.Schema) -> None:
        path = folder / f"{name}.parquet"
        require(table, schema, name=str(path))
        write_parquet(path, table)
        _write_checksums(folder, {**_read_checksums(folder), path.name: checksum(path)})


def _read_checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    known: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
    return known


def _write_checksums(folder: Path, checksums: dict[str, str]) -> None:
    with new_file(folder / CHECKSUMS) as temporary:
        text = json.dumps(checksums, indent=2, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")

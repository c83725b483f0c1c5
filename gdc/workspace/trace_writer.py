"""Losses of a run in progress -> a trace on disk, checkpoint by checkpoint."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError, SchemaError
from gdc.recording.trace import loss_column, loss_table
from gdc.schema import CHECKPOINTS, SELF_INFLUENCE, TOKEN_LOSSES, TRACE_INDEX
from gdc.training.distributed import Group
from gdc.workspace import files, paths, tables, traces


class TraceWriter:
    """Writes the trace of a tracked run while it trains.

    Losses are written in the background, one file per checkpoint, so that memory holds those of one
    or two checkpoints. Each process of a group writes its own rows as a shard; the main process
    also writes the files that are not sharded. What a killed run has written stays below
    ``work/traces`` until the run resumes, or another run of its seed begins.
    """

    def __init__(
        self, seed: int, index: pl.DataFrame, heldout_index: pl.DataFrame, group: Group
    ) -> None:
        """Take the samples whose losses will follow.

        Args:
            seed: Of the run; names its trace.
            index: ``TRACE_INDEX`` table of the training samples, in the order of their losses.
            heldout_index: The same of the held-out samples.
            group: The processes that train together.
        """
        self._seed, self._group, self._parent = seed, group, Path(f"work/traces/{seed}")
        self._rows = group.shard_rows(index.height)
        self._index, self._heldout_index = index, heldout_index
        self._background = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._num_checkpoints = 0

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Continue after so many checkpoints of the run with this name; 0: a new run.

        Raises:
            DataError: A file of these checkpoints is damaged or missing.
        """
        self._folder, self._num_checkpoints = self._parent / run, num_checkpoints
        self._train = self._folder / "train"
        if self._group.world_size > 1:
            self._train /= f"shard_{self._group.rank:05d}"
        if self._group.is_main:
            self._clear()
        self._group.barrier()
        if num_checkpoints == 0:
            self._write(self._train, "index", self._index[self._rows], TRACE_INDEX)
            if self._group.is_main:
                self._write(self._folder / "heldout", "index", self._heldout_index, TRACE_INDEX)
        self._verify()

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """Take the losses of all samples at the next checkpoint; NaN: not seen."""
        name = loss_column(self._num_checkpoints)
        self._num_checkpoints += 1
        self._submit(self._train, name, losses[self._rows])
        if self._group.is_main:
            self._submit(self._folder / "heldout", name, heldout)

    def flush(self) -> None:
        """Return when all losses that were appended are written."""
        while self._pending:
            self._pending.pop(0).result()

    def finish(
        self,
        checkpoints: pl.DataFrame,
        tokens: tuple[pl.DataFrame, pl.DataFrame] | None,
        gains: pl.DataFrame | None,
    ) -> None:
        """Write what is known only at the end, and move the trace to the folder for data.

        Args:
            checkpoints: ``CHECKPOINTS`` table.
            tokens: ``TOKEN_LOSSES`` tables of training and held-out samples; None: not recorded.
            gains: ``SELF_INFLUENCE`` table; None: not recorded.
        """
        self.flush()
        self._background.shutdown()
        self._group.barrier()
        if self._group.is_main:
            for name, table in zip(traces.TOKEN_FILES.values(), tokens or (), strict=False):
                self._write(self._folder, Path(name).stem, table, TOKEN_LOSSES)
            if gains is not None:
                self._write(self._folder, Path(traces.GAINS).stem, gains, SELF_INFLUENCE)
            self._write(self._folder, "checkpoints", checkpoints, CHECKPOINTS)
            with files.new_folder(paths.trace_path(self._seed)) as folder:
                folder.rmdir()
                # The folder for data may be on another disk.
                shutil.move(self._folder, folder)
            self._parent.rmdir()
        self._group.barrier()

    def _clear(self) -> None:
        """Remove what other runs of this seed have left; in a new run also its own folder."""
        for folder in self._parent.glob("*"):
            if folder != self._folder or self._num_checkpoints == 0:
                shutil.rmtree(folder)

    def _verify(self) -> None:
        columns = map(loss_column, range(self._num_checkpoints))
        names = [f"{name}.parquet" for name in ("index", *columns)]
        own = [self._train, *([self._folder / "heldout"] if self._group.is_main else [])]
        try:
            for folder in own:
                known = files.read_json(folder / traces.CHECKSUMS)
                traces.verify_files(folder, {name: known.get(name) for name in names})
        except (DataError, SchemaError) as error:
            raise DataError(
                f"{self._folder}: expected the first {self._num_checkpoints} checkpoints of a run "
                f"that resumes, got: {error} Remove work/checkpoints to train from the beginning."
            ) from None

    def _submit(self, folder: Path, name: str, losses: NDArray[np.float32]) -> None:
        # With a slow disk training waits, so that losses do not fill the memory.
        while len(self._pending) > 1:
            self._pending.pop(0).result()
        table = loss_table([losses]).rename({loss_column(0): name})
        self._pending.append(
            self._background.submit(self._write, folder, name, table, table.schema)
        )

    def _write(self, folder: Path, name: str, table: pl.DataFrame, schema: pl.Schema) -> None:
        path, checksums = folder / f"{name}.parquet", folder / traces.CHECKSUMS
        tables.write_table(path, table, schema)
        known = files.read_json(checksums) if checksums.exists() else {}
        files.write_json(checksums, {**known, path.name: files.checksum(path)})

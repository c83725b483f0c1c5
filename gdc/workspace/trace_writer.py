"""Losses of a run under way -> a trace on disk, checkpoint by checkpoint."""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError, SchemaError
from gdc.recording.trace import loss_column, loss_table
from gdc.schema import CHECKPOINTS, SELF_INFLUENCE, TOKEN_LOSSES, TRACE_INDEX
from gdc.training.distributed import Processes
from gdc.workspace import files, paths, tables, traces


class TraceWriter:
    """Writes the trace of a tracked run while it trains.

    Losses are written in the background, one file a checkpoint, so that memory holds those of one
    or two. Each process writes its own rows as a shard; the first one also what is not sharded.
    What a killed run has written stays below ``work/traces`` until it goes on, or another begins.
    """

    def __init__(
        self, seed: int, index: pl.DataFrame, heldout_index: pl.DataFrame, among: Processes
    ) -> None:
        """Args: ``TRACE_INDEX`` tables of the samples, in the order of the losses to come."""
        self._seed, self._among, self._place = seed, among, Path(f"work/traces/{seed}")
        self._rows = among.rows(index.height)
        self._index, self._heldout_index = index, heldout_index
        self._background = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._num_checkpoints = 0

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Go on after so many checkpoints of the run with this name; 0: begin.

        Raises:
            DataError: What was written of it is damaged or gone.
        """
        self._folder, self._num_checkpoints = self._place / run, num_checkpoints
        self._train = self._folder / "train"
        if self._among.count > 1:
            self._train /= f"shard_{self._among.rank:05d}"
        if self._among.is_first:
            self._clear()
        self._among.wait()
        if num_checkpoints == 0:
            self._write(self._train, "index", self._index[self._rows], TRACE_INDEX)
            if self._among.is_first:
                self._write(self._folder / "heldout", "index", self._heldout_index, TRACE_INDEX)
        self._verify()

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """Take the losses of all samples at the next checkpoint; NaN: not seen."""
        name = loss_column(self._num_checkpoints)
        self._num_checkpoints += 1
        self._submit(self._train, name, losses[self._rows])
        if self._among.is_first:
            self._submit(self._folder / "heldout", name, heldout)

    def flush(self) -> None:
        """Return when all that came is written."""
        while self._pending:
            self._pending.pop(0).result()

    def finish(
        self,
        checkpoints: pl.DataFrame,
        tokens: tuple[pl.DataFrame, pl.DataFrame] | None,
        gains: pl.DataFrame | None,
    ) -> None:
        """Write what is known at the end and put the trace in its place.

        Args:
            checkpoints: ``CHECKPOINTS`` table.
            tokens: ``TOKEN_LOSSES`` tables of training and held-out samples; None: not recorded.
            gains: ``SELF_INFLUENCE`` table; None: not recorded.
        """
        self.flush()
        self._background.shutdown()
        self._among.wait()
        if self._among.is_first:
            for name, table in zip(traces.TOKEN_FILES.values(), tokens or (), strict=False):
                self._write(self._folder, Path(name).stem, table, TOKEN_LOSSES)
            if gains is not None:
                self._write(self._folder, Path(traces.GAINS).stem, gains, SELF_INFLUENCE)
            self._write(self._folder, "checkpoints", checkpoints, CHECKPOINTS)
            with files.new_folder(paths.trace_path(self._seed)) as folder:
                folder.rmdir()
                # The folder for data may lie on another disk.
                shutil.move(self._folder, folder)
            self._place.rmdir()
        self._among.wait()

    def _clear(self) -> None:
        """What other runs of this seed have left, and a beginning of this one."""
        for folder in self._place.glob("*"):
            if folder != self._folder or self._num_checkpoints == 0:
                shutil.rmtree(folder)

    def _verify(self) -> None:
        columns = map(loss_column, range(self._num_checkpoints))
        names = [f"{name}.parquet" for name in ("index", *columns)]
        own = [self._train, *([self._folder / "heldout"] if self._among.is_first else [])]
        try:
            for folder in own:
                known = files.read_json(folder / traces.CHECKSUMS)
                traces.verify_files(folder, {name: known.get(name) for name in names})
        except (DataError, SchemaError) as error:
            raise DataError(
                f"{self._folder}: expected the first {self._num_checkpoints} checkpoints of a run "
                f"that goes on, got: {error} Remove work/checkpoints to train from the beginning."
            ) from None

    def _submit(self, folder: Path, name: str, losses: NDArray[np.float32]) -> None:
        # A slow disk slows training down; memory must not fill instead.
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

"""Losses of a run in progress -> a trace in the workspace, checkpoint by checkpoint."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.filesystem.durable import new_folder
from gdc.recording.trace import GAINS, TOKEN_FILES
from gdc.recording.trace_files import TraceFiles
from gdc.schema import (
    CHECKPOINTS,
    FIRST_SEEN,
    REFERENCE_LOSS,
    SELF_INFLUENCE,
    TOKEN_LOSSES,
)
from gdc.training.distributed import Group
from gdc.workspace import paths, traces


class TraceWriter:
    """Writes the trace of a tracked run of the pipeline while it trains.

    The files of a killed run stay in ``work/traces`` until it resumes, or another run with its seed
    starts.
    """

    def __init__(
        self, seed: int, index: pl.DataFrame, heldout_index: pl.DataFrame, group: Group
    ) -> None:
        """Prepare the trace of one run.

        Args:
            seed: Seed of the run; names its trace.
            index: ``TRACE_INDEX`` table of the training samples, in the order of their losses.
            heldout_index: The same table for the held-out samples.
            group: The processes that train together.
        """
        self._seed, self._group, self._parent = seed, group, Path(f"work/traces/{seed}")
        self._index, self._heldout_index = index, heldout_index
        self._num_checkpoints = 0

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Start a run, or continue one that has written some checkpoints.

        Args:
            run: Name of the run.
            num_checkpoints: How many it has written; 0 starts a new run.

        Raises:
            DataError: A file of these checkpoints is damaged or missing.
        """
        self._folder, self._num_checkpoints = self._parent / run, num_checkpoints
        self._files = TraceFiles(self._folder, self._group)
        if self._group.is_main:
            self._clear()
        self._group.barrier()
        if num_checkpoints == 0:
            self._files.write_indices(self._index, self._heldout_index)
            self._files.flush()
        self._verify()

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """Add the losses of all samples at the next checkpoint; NaN: the sample was not seen."""
        self._files.append(self._num_checkpoints, losses, heldout)
        self._num_checkpoints += 1

    def flush(self) -> None:
        """Wait until all appended losses are written."""
        self._files.flush()

    def finish(
        self,
        checkpoints: pl.DataFrame,
        tokens: tuple[pl.DataFrame, pl.DataFrame] | None,
        gains: pl.DataFrame | None,
        first_seen: pl.DataFrame | None = None,
        base: pl.DataFrame | None = None,
    ) -> None:
        """Write the tables that are complete only at the end, and move the trace to ``data/``.

        Args:
            checkpoints: ``CHECKPOINTS`` table.
            tokens: ``TOKEN_LOSSES`` tables of training and held-out samples; None: not recorded.
            gains: ``SELF_INFLUENCE`` table; None: not recorded.
            first_seen: ``FIRST_SEEN`` table; None: not known.
            base: ``REFERENCE_LOSS`` table of the model before the first step; None: not recorded.
        """
        self._files.close()
        self._group.barrier()
        if self._group.is_main:
            for name, table in zip(TOKEN_FILES.values(), tokens or (), strict=False):
                self._files.write(Path(name).stem, table, TOKEN_LOSSES)
            if first_seen is not None:
                self._files.write(Path(traces.FIRST_SEEN_FILE).stem, first_seen, FIRST_SEEN)
            if gains is not None:
                self._files.write(Path(GAINS).stem, gains, SELF_INFLUENCE)
            if base is not None:
                self._files.write(Path(traces.BASE).stem, base, REFERENCE_LOSS)
            self._files.write("checkpoints", checkpoints, CHECKPOINTS)
            with new_folder(paths.trace_path(self._seed)) as folder:
                folder.rmdir()
                # data/ may be on another disk than work/, where a rename would fail.
                shutil.move(self._folder, folder)
            self._parent.rmdir()
        self._group.barrier()

    def _clear(self) -> None:
        """Remove the folders of other runs with this seed; for a new run also its own."""
        for folder in self._parent.glob("*"):
            if folder != self._folder or self._num_checkpoints == 0:
                shutil.rmtree(folder)

    def _verify(self) -> None:
        try:
            self._files.require_whole(self._num_checkpoints, with_heldout=True)
        except DataError as error:
            raise DataError(
                f"{self._folder}: expected the first {self._num_checkpoints} checkpoints of a run "
                f"that resumes, got: {error} Remove work/checkpoints to train from the beginning."
            ) from None

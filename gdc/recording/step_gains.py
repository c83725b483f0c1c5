"""Losses of samples before and after the steps on them -> what the steps taught of each."""

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.recording.sample_sums import require_sums
from gdc.recording.trace import gain_table
from gdc.recording.trace_files import TraceFiles
from gdc.training.distributed import Group, State


class StepGains:
    """Loss before minus loss after, summed over the steps with a sample, nats per token.

    Attributes:
        num_missed: Optimizer steps so far, or calls of ``record``, of which no gain is known. They
            cannot be made up for.
    """

    def __init__(self, files: TraceFiles, index: pl.DataFrame, group: Group) -> None:
        """No step has been taken on the samples of a ``TRACE_INDEX`` table."""
        self.num_missed = 0
        self._files, self._index, self._group = files, index, group
        self._values = np.full(index.height, np.nan)
        self._is_known = False  # to any process
        self._is_new = False  # whether there are any since the last checkpoint

    def require_whole(self) -> None:
        """Refuse to begin where steps are missed.

        Raises:
            DataError: They are.
        """
        if self.num_missed and not self._is_known:
            raise DataError(
                f"{self._files.folder}: record_gain: expected the gains of all steps, got none of "
                "those that were taken before. Record them from the first step on; after a kill "
                "load the recorder's state_dict; or record a new run into another folder."
            )

    def add(
        self,
        index: NDArray[Any],
        before: NDArray[Any],
        after: NDArray[Any],
        num_tokens: NDArray[Any],
    ) -> None:
        """Add what a step taught of some samples; see ``TraceRecorder.record_gain``."""
        index, before, after = (np.atleast_1d(part) for part in (index, before, after))
        if num_tokens.ndim == 0:
            num_tokens = np.broadcast_to(num_tokens, index.shape)
        for sums in (before, after):
            name = f"{self._files.folder}: record_gain"
            require_sums(index, sums, num_tokens, len(self._values), name)
        self._is_new = True
        has_tokens = num_tokens > 0
        rows, tokens = index[has_tokens], num_tokens[has_tokens]
        gains = before[has_tokens].astype(np.float64) - after[has_tokens]
        self._values[rows] = np.nan_to_num(self._values[rows])
        np.add.at(self._values, rows, gains / tokens)

    def write(self, num_steps: int, mode: str = "online") -> None:
        """Let the trace have what is known at a checkpoint after so many steps.

        Where there was training without gains nothing is known, and whatever a former run has left
        is removed.
        """
        if mode == "online":
            if not self._in_any(self._is_new):
                if self._is_known:
                    # What waits to be written goes too.
                    self._files.flush()
                self._is_known, self._values[:] = False, np.nan
            self._is_new = False
        self._write(num_steps, mode)

    def _write(self, num_steps: int, mode: str = "online") -> None:
        values = self._reduced()
        if values is not None:
            self._files.write_gains(gain_table(self._index, values))
        elif mode == "online":
            self.num_missed = num_steps
            self._files.remove_gains()

    def forget(self, num_steps: int) -> None:
        """Know of no gain of the steps so far, and leave none in the trace."""
        self.load_state_dict({}, num_steps)

    def state_dict(self) -> State:
        """The same in all processes."""
        values = self._reduced()
        return {
            "gains": None if values is None else torch.from_numpy(values.copy()),
            "has_new_gains": self._in_any(self._is_new),
        }

    def load_state_dict(self, state: State, num_steps: int) -> None:
        """Go back to a state of so many steps, and let the trace have what it knows.

        That of an older version, or of a run without gains, knows none.
        """
        gains = state.get("gains")
        self._is_known = gains is not None
        self._is_new = self._is_known and state.get("has_new_gains", False)
        self._values[:] = np.nan
        # One of the processes holds what all had recorded.
        if gains is not None and self._group.is_main:
            self._values[:] = gains.cpu().numpy()
        self._write(num_steps)

    def _reduced(self) -> NDArray[np.float64] | None:
        """Of all processes; None: none of them knows any."""
        is_known = ~np.isnan(self._values)
        self._is_known |= self._in_any(bool(is_known.any()))
        if not self._is_known:
            return None
        is_known = self._group.all_reduce(is_known.astype(np.int64), "max") > 0
        return np.where(is_known, self._group.all_reduce(np.nan_to_num(self._values)), np.nan)

    def _in_any(self, is_so: bool) -> bool:
        """Whether it is so in any of the processes."""
        return bool(self._group.all_reduce(np.array([int(is_so)]), "max")[0])

"""Calls of ``record`` -> the optimizer step at which each sample was first trained on."""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from gdc.filesystem.table_files import read_parquet
from gdc.training.distributed import Group, State

_LATEST: Final = np.iinfo(np.int64).max


def stored_steps(folder: Path) -> NDArray[np.int64] | None:
    """Those that a trace has kept, 0 where there is none; None: it is one of an older version."""
    path = folder / "first_seen.parquet"
    return read_parquet(path)["step"].fill_null(0).to_numpy() if path.is_file() else None


class FirstSeen:
    """A call becomes a step at the next checkpoint, which says what step that is.

    Attributes:
        steps: Of each sample the step after the batch that it was first in; 0: not yet.
        is_dated: Whether they are known: a trace of an older version that goes on has none.
    """

    def __init__(self, num_samples: int, group: Group) -> None:
        self._calls, self.steps = np.zeros((2, num_samples), np.int64)
        self._last_call = 0
        self.is_dated = True
        self._group = group

    def note(self, rows: NDArray[np.int64], call: int) -> None:
        """Keep that some samples were in a call, the number of which is above 0."""
        self._calls[rows[self._calls[rows] == 0]] = call

    def leave_out_calls(self) -> None:
        """Of the calls since the last checkpoint, as they were no training."""
        self._calls[self.steps == 0] = 0

    def date(self, before: int, step: int, num_calls: int) -> bool:
        """Spread the calls since the last checkpoint evenly over the steps since then.

        Args:
            before: Step of the last checkpoint.
            step: That of this one.
            num_calls: Calls so far.

        Returns:
            Whether a sample was seen for the first time, by whichever process.
        """
        first_call, self._last_call = self._last_call, num_calls
        if not self.is_dated or (self.steps > 0).all():
            return False
        is_new = (self._calls > 0) & (self.steps == 0)
        # A process may be the only one that has seen a sample; the earliest counts.
        share = (self._calls[is_new] - first_call) / max(1, num_calls - first_call)
        steps = np.zeros(len(is_new), np.int64)
        steps[is_new] = before + np.ceil(share * (step - before)).astype(np.int64)
        steps = self._earliest(steps)
        self.steps[steps > 0] = steps[steps > 0]
        return bool((steps > 0).any())

    def go_on(self, num_calls: int, steps: NDArray[np.int64] | None) -> None:
        """After so many calls, from the steps that a trace has kept; None: it has none."""
        self._last_call = num_calls
        self.is_dated = steps is not None
        if steps is not None:
            self.steps[:] = steps

    def keep_until(self, step: int) -> bool:
        """Forget what was seen after a step; returns whether a sample was."""
        self._calls[:] = 0
        is_later = self.steps > step
        self.steps[is_later] = 0
        return bool(is_later.any())

    def state_dict(self) -> State:
        """The same in all processes."""
        return {
            "last_call": self._last_call,
            "first_steps": torch.from_numpy(self.steps.copy()),
            "first_calls": torch.from_numpy(self._earliest(self._calls)),
        }

    def load_state_dict(self, state: State, num_calls: int) -> None:
        """Go back to a state; one of an older version knows nothing of it: the trace does."""
        self._last_call = state.get("last_call", num_calls)
        if "first_steps" in state:
            self.is_dated = True
            self.steps[:] = state["first_steps"].cpu().numpy()
            self._calls[:] = state["first_calls"].cpu().numpy()

    def _earliest(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The smallest of all processes; 0: none has one."""
        left = np.where(values > 0, _LATEST - values, 0)
        left = self._group.all_reduce(left, "max")
        return np.where(left > 0, _LATEST - left, 0)

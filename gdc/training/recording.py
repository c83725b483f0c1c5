"""What a training run records: its checkpoints, its curves, and the losses of its samples."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from gdc.filesystem import scratch
from gdc.schema import CHECKPOINTS
from gdc.training.distributed import State


class TokenSnapshot(NamedTuple):
    """Losses of all predicted tokens under the frozen model after ``step`` optimizer steps.

    Float32, nats, one text after the other.
    """

    step: int
    train: NDArray[np.float32]
    heldout: NDArray[np.float32]


class TraceSink(Protocol):
    """Takes the losses of samples, checkpoint by checkpoint.

    Losses are float32, nats per token, in text order, over all tokens of a sample, masked ones
    included; NaN where a training sample was not seen. Every process gets the losses of all
    samples.
    """

    def resume(self, run: str, num_checkpoints: int) -> None:
        """Keep the first checkpoints of the run with this name; later ones follow again.

        Called once, before all else; 0 checkpoints: a new run.
        """

    def append(self, losses: NDArray[np.float32], heldout: NDArray[np.float32]) -> None:
        """Take the losses of the training and of the held-out samples at the next checkpoint."""

    def flush(self) -> None:
        """Return when all that was appended will outlive this process."""


@dataclass
class Recording:
    """What a run has recorded so far, besides the losses of its samples.

    Attributes:
        checkpoints: Rows of ``CHECKPOINTS``.
        heldout_means: Mean held-out loss at each checkpoint, nats per token; NaN without held-out
            texts.
        curve: (step, loss that was trained, nats per token) of every step.
        num_masked_tokens: Tokens that carry no loss.
        snapshots: Token losses at the first probe (without probes: at the end of the first epoch)
            and after the last step; a single one where both are the same step.
        gain: Float64, for each sample its loss before minus its loss after every step it was in,
            summed, nats per token; NaN: it was in none. None: not recorded.
        base: Float64, loss of each sample before the first step, nats per token, frozen model.
            None: not recorded.
        weights: Float64, weight of each sample in the last pass of a run whose weights were
            revised. None: they were not.
        first_changed: Int64, for each sample the first pass of such a run, from 1, in which its
            weight was another than that of the data; 0: none. None: as for ``weights``.
    """

    checkpoints: list[tuple[int, int, float, str, float]] = field(default_factory=list)
    heldout_means: list[float] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    num_masked_tokens: int = 0
    snapshots: list[TokenSnapshot] = field(default_factory=list)
    gain: NDArray[np.float64] | None = None
    base: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    first_changed: NDArray[np.int64] | None = None

    def note_weights(
        self, weights: NDArray[np.float64], planned: NDArray[np.float64], epoch: int
    ) -> None:
        """Note the weights of a pass, the first with ``epoch`` 0, beside those of the data."""
        if weights is self.weights:
            return
        known = (
            np.zeros(len(weights), np.int64) if self.first_changed is None else self.first_changed
        )
        is_first = (known == 0) & (weights != planned)
        self.weights, self.first_changed = weights, np.where(is_first, epoch + 1, known)

    def checkpoint_table(self) -> pl.DataFrame:
        """``CHECKPOINTS`` table of the recorded checkpoints."""
        return pl.DataFrame(self.checkpoints, schema=CHECKPOINTS, orient="row")

    def state_dict(self) -> State:
        """What was recorded so far, but for ``gain``, which follows at the end."""
        return {
            "checkpoints": self.checkpoints,
            "heldout_means": self.heldout_means,
            "curve": self.curve,
            "base": None if self.base is None else torch.from_numpy(self.base),
            "weights": None if self.weights is None else torch.from_numpy(self.weights),
            "first_changed": None
            if self.first_changed is None
            else torch.from_numpy(self.first_changed),
            "snapshots": [
                (step, torch.from_numpy(train), torch.from_numpy(heldout))
                for step, train, heldout in self.snapshots
            ],
        }

    def load_state_dict(self, state: State, *, like: NDArray[np.int32]) -> None:
        """Restore what ``state_dict`` gave; token losses lie in a file where ``like`` does."""
        self.checkpoints = [tuple(row) for row in state["checkpoints"]]
        self.heldout_means = state["heldout_means"]
        self.curve = [tuple(point) for point in state["curve"]]
        for name in ("base", "weights", "first_changed"):
            setattr(self, name, None if state[name] is None else state[name].cpu().numpy())
        self.snapshots = [
            TokenSnapshot(
                step,
                scratch.copied(train.cpu().numpy(), like=like),
                scratch.copied(heldout.cpu().numpy(), like=like),
            )
            for step, train, heldout in state["snapshots"]
        ]

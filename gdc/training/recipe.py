"""Hyper-parameters and samples -> the batches, the number of steps and the learning rates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gdc.config import TrainingConfig
from gdc.environment import SHARDED_INFLUENCE
from gdc.errors import ConfigError, DataError
from gdc.filesystem import scratch
from gdc.training.batches import TokenizedTexts, Windows, cut_windows, plan_batches
from gdc.training.private import Privacy, count_batches, poisson_batches


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run's result, apart from the samples and the model."""

    config: TrainingConfig
    block_size: int  # predicted tokens of a window at most
    precision: str  # float32 or bfloat16
    seed: int  # of the batches and of dropout
    probes_per_epoch: int = 0  # evaluations of all samples under the frozen model
    num_steps: int | None = None  # optimizer steps; None: those of `config.epochs` epochs
    token_losses: bool = False  # record the first probe and the last step token by token
    self_influence: bool = False  # record by how much each step lowers its own samples' losses
    base_losses: bool = False  # record the samples' losses before the first step
    privacy: Privacy | None = None  # of the texts; None: none

    def require_group(self, num_processes: int, *, is_sharded: bool) -> None:
        """Refuse several processes, or a sharded model, where the recipe has what they cannot do.

        Raises:
            ConfigError: It has.
        """
        if self.privacy is not None and num_processes > 1:
            raise ConfigError(
                f"rule dp-sgd: expected one process, got {num_processes}. Leave it out, or unset "
                "GDC_LAUNCHER."
            )
        if self.self_influence and is_sharded:
            raise ConfigError(SHARDED_INFLUENCE)


class Revision(Protocol):
    """Weights that follow the run. Its ``repr`` says all that decides them."""

    def __call__(
        self, online: NDArray[np.float32], frozen: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Factor of each sample's loss in the next pass, in place of ``weights``.

        Args:
            online: Loss of each sample as each pass so far trained on it, passes x samples, nats
                per token.
            frozen: Its loss under the model at the end of each of them, likewise.
        """


@dataclass(frozen=True)
class TrainingData:
    """The samples of one run.

    ``weights`` float64 (factor of a sample's loss) and ``copies`` int64 (times per epoch) have one
    entry for each text; a sample with weight 0 or no copies is not trained on. ``masked`` has one
    for each id of ``texts``: predicting it carries no loss, though later tokens see it; None masks
    nothing. ``heldout`` are texts that are evaluated and never trained on; the last ``num_twins``
    of them are twins of canaries, no part of the mean over held-out texts. ``early`` has an entry
    for each text: whether each pass begins with it, in batches of such texts; None: no order.
    ``revision`` gives new weights after each pass; a text of weight 0 then goes through the model
    all the same, so that its loss is known.
    """

    texts: TokenizedTexts
    weights: NDArray[np.float64]
    copies: NDArray[np.int64]
    heldout: TokenizedTexts
    masked: NDArray[np.bool_] | None = None
    num_twins: int = 0
    early: NDArray[np.bool_] | None = None
    revision: Revision | None = None

    @classmethod
    def unweighted(cls, texts: TokenizedTexts, heldout: TokenizedTexts) -> "TrainingData":
        """Every sample once an epoch with weight 1."""
        return cls(texts, np.ones(len(texts)), np.ones(len(texts), dtype=np.int64), heldout)

    @property
    def is_trained(self) -> NDArray[np.bool_]:
        """Whether each text is trained on."""
        return np.asarray((self.copies > 0) & (self.weights != 0))

    @property
    def num_masked(self) -> int:
        """Ids of the texts that carry no loss."""
        parts = () if self.masked is None else scratch.read(self.masked)
        return sum(int(part.sum()) for part in parts)

    def windows(self, block_size: int) -> Windows:
        """Windows that one epoch trains on: those of a text once for each of its copies.

        Raises:
            DataError: There are none.
        """
        windows = cut_windows(self.texts, block_size)
        times = np.where(self.is_trained, self.copies, 0)[windows.sequence]
        if not times.any():
            raise DataError("training: no sample is left to train on. Drop fewer samples.")
        # A copy repeats its windows, so the windows of one epoch stay independent of each other.
        return windows.select(np.repeat(np.arange(len(windows)), times))


def epoch_batches(
    windows: Windows, recipe: Recipe, epoch: int, early: NDArray[np.bool_] | None = None
) -> Sequence[NDArray[np.int64]]:
    """Indices into ``windows`` of each batch of an epoch, in the order of training.

    With ``recipe.privacy`` they are those of ``poisson_batches``, else each window is in one.

    Args:
        windows: Of one epoch.
        recipe: The seed and the size of a batch.
        epoch: Number of the epoch, from 0.
        early: Whether each text comes before all others; None: no order. With privacy not heeded.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    size = recipe.config.batch_tokens
    if recipe.privacy is not None:
        return poisson_batches(windows, count_batches(windows, size), rng)
    if early is None:
        return plan_batches(windows.length, size, rng)
    is_early = early[windows.sequence]
    parts = [np.flatnonzero(is_early), np.flatnonzero(~is_early)]
    return [
        part[batch] for part in parts for batch in plan_batches(windows.length[part], size, rng)
    ]


def count_steps(data: TrainingData, recipe: Recipe) -> int:
    """Optimizer steps of ``config.epochs`` epochs over ``data``."""
    windows = data.windows(recipe.block_size)
    epochs = range(recipe.config.epochs)
    return sum(len(epoch_batches(windows, recipe, epoch, data.early)) for epoch in epochs)


def first_steps(data: TrainingData, recipe: Recipe) -> NDArray[np.int64]:
    """For each text, the optimizer steps taken after its first batch; 0: it is in none."""
    windows = data.windows(recipe.block_size)
    steps = np.zeros(len(data.texts), dtype=np.int64)
    batches = epoch_batches(windows, recipe, 0, data.early)[: recipe.num_steps]
    # Backwards: what is written last is the first batch.
    for step in range(len(batches), 0, -1):
        steps[windows.sequence[batches[step - 1]]] = step
    return steps


def learning_rate(config: TrainingConfig, step: int, num_steps: int) -> float:
    """Rate of optimizer step ``step`` (from 0): linear warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return float(config.learning_rate * 0.5 * (1 + np.cos(np.pi * progress)))

"""Losses of a run so far -> the weights of its samples in the next pass, for the arm ``live``."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import LiveArm
from gdc.curation.plans import budget
from gdc.scores.trace_scores import online_late_contrast

# The first passes have no middle to compare the last look with.
_FIRST_REVISION = 2

Losses = NDArray[np.float32]


@dataclass(frozen=True)
class LiveWeights:
    """A ``gdc.training.recipe.Revision``: its lower weights follow the run itself, or chance.

    Attributes:
        rule: How many samples have which weight.
        seed: Of the picks by chance.
        by_chance: Whether samples are picked at random, anew after each pass: the control.
    """

    rule: LiveArm
    seed: int
    by_chance: bool

    def __call__(self, online: Losses, frozen: Losses) -> NDArray[np.float64]:
        """Weight of each sample in the next pass.

        Args:
            online: Loss of each sample as each pass so far trained on it, passes x samples, nats
                per token.
            frozen: Its loss under the model at the end of each of them, likewise.
        """
        num_passes, num_samples = online.shape
        weights = np.ones(num_samples)
        if num_passes >= _FIRST_REVISION:
            ranking = self._random(online) if self.by_chance else _by_contrast(online, frozen)
            weights[ranking[: budget(self.rule.fraction, num_samples)]] = self.rule.weight
        return weights

    def _random(self, online: Losses) -> NDArray[np.int64]:
        num_passes, num_samples = online.shape
        return np.random.default_rng([self.seed, num_passes]).permutation(num_samples)


def _by_contrast(online: Losses, frozen: Losses) -> NDArray[np.int64]:
    """Samples by their score of the passes so far, the highest first, of equals the first."""
    names = [tuple(f"{mode}_{i}" for i in range(len(online))) for mode in ("online", "frozen")]
    columns = dict(zip((*names[0], *names[1]), (*online, *frozen), strict=True))
    score = online_late_contrast((names[0], names[1])).fill_nan(None)
    return (
        pl.DataFrame(columns)
        .select(score=score)
        .with_row_index("row")
        .sort("score", "row", descending=[True, False], nulls_last=True)["row"]
        .to_numpy()
        .astype(np.int64)
    )

"""Losses of an arm's models -> how far held-out loss lies above that of what they trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.statistics.bootstrap import Measured, Statistic, two_sample_interval


@dataclass(frozen=True)
class ArmLosses:
    """Losses of the model of one arm and seed, nats per token.

    Attributes:
        members: Of all original training texts, in an order that all arms share.
        is_kept: Whether the arm trained on each of them.
        heldout: Of the held-out texts, in an order that all arms share.

    Raises:
        DataError: There is no mark for each member, no text that the arm keeps or none held out.
    """

    members: NDArray[np.floating]
    is_kept: NDArray[np.bool_]
    heldout: NDArray[np.floating]

    def __post_init__(self) -> None:
        if (
            len(self.members) != len(self.is_kept)
            or not self.is_kept.any()
            or not len(self.heldout)
        ):
            raise DataError(
                "generalization: expected a mark for each member, a kept text and a held-out one, "
                f"got {len(self.members)} members, {len(self.is_kept)} marks, "
                f"{int(self.is_kept.sum())} kept and {len(self.heldout)} held-out texts."
            )


def generalization_gap(runs: Sequence[ArmLosses], *, seed: int) -> Measured:
    """Mean held-out loss minus mean loss of the texts that the arm keeps, over its seeds.

    Args:
        runs: For each seed of an arm its losses.
        seed: Of the resampling of seeds and texts.
    """
    return two_sample_interval([_gap(run) for run in runs], _sizes(runs), seed)


def gap_difference(
    runs: Sequence[ArmLosses], others: Sequence[ArmLosses], *, seed: int
) -> Measured:
    """Gap of an arm minus that of another one, paired by seed and by text.

    Args:
        runs: For each seed the losses of the arm.
        others: The same of the arm that it is compared with, such as as many random texts.
        seed: Of the resampling of seeds and texts.
    """
    differences = [_difference(_gap(run), _gap(o)) for run, o in zip(runs, others, strict=True)]
    return two_sample_interval(differences, _sizes(runs), seed)


def _sizes(runs: Sequence[ArmLosses]) -> tuple[int, int]:
    return len(runs[0].members), len(runs[0].heldout)


def _gap(run: ArmLosses) -> Statistic:
    def gap(members: NDArray[np.int64], heldout: NDArray[np.int64]) -> float:
        kept = members * run.is_kept
        return float(
            np.average(run.heldout, weights=heldout) - np.average(run.members, weights=kept)
        )

    return gap


def _difference(one: Statistic, other: Statistic) -> Statistic:
    return lambda members, heldout: one(members, heldout) - other(members, heldout)

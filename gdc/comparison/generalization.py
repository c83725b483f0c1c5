"""Losses of an arm's models -> how far held-out loss lies above that of what they trained on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.comparison.results import ArmAudits
from gdc.errors import DataError
from gdc.statistics.bootstrap import Measured, Statistic, two_sample_interval

MIN_KEPT: Final = 30
"""Texts that an arm trained on; with fewer a resample might draw none of them."""


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


def arm_losses(
    memberships: Sequence[pl.DataFrame], trained: Collection[str]
) -> list[ArmLosses] | None:
    """Losses of the models of an arm; None where too few texts are known for an interval.

    Args:
        memberships: A ``MEMBERSHIP`` table for each seed, of the same texts in the same order.
        trained: Ids of the samples that the arm trained on.
    """
    is_member = memberships[0]["is_member"].to_numpy()
    ids = memberships[0]["sample_id"].to_list()
    is_kept = np.array([name in trained for name in ids])[is_member]
    if is_kept.sum() < MIN_KEPT or is_member.all():
        return None
    losses = [membership["loss"].to_numpy() for membership in memberships]
    return [ArmLosses(loss[is_member], is_kept, loss[~is_member]) for loss in losses]


def verdict(arm_audits: Mapping[str, ArmAudits]) -> str:
    """Whether plans lower the gap by more than chance does, in a sentence."""
    found = {arm: audits.gap_against_random for arm, audits in arm_audits.items()}
    compared = {arm: gap for arm, gap in found.items() if gap is not None}
    if not compared:
        return "No arm has a random arm of its size, so no gap can be put down to a plan."
    lower = [arm for arm, gap in compared.items() if gap.high < 0]
    higher = [arm for arm, gap in compared.items() if gap.low > 0]
    parts = [
        f"{word} for {', '.join(arms)}"
        for word, arms in (("lower", lower), ("higher", higher))
        if arms
    ]
    rest = len(compared) - len(lower) - len(higher)
    shown = " and ".join(parts) if parts else "not shown to differ for any arm"
    others = (
        f"; for {rest} of {len(compared)} arms no difference is shown" if parts and rest else ""
    )
    return f"Against as many random samples the generalization gap is {shown}{others}."


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

"""Attack scores of members and non-members -> how well the attack tells them apart.

A score is higher the more likely a text is a member.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gdc.errors import ConfigError, DataError
from gdc.statistics.ranks import RankedGroups, auroc_of_groups

Values = NDArray[np.float64]

NULL_BAND: Final = 3.0
"""An AUC within so many standard deviations of 0.5 may be chance (two-sided: 0.3 %)."""


LeakDirection = Literal["members-higher", "members-lower", "none"]


@dataclass(frozen=True)
class AttackMetrics:
    """How well one attack tells members from non-members.

    ``tpr_at_1_percent_fpr`` and ``tpr_at_01_percent_fpr`` are true positive rates at false positive
    rates of at most 0.01 and 0.001.
    """

    auc: float
    leak: LeakDirection
    tpr_at_1_percent_fpr: float
    tpr_at_01_percent_fpr: float


@dataclass(frozen=True)
class Roc:
    """True against false positive rate, from (0, 0) to (1, 1), a point for each distinct score.

    A text at or above ``threshold`` is called a member; the first threshold is infinite.
    """

    fpr: Values
    tpr: Values
    threshold: Values

    def tpr_at(self, fpr: float) -> float:
        """Largest true positive rate where the false positive rate is at most ``fpr``."""
        return float(self.tpr[self.fpr <= fpr].max())


def measure_attack(
    members: NDArray[np.floating], non_members: NDArray[np.floating]
) -> AttackMetrics:
    """Measure one attack by its scores of members and of non-members.

    Raises:
        DataError: There are no members, no non-members, or a score is NaN.
    """
    return AttackMetrics(
        auc=auc(members, non_members),
        leak=leak_direction(members, non_members),
        tpr_at_1_percent_fpr=tpr_at_fpr(members, non_members, 0.01),
        tpr_at_01_percent_fpr=tpr_at_fpr(members, non_members, 0.001),
    )


def roc(members: NDArray[np.floating], non_members: NDArray[np.floating]) -> Roc:
    """The rates at every threshold; texts with equal scores are on the same side of each.

    Raises:
        DataError: There are no members, no non-members, or a score is NaN.
    """
    _require_scores(members, non_members)
    falling = np.unique(np.concatenate([members, non_members]).astype(np.float64))[::-1]
    threshold = np.concatenate([[np.inf], falling])
    return Roc(_rate_from(non_members, threshold), _rate_from(members, threshold), threshold)


def auc(members: NDArray[np.floating], non_members: NDArray[np.floating]) -> float:
    """Probability that a member scores higher than a non-member; a tie counts half.

    Far below 0.5 is a leak too: see ``leak_direction``.

    Raises:
        DataError: There are no members, no non-members, or a score is NaN.
    """
    _require_scores(members, non_members)
    return auroc_of_groups(members, non_members)


def ranked(members: NDArray[np.floating], non_members: NDArray[np.floating]) -> RankedGroups:
    """The scores of an attack, ranked once for many resamples.

    Raises:
        DataError: There are no members, no non-members, or a score is NaN.
    """
    _require_scores(members, non_members)
    return RankedGroups.of(members, non_members)


def tpr_at_fpr(
    members: NDArray[np.floating], non_members: NDArray[np.floating], fpr: float
) -> float:
    """Largest true positive rate among thresholds whose false positive rate is at most ``fpr``.

    Nothing is interpolated between thresholds, so for an ``fpr`` below 1 / (number of non-members)
    it is the rate without any false positive.

    Raises:
        ConfigError: ``fpr`` is not in [0, 1].

    Source: Carlini et al. 2022, arXiv:2112.03570.
    """
    if not 0 <= fpr <= 1:
        raise ConfigError(f"tpr_at_fpr: expected fpr in [0, 1], got {fpr}")
    return roc(members, non_members).tpr_at(fpr)


def tail_rate(
    member_losses: NDArray[np.floating], heldout_losses: NDArray[np.floating], quantile: float
) -> float:
    """Share of held-out losses above a quantile of the members' losses (linear interpolation).

    It needs no reference, and no text in particular: where nothing leaked it is 1 - ``quantile``.

    Raises:
        ConfigError: ``quantile`` is not in [0, 1].
        DataError: There are no members, no non-members, or a loss is NaN.

    Source: arXiv:2510.19773.
    """
    if not 0 <= quantile <= 1:
        raise ConfigError(f"tail_rate: expected a quantile in [0, 1], got {quantile}")
    _require_scores(member_losses, heldout_losses)
    return float(np.mean(heldout_losses > np.quantile(member_losses, quantile)))


def null_std(num_members: int, num_non_members: int) -> float:
    """Standard deviation of the AUC of an uninformative score (Mann and Whitney 1947)."""
    pairs = num_members * num_non_members
    return math.sqrt((num_members + num_non_members + 1) / (12 * pairs))


def leak_direction(
    members: NDArray[np.floating], non_members: NDArray[np.floating]
) -> LeakDirection:
    """Which side of 0.5 the AUC is on, or ``none`` within ``NULL_BAND`` deviations of chance.

    ``members-lower`` is a leak too: an attacker changes the sign of the score.
    """
    above_chance = auc(members, non_members) - 0.5
    if abs(above_chance) <= NULL_BAND * null_std(len(members), len(non_members)):
        return "none"
    return "members-higher" if above_chance > 0 else "members-lower"


def _rate_from(scores: NDArray[np.floating], threshold: Values) -> Values:
    below = np.searchsorted(np.sort(scores), threshold, side="left")
    return np.asarray((len(scores) - below) / len(scores), dtype=np.float64)


def _require_scores(members: NDArray[np.floating], non_members: NDArray[np.floating]) -> None:
    num_nan = int(np.isnan(members).sum() + np.isnan(non_members).sum())
    if not len(members) or not len(non_members) or num_nan:
        raise DataError(
            "membership scores: expected at least one member and one non-member and no NaN, got "
            f"{len(members)}, {len(non_members)} and {num_nan} NaN"
        )

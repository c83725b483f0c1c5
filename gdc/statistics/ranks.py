"""Values and weights -> rank correlation, AUROC and precision, exact with ties.

An integer weight stands for that many equal rows, so a bootstrap resample is a vector of weights
and the values need no second sort.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gdc.statistics.bootstrap import Estimate

_LARGEST: Final = 1 - 1e-12

Values = NDArray[np.float64]
Codes = NDArray[np.int64]
Weights = NDArray[np.number]


def codes(values: NDArray[np.number]) -> Codes:
    """The ordinal of each value among the distinct values, from 0; equal for equal values."""
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.int64)


def spearman(one: Codes, other: Codes, weights: Weights) -> float:
    """Spearman rank correlation, in [-1, 1]; ties have their mean rank. NaN: one is constant."""
    a, b = _centred_ranks(one, weights), _centred_ranks(other, weights)
    scale = np.sqrt((weights * a**2).sum() * (weights * b**2).sum())
    if scale == 0:
        return float("nan")
    return float(np.clip((weights * a * b).sum() / scale, -1, 1))


def spearman_interval(
    one: NDArray[np.number], other: NDArray[np.number], *, tail: float = 0.025
) -> Estimate | None:
    """Spearman rank correlation and its interval over rows; None: under 4, or a constant.

    ``tail`` is the chance beyond each end.

    Source: Fisher's transformation with the variance (1 + r^2 / 2) / (n - 3), Bonett & Wright 2000.
    """
    if len(one) < 4:
        return None
    value = spearman(codes(one), codes(other), np.ones(len(one)))
    if np.isnan(value):
        return None
    # Where the order is the same, the transform has no value.
    centre = np.arctanh(np.clip(value, -_LARGEST, _LARGEST))
    half_width = NormalDist().inv_cdf(1 - tail) * np.sqrt((1 + value**2 / 2) / (len(one) - 3))
    low, high = np.tanh([centre - half_width, centre + half_width])
    return Estimate(value, min(float(low), value), max(float(high), value))


def auroc(score: Codes, is_positive: NDArray[np.bool_], weights: Weights) -> float:
    """Probability that a positive scores higher than a negative; a tie counts half.

    NaN: there are no positives, or no negatives.
    """
    return _auroc(*_masses(score, is_positive, weights))


def auroc_of_groups(positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> float:
    """``auroc`` of the values of two groups, every value counted once."""
    ranked = RankedGroups.of(positives, negatives)
    return ranked.auroc(np.ones(len(positives)), np.ones(len(negatives)))


@dataclass(frozen=True)
class RankedGroups:
    """Codes of the values of two groups, sorted once for many resamples of their units.

    The weights of its methods are those of the units of either group.
    """

    positives: Codes
    negatives: Codes

    @classmethod
    def of(cls, positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> Self:
        """Rank the values of both groups together."""
        ranked = codes(np.concatenate([positives, negatives]).astype(np.float64))
        return cls(ranked[: len(positives)], ranked[len(positives) :])

    def auroc(self, positive_weights: Weights, negative_weights: Weights) -> float:
        """As the function ``auroc``."""
        return _auroc(*self._masses(positive_weights, negative_weights))

    def tpr_at_fpr(
        self, positive_weights: Weights, negative_weights: Weights, *, fpr: float
    ) -> float:
        """Largest true positive rate at a false positive rate of at most ``fpr``."""
        true, false = (
            np.cumsum(mass[::-1]) / mass.sum()
            for mass in self._masses(positive_weights, negative_weights)
        )
        return float(true[false <= fpr].max(initial=0.0))

    def _masses(
        self, positive_weights: Weights, negative_weights: Weights
    ) -> tuple[Values, Values]:
        size = int(max(self.positives.max(initial=-1), self.negatives.max(initial=-1))) + 1
        positive = np.bincount(self.positives, weights=positive_weights, minlength=size)
        negative = np.bincount(self.negatives, weights=negative_weights, minlength=size)
        return positive.astype(np.float64), negative.astype(np.float64)


def average_precision(score: Codes, is_positive: NDArray[np.bool_], weights: Weights) -> float:
    """Mean precision over the positives, from the highest score down; tied rows are added together.

    Chance is the share of positives, not 0.5. NaN: there are no positives.
    """
    positive, negative = (mass[::-1] for mass in _masses(score, is_positive, weights))
    if positive.sum() == 0:
        return float("nan")
    present = positive > 0
    found, taken = np.cumsum(positive), np.cumsum(positive + negative)
    precision = found[present] / taken[present]
    return float((positive[present] * precision).sum() / positive.sum())


def precision_at(
    score: Codes, is_positive: NDArray[np.bool_], weights: Weights, *, budget: float
) -> float:
    """Share of positives among the rows with the highest scores.

    Of tied rows that only partly fit into the budget, the share that fits is taken of each.

    Args:
        score: Codes of the scores.
        is_positive: One label for each row.
        weights: How often each row counts.
        budget: Share of the rows that are taken, in (0, 1].

    Returns:
        A share in [0, 1]; chance is the share of positives. NaN: no row counts.
    """
    positive, negative = (mass[::-1] for mass in _masses(score, is_positive, weights))
    both = positive + negative
    num_taken = budget * both.sum()
    if num_taken == 0:
        return float("nan")
    before = np.cumsum(both) - both
    fits = np.clip(
        np.divide(num_taken - before, both, out=np.zeros_like(both), where=both > 0), 0, 1
    )
    return float((fits * positive).sum() / num_taken)


def _auroc(positive: Values, negative: Values) -> float:
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return float("nan")
    wins = positive * (np.cumsum(negative) - negative / 2)
    return float(wins.sum() / pairs)


def _centred_ranks(values: Codes, weights: Weights) -> Values:
    mass = np.bincount(values, weights=weights)
    ranks = (np.cumsum(mass) - mass / 2)[values]
    centred: Values = ranks - weights.sum() / 2
    return centred


def _masses(
    score: Codes, is_positive: NDArray[np.bool_], weights: Weights
) -> tuple[Values, Values]:
    size = int(score.max(initial=-1)) + 1
    positive = np.bincount(score, weights=np.where(is_positive, weights, 0.0), minlength=size)
    negative = np.bincount(score, weights=np.where(is_positive, 0.0, weights), minlength=size)
    return positive.astype(np.float64), negative.astype(np.float64)

"""Confusion counts of an attack -> lower bounds on the epsilon of differential privacy.

Under (epsilon, delta) differential privacy no attack has TPR > e^epsilon FPR + delta, nor
TNR > e^epsilon FNR + delta. So a successful attack refutes every smaller epsilon. Epsilons are
natural logarithms. The bound holds for the whole difference between member and non-member: with k
planted copies of each member, divide it by k (delta = 0).

The bounds hold for independent trials, such as one text under many models. The texts of one
training run are not quite that, and then the bounds are estimates (Steinke et al. 2023,
arXiv:2305.08846, have one that holds).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainccinv, betaincinv

from gdc.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Counts = int | NDArray[np.int64]


class Rate(NamedTuple):
    """Binomial proportions, one or many: ``hits`` of ``num_trials``, which are at least 1."""

    hits: Counts
    num_trials: Counts


class Confusion(NamedTuple):
    """Members found (``tp``) or missed (``fn``), non-members called members (``fp``) or not."""

    tp: Counts
    fn: Counts
    fp: Counts
    tn: Counts


class Cut(NamedTuple):
    """Texts that score at least ``threshold``, or less if ``is_turned``, are called members."""

    threshold: float
    is_turned: bool


def clopper_pearson(top: Rate, bottom: Rate, alpha: float, delta: float = 0.0) -> Floats:
    """Lower bound of (top - delta) / bottom from the exact limits of both rates, never below 0.

    Each limit fails with probability at most ``alpha`` / 2, so the bound with at most ``alpha``.

    Source: Jagielski et al. 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535, for delta.
    """
    low = _lowest_rate(top, alpha / 2)
    high = _highest_rate(bottom, alpha / 2)
    return np.maximum(low - delta, 0.0) / high


def epsilon_lower_bound(counts: Confusion, alpha: float, delta: float = 0.0) -> Floats:
    """Largest epsilons, at least 0, that confusion counts refute at level ``alpha``.

    It is the larger of the bounds of TPR/FPR and TNR/FNR. Both follow from the same two limits, so
    the larger one is too high with probability at most ``alpha`` too. An attack that is wrong more
    often than right gives 0: turn it before looking at these counts.

    Args:
        counts: Of at least one member and one non-member.
        alpha: Probability, in (0, 0.5), that the bound is too high.
        delta: Of differential privacy, in [0, 1).

    Source: Jagielski et al. 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535.
    """
    ratios = [clopper_pearson(*rates, alpha, delta) for rates in _directions(counts)]
    # A ratio below 1 refutes no epsilon; as 1 its logarithm is 0 and never that of 0.
    return np.asarray(np.log(np.maximum(np.maximum(*ratios), 1.0)))


def best_epsilon(
    members: NDArray[np.floating],
    non_members: NDArray[np.floating],
    alpha: float,
    *,
    delta: float = 0.0,
    seed: int = 0,
) -> float:
    """Clopper-Pearson bound of the attack that calls texts beyond a score threshold members.

    One random half of the members and non-members chooses the threshold and the side of the members
    by its own bound; the other half, unseen by the choice, gives the returned bound. So that is too
    high with probability at most ``alpha``, however many thresholds there were.

    Args:
        members: Attack scores of texts trained on, at least two; any unit.
        non_members: Attack scores of other texts, at least two.
        alpha: Probability, in (0, 0.5), that the bound is too high.
        delta: Of differential privacy, in [0, 1).
        seed: Seed of the split. Fix it beforehand: the best of many seeds is no bound.

    Returns:
        Epsilon, natural logarithm, at least 0.

    Raises:
        ConfigError: ``alpha`` or ``delta`` is out of range.
        DataError: An array is not one-dimensional, has fewer than two scores or one not finite.

    Source: As ``epsilon_lower_bound``; the split keeps the bound independent of the choice.
    """
    _require_level(alpha, delta)
    choosing, judging = zip(
        _split_scores("members", members, seed),
        _split_scores("non_members", non_members, seed),
        strict=True,
    )
    cut = choose_cut(*choosing, alpha, delta)
    counts = confusion(*judging, np.array(cut.threshold), is_turned=cut.is_turned)
    return float(epsilon_lower_bound(counts, alpha, delta))


def choose_cut(
    members: NDArray[np.floating], non_members: NDArray[np.floating], alpha: float, delta: float
) -> Cut:
    """Threshold and side with the largest Clopper-Pearson bound on these scores.

    The infinite threshold, which calls nothing a member, where no bound is above 0; of equal bounds
    the highest threshold.
    """
    falling = np.unique(np.concatenate([members, non_members]))[::-1]
    thresholds = np.concatenate([[np.inf], falling])
    epsilons = [
        epsilon_lower_bound(
            confusion(members, non_members, thresholds, is_turned=side), alpha, delta
        )
        for side in (False, True)
    ]
    best, side = divmod(int(np.stack(epsilons, axis=1).argmax()), 2)
    return Cut(float(thresholds[best]), bool(side))


def confusion(
    members: NDArray[np.floating],
    non_members: NDArray[np.floating],
    thresholds: Floats,
    *,
    is_turned: bool,
) -> Confusion:
    """Counts at each threshold: texts at or above it (below it, if turned) are called members."""
    fn, tn = (np.searchsorted(np.sort(s), thresholds, side="left") for s in (members, non_members))
    tp, fp = len(members) - fn, len(non_members) - tn
    return Confusion(fn, tp, tn, fp) if is_turned else Confusion(tp, fn, fp, tn)


def _directions(counts: Confusion) -> tuple[tuple[Rate, Rate], tuple[Rate, Rate]]:
    tp, fn, fp, tn = counts
    num_members, num_non_members = tp + fn, fp + tn
    return (
        (Rate(tp, num_members), Rate(fp, num_non_members)),
        (Rate(tn, num_non_members), Rate(fn, num_members)),
    )


def _lowest_rate(rate: Rate, alpha: float) -> Floats:
    hits, misses = rate.hits, rate.num_trials - rate.hits
    return np.where(hits == 0, 0.0, betaincinv(hits, misses + 1, alpha))


def _highest_rate(rate: Rate, alpha: float) -> Floats:
    hits, misses = rate.hits, rate.num_trials - rate.hits
    return np.where(misses == 0, 1.0, betainccinv(hits + 1, misses, alpha))


def _split_scores(
    name: str, scores: NDArray[np.floating], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if scores.ndim != 1 or len(scores) < 2:
        raise DataError(
            f"{name}: expected at least two scores in one dimension, got shape {scores.shape}"
        )
    num_bad = int((~np.isfinite(scores)).sum())
    if num_bad:
        raise DataError(f"{name}: expected finite scores, got {num_bad} that are not")
    order = np.random.default_rng(seed).permutation(len(scores))
    shuffled = scores[order].astype(np.float64)
    half = len(scores) // 2
    return shuffled[:half], shuffled[half:]


def _require_level(alpha: float, delta: float) -> None:
    if not (0 < alpha < 0.5 and 0 <= delta < 1):
        raise ConfigError(
            f"privacy: expected alpha in (0, 0.5) and delta in [0, 1), got {alpha} and {delta}"
        )

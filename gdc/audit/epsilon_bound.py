"""Confusion counts of an attack -> lower bounds on the epsilon of differential privacy.

Under (epsilon, delta) differential privacy no attack has TPR > e^epsilon FPR + delta, nor
TNR > e^epsilon FNR + delta. So an attack that does well refutes every smaller epsilon. Epsilons are
natural logarithms. It is the epsilon of all that sets a member apart: with k planted copies of each
member, divide by k (delta = 0).

The bounds hold for independent trials, such as one text under many models. The texts of one
training run are not quite that, and then the bounds are estimates (Steinke et al. 2023,
arXiv:2305.08846, have one that holds).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainccinv, betaincinv
from scipy.stats import norm

from gdc.errors import ConfigError, DataError

Floats = NDArray[np.float64]
Counts = int | NDArray[np.int64]
Method = Literal["clopper-pearson", "katz-log", "bailey"]


class Rate(NamedTuple):
    """Binomial proportions, one or many: ``hits`` of ``num_trials``, which are at least 1."""

    hits: Counts
    num_trials: Counts


class Confusion(NamedTuple):
    """Members called so (``tp``) or missed (``fn``), non-members called members (``fp``) or not."""

    tp: Counts
    fn: Counts
    fp: Counts
    tn: Counts


class Cut(NamedTuple):
    """Calls a member what scores at least ``threshold``, or, ``is_turned``, what scores less."""

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


def katz_log(top: Rate, bottom: Rate, alpha: float) -> Floats:
    """Lower bound of top / bottom, whose logarithm is about normal; one-sided level ``alpha``.

    No hits at the bottom count as half a hit, and where every trial of both is a hit, half a hit is
    taken from each. Half a hit can give a lower bound than one hit does, so with few hits trust
    ``clopper_pearson`` instead.

    Source: Katz et al. 1978, Biometrics 34:469; edges as in R's ``asbio::ci.prat``.
    """
    hits, other = top.hits, np.maximum(bottom.hits, 0.5)
    is_full = (hits == top.num_trials) & (other == bottom.num_trials)
    hits, other = hits - 0.5 * is_full, other - 0.5 * is_full
    # Any number will do for no hits: their bound is 0.
    some = np.maximum(hits, 0.5)
    variance = 1 / some - 1 / top.num_trials + 1 / other - 1 / bottom.num_trials
    ratio = (hits / top.num_trials) / (other / bottom.num_trials)
    return np.asarray(ratio * np.exp(norm.ppf(alpha) * np.sqrt(np.maximum(variance, 0.0))))


def bailey(top: Rate, bottom: Rate, alpha: float) -> Floats:
    """Lower bound of top / bottom, whose cube root is about normal; one-sided level ``alpha``.

    No hits at the bottom count as half a hit, and half a hit is taken from each rate of 1. The
    bound is 0 where ``top`` has too few hits to exclude 0.

    Source: Bailey 1987, Biometrics 43:201; edges as in R's ``asbio::ci.prat``.
    """
    hits = np.minimum(top.hits, top.num_trials - 0.5)
    other = np.clip(bottom.hits, 0.5, bottom.num_trials - 0.5)
    some = np.maximum(hits, 0.5)
    squared_z = norm.ppf(alpha) ** 2
    u = squared_z * (1 / some - 1 / top.num_trials) / 9
    v = squared_z * (1 / other - 1 / bottom.num_trials) / 9
    # The smaller root of (1 - v) x^2 - 2 x + (1 - u), written so that 1 - v may be 0 or less.
    root = np.maximum(1 - u, 0.0) / (1 + np.sqrt(np.maximum(u + v - u * v, 0.0)))
    return np.asarray((hits / top.num_trials) / (other / bottom.num_trials) * root**3)


RATIO_BOUNDS: Final[Mapping[str, Callable[[Rate, Rate, float], Floats]]] = {
    "clopper-pearson": clopper_pearson,
    "katz-log": katz_log,
    "bailey": bailey,
}


def epsilon_lower_bound(  # noqa: PLR0913, PLR0917 - four are one confusion matrix
    tp: int, fn: int, fp: int, tn: int, alpha: float, method: Method, *, delta: float = 0.0
) -> float:
    """Largest epsilon, at least 0, that the counts of one attack refute at level ``alpha``.

    It is the larger of the bounds of TPR/FPR and TNR/FNR, as in tensorflow/privacy
    ``epsilon_lower_bound.py`` with one-sided thresholds. Both Clopper-Pearson bounds follow from
    the same two limits, so their larger one fails with probability at most ``alpha`` too; that of
    the other, approximate methods with about 2 ``alpha`` at most. An attack that is wrong more
    often than right gives 0: turn it round, but before looking at these counts.

    Args:
        tp: Members called members.
        fn: Members missed.
        fp: Non-members called members.
        tn: Non-members called so.
        alpha: Probability, in (0, 0.5), that the bound is too high.
        method: A name of ``RATIO_BOUNDS``.
        delta: Of differential privacy, in [0, 1); other than 0 for ``clopper-pearson`` only.

    Raises:
        ConfigError: ``alpha``, ``method`` or ``delta`` is none of these.
        DataError: A count is negative, there are no members or no non-members.

    Source: Jagielski et al. 2020, arXiv:2006.07709; Nasr et al. 2021, arXiv:2101.04535.
    """
    _require_level(alpha, delta)
    if method not in RATIO_BOUNDS:
        raise ConfigError(f"method: expected one of {sorted(RATIO_BOUNDS)}, got {method!r}")
    if delta and method != "clopper-pearson":
        raise ConfigError(
            f"delta: expected 0 for {method}, got {delta}. Use clopper-pearson, which bounds "
            "each rate."
        )
    if not min(tp, fn, fp, tn) >= 0 or tp + fn < 1 or fp + tn < 1:
        raise DataError(
            "confusion counts: expected none below 0, a member and a non-member, got "
            f"tp {tp}, fn {fn}, fp {fp}, tn {tn}"
        )
    counts = Confusion(tp, fn, fp, tn)
    if delta:
        return float(_exact_epsilon(counts, alpha, delta))
    return float(_epsilon([RATIO_BOUNDS[method](*rates, alpha) for rates in _directions(counts)]))


def best_epsilon(
    members: NDArray[np.floating],
    non_members: NDArray[np.floating],
    alpha: float,
    *,
    delta: float = 0.0,
    seed: int = 0,
) -> float:
    """Clopper-Pearson bound of the attack that calls members what scores beyond a threshold.

    One random half of the members and non-members chooses the threshold, and the side members are
    on, by its own bound; the other half, which the choice has not seen, gives the bound that is
    returned. So it is too high with probability at most ``alpha``, however many thresholds there
    were.

    Args:
        members: Attack scores of texts trained on, at least two; any unit.
        non_members: Scores of texts that were not, alike.
        alpha: Probability, in (0, 0.5), that the bound is too high.
        delta: Of differential privacy, in [0, 1).
        seed: Splits the scores, each array by itself and by position. Fix it beforehand: the best
            of many seeds is no bound.

    Returns:
        Epsilon, natural logarithm, at least 0.

    Raises:
        ConfigError: ``alpha`` or ``delta`` is out of range.
        DataError: An array is not one-dimensional, has fewer than two scores or one not finite.

    Source: The bound as in ``epsilon_lower_bound``; the split keeps the choice out of it.
    """
    _require_level(alpha, delta)
    choosing, judging = zip(
        _halves("members", members, seed), _halves("non_members", non_members, seed), strict=True
    )
    cut = choose_cut(*choosing, alpha, delta)
    counts = confusion(*judging, np.array(cut.threshold), is_turned=cut.is_turned)
    return float(_exact_epsilon(counts, alpha, delta))


def choose_cut(
    members: NDArray[np.floating], non_members: NDArray[np.floating], alpha: float, delta: float
) -> Cut:
    """Threshold and side with the largest Clopper-Pearson bound on these very scores.

    The infinite threshold, which calls nobody a member, where no bound is above 0; the highest
    among equals.
    """
    falling = np.unique(np.concatenate([members, non_members]))[::-1]
    thresholds = np.concatenate([[np.inf], falling])
    epsilons = [
        _exact_epsilon(confusion(members, non_members, thresholds, is_turned=side), alpha, delta)
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
    """Counts at each threshold, calling members what scores at least it (less, if turned)."""
    fn, tn = (np.searchsorted(np.sort(s), thresholds, side="left") for s in (members, non_members))
    tp, fp = len(members) - fn, len(non_members) - tn
    return Confusion(fn, tp, tn, fp) if is_turned else Confusion(tp, fn, fp, tn)


def _exact_epsilon(counts: Confusion, alpha: float, delta: float) -> Floats:
    return _epsilon([clopper_pearson(*rates, alpha, delta) for rates in _directions(counts)])


def _directions(counts: Confusion) -> tuple[tuple[Rate, Rate], tuple[Rate, Rate]]:
    tp, fn, fp, tn = counts
    num_members, num_non_members = tp + fn, fp + tn
    return (
        (Rate(tp, num_members), Rate(fp, num_non_members)),
        (Rate(tn, num_non_members), Rate(fn, num_members)),
    )


def _epsilon(ratios: Sequence[Floats]) -> Floats:
    # A ratio below 1 refutes no epsilon; as 1 its logarithm is 0 and never that of 0.
    return np.asarray(np.log(np.maximum(np.maximum(*ratios), 1.0)))


def _lowest_rate(rate: Rate, alpha: float) -> Floats:
    hits, misses = rate.hits, rate.num_trials - rate.hits
    return np.where(hits == 0, 0.0, betaincinv(hits, misses + 1, alpha))


def _highest_rate(rate: Rate, alpha: float) -> Floats:
    hits, misses = rate.hits, rate.num_trials - rate.hits
    return np.where(misses == 0, 1.0, betainccinv(hits + 1, misses, alpha))


def _halves(
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

"""Values per seed and unit -> a mean with its percentile bootstrap interval.

Seeds and units (canaries, texts) are both resampled. Every seed is asked about the same units, so a
replicate draws its units once for all of its seeds. Few seeds make a percentile interval narrow:
where seeds differ more than units it covers the truth in about 83 of 100 cases with five seeds and
59 with two, not 95; with one seed it covers the units alone.
Source: Efron & Tibshirani 1993, chapter 13; Owen 2007, arXiv:0712.1111 (crossed effects).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from gdc.errors import DataError

NUM_RESAMPLES: Final = 2000
LEVEL: Final = 0.95
# With fewer seeds an interval says little about other seeds.
ENOUGH_SEEDS: Final = 3


@dataclass(frozen=True)
class Interval:
    """A value, the ends of its interval, and the number of seeds behind it."""

    value: float
    low: float
    high: float
    num_seeds: int


def mean_interval(
    values_by_seed: Sequence[NDArray[np.floating]],
    *,
    seed: int,
    weights_by_seed: Sequence[NDArray[np.number]] | None = None,
) -> Interval:
    """Mean over seeds of the mean over units.

    Args:
        values_by_seed: One array of unit values for each seed, of the same units.
        seed: Seed of the resampling.
        weights_by_seed: Positive weights alike; a unit is resampled with its weight.

    Raises:
        DataError: There is no seed or no unit, or seeds have different numbers of them.
    """
    lengths = {len(values) for values in values_by_seed}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError(
            "bootstrap: expected values of the same units for every seed, got "
            f"{[len(v) for v in values_by_seed]}"
        )
    values = np.stack([np.asarray(v, dtype=np.float64) for v in values_by_seed])
    weights = np.ones_like(values) if weights_by_seed is None else np.stack(weights_by_seed)
    num_seeds = len(values)
    seeds, units = _draws(*values.shape, seed)
    # Replicates x seeds: the mean of each seed over the units drawn, as often as they were drawn.
    means = (units @ (values * weights).T) / (units @ weights.T)
    resampled = (means * seeds).sum(axis=1) / num_seeds
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = np.average(values, weights=weights, axis=1).mean()
    return Interval(float(value), float(low), float(high), num_seeds)


# A report asks for hundreds of intervals over the same few numbers of seeds and units in a row.
@lru_cache(maxsize=2)
def _draws(
    num_seeds: int, num_units: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each replicate draws each seed and each unit."""
    rng = np.random.default_rng(seed)
    seeds, units = (
        rng.multinomial(n, np.full(n, 1 / n), size=NUM_RESAMPLES).astype(np.float64)
        for n in (num_seeds, num_units)
    )
    return seeds, units


def share_interval(values_by_seed: Sequence[NDArray[np.bool_]], *, seed: int) -> Interval:
    """Mean of yes and no; where all are alike, no resample differs, and the units bound the rest.

    Raises:
        DataError: As ``mean_interval``.

    Source: Clopper & Pearson 1934 for the share of units where it is none or all.
    """
    interval = mean_interval([v.astype(np.float64) for v in values_by_seed], seed=seed)
    if 0.0 < interval.value < 1.0:
        return interval
    num_units = len(values_by_seed[0])
    exact = binomtest(round(interval.value * num_units), num_units).proportion_ci(LEVEL, "exact")
    return Interval(interval.value, float(exact.low), float(exact.high), interval.num_seeds)


def paired_difference(
    ours_by_seed: Sequence[NDArray[np.floating]],
    baseline_by_seed: Sequence[NDArray[np.floating]],
    *,
    seed: int,
    weights_by_seed: Sequence[NDArray[np.number]] | None = None,
) -> Interval:
    """Mean of ours minus baseline, paired by seed and by unit; weights as in ``mean_interval``.

    Raises:
        DataError: The two do not pair.
    """
    ours = [len(values) for values in ours_by_seed]
    theirs = [len(values) for values in baseline_by_seed]
    if ours != theirs:
        raise DataError(f"bootstrap: expected the same units in pairs, got {ours} and {theirs}")
    differences = [
        np.asarray(a, dtype=np.float64) - b
        for a, b in zip(ours_by_seed, baseline_by_seed, strict=True)
    ]
    return mean_interval(differences, seed=seed, weights_by_seed=weights_by_seed)

"""Values per seed and unit -> a mean with its percentile bootstrap interval, nested in seeds.

Seeds are resampled first, then units (canaries, texts) within each drawn seed, so the interval
covers both kinds of chance. With one seed it covers the units alone, and says so.
Source: Efron & Tibshirani 1993, chapter 13; Davison & Hinkley 1997, section 3.8 (nested).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError

NUM_RESAMPLES: Final = 2000
LEVEL: Final = 0.95


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
        values_by_seed: One array of unit values for each seed; lengths may differ.
        seed: Seed of the resampling.
        weights_by_seed: Positive weights alike; a unit is resampled with its weight.

    Raises:
        DataError: There is no seed, or a seed without units.
    """
    if not values_by_seed or any(len(values) == 0 for values in values_by_seed):
        raise DataError(
            f"bootstrap: expected values for every seed, got {[len(v) for v in values_by_seed]}"
        )
    weights_by_seed = weights_by_seed or [np.ones(len(values)) for values in values_by_seed]
    rng = np.random.default_rng(seed)
    num_seeds = len(values_by_seed)
    # Means of resampled units, one fresh resample for every drawn seed: resamples x seeds.
    drawn = rng.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))
    means = np.empty(drawn.shape)
    for index, (values, weights) in enumerate(zip(values_by_seed, weights_by_seed, strict=True)):
        chosen = drawn == index
        units = rng.integers(len(values), size=(int(chosen.sum()), len(values)))
        weighted = np.asarray(values, dtype=np.float64) * weights
        means[chosen] = weighted[units].sum(axis=1) / weights[units].sum(axis=1)
    low, high = np.quantile(means.mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = np.mean(
        [
            np.average(np.asarray(values, dtype=np.float64), weights=weights)
            for values, weights in zip(values_by_seed, weights_by_seed, strict=True)
        ]
    )
    return Interval(float(value), float(low), float(high), num_seeds)


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

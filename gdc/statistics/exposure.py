"""Losses of secrets and of references of the same kind -> exposure in bits.

Source: Carlini et al. 2019, arXiv:1802.08232. A loss is the sum of nats over the secret's tokens
(its log-perplexity); lower is more likely.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import kstest, skewnorm

from gdc.errors import DataError

# A fitted tail is unreliable beyond this many bits above the largest sampled exposure.
MAX_EXTRAPOLATED_BITS: Final = 15.0
# A skew-normal has three parameters; it fits fewer references too freely.
MIN_REFERENCES: Final = 8


@dataclass(frozen=True)
class Extrapolation:
    """Exposure from a skew-normal fit, ``exposure`` float64 and ``is_beyond`` bool, both (S,).

    ``ks_distance`` is the Kolmogorov-Smirnov distance of the fit from the references;
    ``is_beyond`` flags values above log2 N + 15 bits, which are cut to that limit: so far out the
    fit is unreliable, and its tail underflows.
    """

    exposure: NDArray[np.float64]
    ks_distance: float
    is_beyond: NDArray[np.bool_]


def null_exposure(num_references: int) -> float:
    """Mean exposure in bits of a secret that the model never saw, whose rank is uniform.

    log2 N - log2((N + 1)!) / (N + 1): 1.12 with 14 references, and log2 e = 1.44 in the limit.

    Args:
        num_references: N, at least 1.
    """
    ranks = num_references + 1
    return float(np.log2(num_references) - gammaln(ranks + 1) / np.log(2) / ranks)


def sampled_exposure(
    secret_losses: NDArray[np.floating], reference_losses: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Exposure of each secret in bits, at most log2 N for N references.

    log2 N - log2(1 + number of references whose loss is at most the secret's): a reference tied
    with a secret ranks before it, so a secret above all references is just below 0. When the
    references are the whole space of secrets this is the exact exposure.

    Args:
        secret_losses: Nats, (S,).
        reference_losses: Nats, (N,), N >= 1, of secrets the model never saw.

    Raises:
        DataError: There is no reference.
    """
    if not len(reference_losses):
        raise DataError("exposure: expected at least 1 reference, got 0. Raise num_twins.")
    ranks = 1 + np.searchsorted(np.sort(reference_losses), secret_losses, side="right")
    return np.asarray(np.log2(len(reference_losses)) - np.log2(ranks), dtype=np.float64)


def extrapolated_exposure(
    secret_losses: NDArray[np.floating], reference_losses: NDArray[np.floating]
) -> Extrapolation:
    """Exposure beyond log2 N: minus log2 of a fitted skew-normal's mass below the secret's loss.

    Args:
        secret_losses: Nats, (S,).
        reference_losses: Nats, (N,).

    Raises:
        DataError: There are fewer than ``MIN_REFERENCES`` references, or all are equal.
    """
    size = len(reference_losses)
    if size < MIN_REFERENCES or np.ptp(reference_losses) == 0:
        raise DataError(
            f"exposure: expected at least {MIN_REFERENCES} references with different losses, "
            f"got {size}. Raise num_twins."
        )
    fit = skewnorm(*skewnorm.fit(np.sort(reference_losses)))
    exposure = -fit.logcdf(secret_losses) / np.log(2)
    limit = np.log2(size) + MAX_EXTRAPOLATED_BITS
    return Extrapolation(
        exposure=np.minimum(exposure, limit, dtype=np.float64),
        ks_distance=float(kstest(reference_losses, fit.cdf).statistic),
        is_beyond=np.asarray(exposure > limit),
    )

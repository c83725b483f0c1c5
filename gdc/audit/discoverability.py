"""Log-probabilities of secrets -> which of them repeated sampling reproduces.

A secret of probability p_z is (n, p)-discoverable when n independent samples from its prefix
contain it with probability at least p: 1 - (1 - p_z)^n >= p. Source: Hayes et al. 2024,
arXiv:2410.19482. Probabilities are those of the sampling scheme that the token log-probabilities
come from; the plain softmax of the logits is sampling at temperature 1 without truncation.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gdc.errors import ConfigError, DataError

NUM_SAMPLES: Final = (1, 10, 100, 1_000, 10_000)


def is_discoverable(log_p: NDArray[np.floating], n: int, p: float) -> NDArray[np.bool_]:
    """Whether each secret is (n, p)-discoverable, (S,).

    Solved for p_z, so no p_z is too small: log p_z >= log(1 - (1 - p)^(1/n)).

    Args:
        log_p: Log-probability of each secret, nats, at most 0, (S,).
        n: Independent samples, at least 1.
        p: Probability that one of them is the secret, in (0, 1).

    Raises:
        DataError: A log-probability is positive or NaN.
        ConfigError: ``n`` or ``p`` is out of its range.
    """
    log_p = _checked(log_p)
    _require_samples(n)
    if not 0 < p < 1:
        raise ConfigError(f"discoverable: expected p in (0, 1), got {p}. Choose another.")
    return np.asarray(log_p >= math.log(-math.expm1(math.log1p(-p) / n)))


def _checked(log_p: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(log_p, dtype=np.float64)
    wrong = values[~(values <= 0)]
    if wrong.size:
        raise DataError(
            f"discoverable: expected log-probabilities of at most 0 nats, got {wrong[0]}. "
            "Pass the sum of log-probabilities, not of losses."
        )
    return values


def _require_samples(n: int) -> None:
    if n < 1:
        raise ConfigError(f"discoverable: expected n of at least 1 sample, got {n}. Raise it.")

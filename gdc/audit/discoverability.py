"""Log-probabilities of secrets -> which of them repeated sampling gives away, and how nearly.

A secret of probability p_z is (n, p)-discoverable when n independent samples from its prefix
contain it with probability at least p: 1 - (1 - p_z)^n >= p. Source: Hayes et al. 2024,
arXiv:2410.19482. Probabilities are those of the sampling scheme that the token log-probabilities
come from; the plain softmax of the logits is sampling at temperature 1 without truncation.
"""

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from gdc.errors import ConfigError, DataError

NUM_SAMPLES: Final = (1, 10, 100, 1_000, 10_000)

# One row is a secret and what was generated for it; 1 is verbatim in both columns.
SIMILARITY: Final = pl.Schema(
    {
        "edit_similarity": pl.Float64,  # 1 - Levenshtein distance / length of the longer text
        "substring_share": pl.Float64,  # longest common substring / length of the secret
    }
)


def log_suffix_probability(
    log_probs: NDArray[np.floating], secret_index: NDArray[np.integer], num_secrets: int
) -> NDArray[np.float64]:
    """Log-probability of each secret given its prefix: the sum over its tokens, nats, (S,).

    Args:
        log_probs: Of every token of every secret given all before it, nats.
        secret_index: Which secret each token belongs to, 0 to ``num_secrets`` - 1, in any order.
        num_secrets: S.

    Raises:
        DataError: A secret has no token.
    """
    num_tokens = np.bincount(secret_index, minlength=num_secrets)
    if not num_tokens.all():
        raise DataError(
            f"secrets: expected at least 1 token of each, got none of "
            f"{np.count_nonzero(num_tokens == 0)} in {num_secrets}. Lengthen them."
        )
    sums = np.bincount(secret_index, weights=log_probs, minlength=num_secrets)
    return np.asarray(sums, dtype=np.float64)


def probability_of_extraction(log_p: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    """Probability that n samples contain the secret, (S,): 1 - (1 - p_z)^n.

    Args:
        log_p: Log-probability of each secret, nats, at most 0, (S,).
        n: Independent samples, at least 1.

    Raises:
        DataError: A log-probability is positive or NaN.
        ConfigError: ``n`` is below 1.
    """
    log_p = _checked(log_p)
    _require_samples(n)
    # A secret that is certain has log(1 - p_z) = -inf, and the result is 1.
    with np.errstate(divide="ignore"):
        # Of two equal forms, the one that does not cancel.
        log_miss = np.where(
            log_p > -math.log(2), np.log(-np.expm1(log_p)), np.log1p(-np.exp(log_p))
        )
    return np.asarray(-np.expm1(n * log_miss), dtype=np.float64)


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


def discoverable_curve(
    log_p: NDArray[np.floating], *, p: float, ns: Sequence[int] = NUM_SAMPLES
) -> dict[int, float]:
    """Share of the secrets that are (n, p)-discoverable, for each n; it never falls with n.

    Raises:
        DataError: There is no secret, or a log-probability is positive or NaN.
        ConfigError: An n or ``p`` is out of its range.
    """
    if not len(log_p):
        raise DataError("discoverable: expected at least 1 secret, got 0. Plant canaries.")
    return {n: float(is_discoverable(log_p, n, p).mean()) for n in ns}


def similarity(generated: Sequence[str], secrets: Sequence[str]) -> pl.DataFrame:
    """How nearly each generated text is its secret, character by character.

    Args:
        generated: Continuation of each prefix, cut to about the length of its secret: whatever
            follows the secret counts as edits.
        secrets: None of them empty.

    Returns:
        ``SIMILARITY`` table in input order.

    Raises:
        DataError: The numbers of texts differ, or a secret is empty.
    """
    if len(generated) != len(secrets):
        raise DataError(
            f"similarity: expected a generated text for every secret, got {len(generated)} for "
            f"{len(secrets)} secrets. Generate an empty one where there is nothing."
        )
    if "" in secrets:
        raise DataError(
            f"similarity: expected no empty secret, got one in row {secrets.index('')}. Drop it."
        )
    pairs = list(zip(generated, secrets, strict=True))
    return pl.DataFrame(
        {
            "edit_similarity": [Levenshtein.normalized_similarity(*pair) for pair in pairs],
            "substring_share": [
                _longest_common_substring(text, secret) / len(secret) for text, secret in pairs
            ],
        },
        schema=SIMILARITY,
    )


def _longest_common_substring(one: str, other: str) -> int:
    # Autojunk would ignore characters that are frequent in texts of 200 and more.
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


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

"""Values of the tokens of many samples -> sums over stretches of each sample, and their signs."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

VOTED: Final = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)
"""Tokens of windows that vote on membership. Source: arXiv:2601.02751."""


def largest_window_sums(
    values: Values, num_tokens: NDArray[np.int64], window_tokens: int
) -> tuple[Values, NDArray[np.int64]]:
    """Largest sum over the windows of each sample, and the index of its first token.

    Args:
        values: One for each token, sample after sample.
        num_tokens: Of each sample, at least 1.
        window_tokens: Tokens of a window; a shorter sample is one window.
    """
    first = np.cumsum(num_tokens) - num_tokens
    sums, is_window = _window_sums(values, num_tokens, window_tokens)
    sums[~is_window] = -np.inf
    peaks = np.maximum.reduceat(sums, first)
    is_peak = np.flatnonzero(sums == np.repeat(peaks, num_tokens))
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)[is_peak]
    return peaks, is_peak[np.unique(sample, return_index=True)[1]]


def largest_run_sums(
    values: Values, is_in_run: NDArray[np.bool_], num_tokens: NDArray[np.int64]
) -> Values:
    """Largest sum over the runs of each sample; 0 where it has none.

    A run is a longest stretch of tokens of one sample that are all marked.

    Args:
        values: One for each token, sample after sample.
        is_in_run: Whether the token is marked.
        num_tokens: Of each sample, at least 1.
    """
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)
    starts = np.ones(len(values), dtype=np.bool_)
    starts[1:] = (sample[1:] != sample[:-1]) | ~is_in_run[:-1]
    run = np.cumsum(starts) - 1
    sums = np.bincount(run, weights=np.where(is_in_run, values, 0.0))
    largest = np.full(len(num_tokens), -np.inf)
    np.maximum.at(largest, sample[is_in_run], sums[run[is_in_run]])
    return np.where(np.isneginf(largest), 0.0, largest)


def window_votes(values: Values, num_tokens: NDArray[np.int64], sizes: Sequence[int]) -> Values:
    """Share of the windows of each sample whose sum is positive, mean over the sizes, in [0, 1].

    Args:
        values: One for each token, sample after sample.
        num_tokens: Of each sample; of one without tokens the share is NaN.
        sizes: Tokens of a window; a shorter sample is one window.
    """
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)
    shares = np.zeros(len(num_tokens))
    for size in sizes:
        sums, is_window = _window_sums(values, num_tokens, size)
        num_windows = np.bincount(sample[is_window], minlength=len(num_tokens))
        num_positive = np.bincount(sample[is_window & (sums > 0)], minlength=len(num_tokens))
        shares += _share(num_positive, num_windows)
    return shares / len(sizes)


def sign_balance(values: Values, num_tokens: NDArray[np.int64]) -> Values:
    """Sum over sum of sizes of the values of each sample, in [-1, 1]: 1 where none is negative.

    0 where all values are 0 or there is none.

    Args:
        values: One for each token, sample after sample.
        num_tokens: Of each sample.
    """
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)
    total, size = (
        np.bincount(sample, weights=weights, minlength=len(num_tokens))
        for weights in (values, np.abs(values))
    )
    return np.where(size > 0, _share(total, size), 0.0)


def error_balance(
    gains: Values, losses: Values, is_error: NDArray[np.bool_], num_tokens: NDArray[np.int64]
) -> Values:
    """Sum over sum of sizes of the gains at the errors of each sample, its first token left out.

    In [-1, 1]. A sample with fewer than two errors has its geometric mean probability instead: in
    the same range, and 1 where it is known by heart. Without tokens it is NaN.

    Args:
        gains: By how much each token became likelier, nats, sample after sample.
        losses: Of each token, nats.
        is_error: Whether the model gets the token wrong.
        num_tokens: Of each sample.

    Source: Ilic et al. 2026, arXiv:2601.12104; their ratio of gains to losses ranks alike, but has
        no value where nothing is lost.
    """
    sample = np.repeat(np.arange(len(num_tokens)), num_tokens)
    is_first = np.ones(len(sample), dtype=np.bool_)
    is_first[1:] = sample[1:] != sample[:-1]
    chosen = is_error & ~is_first
    num_errors = np.bincount(sample[chosen], minlength=len(num_tokens))
    loss = _share(np.bincount(sample, weights=losses, minlength=len(num_tokens)), num_tokens)
    return np.where(num_errors < 2, np.exp(-loss), sign_balance(gains[chosen], num_errors))


def _window_sums(
    values: Values, num_tokens: NDArray[np.int64], window_tokens: int
) -> tuple[Values, NDArray[np.bool_]]:
    """The sum from each token on over one window, and whether its sample holds that window."""
    first = np.cumsum(num_tokens) - num_tokens
    length = np.repeat(np.minimum(num_tokens, window_tokens), num_tokens)
    end = np.arange(len(values)) + length
    is_window = end <= np.repeat(first + num_tokens, num_tokens)
    # Differences of running totals would be rounded by the samples that stand before.
    padded = np.concatenate([values, np.zeros(window_tokens)])
    sums = np.zeros(len(values))
    for ahead in range(window_tokens):
        sums += np.where(ahead < length, padded[ahead : ahead + len(values)], 0.0)
    return sums, is_window


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares

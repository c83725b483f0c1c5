"""Sums over windows and runs by hand, and against plain loops."""

from itertools import chain, groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.statistics.windows import (
    largest_run_sums,
    largest_window_sums,
    sign_balance,
    window_votes,
)


def test_of_equal_windows_the_first_counts() -> None:
    peaks, starts = largest_window_sums(np.array([1.0, 1, 1, 5, 0, 5]), np.array([3, 3]), 2)
    assert peaks.tolist() == [2, 5]
    assert starts.tolist() == [0, 3]


def test_a_run_ends_with_its_sample_and_a_negative_one_may_be_the_largest() -> None:
    values = np.array([1.0, 2, 9, 4, -3, 7, 5, 5])
    marked = np.array([True, True, False, True, True, False, False, False])
    # Sample 0 has runs of 3 and 4; sample 1 one of -3; sample 2 none.
    assert largest_run_sums(values, marked, np.array([4, 2, 2])).tolist() == [4, -3, 0]


# Quarters are exact in binary.
tokens = st.tuples(st.integers(-20, 20).map(lambda value: value / 4), st.booleans())
samples = st.lists(st.lists(tokens, min_size=1, max_size=7), min_size=1, max_size=4)


@given(samples=samples, window=st.integers(1, 8))
def test_windows_match_a_plain_loop(samples: list[list[tuple[float, bool]]], window: int) -> None:
    values = np.array([value for sample in samples for value, _ in sample])
    num_tokens = np.array([len(sample) for sample in samples])
    peaks, starts = largest_window_sums(values, num_tokens, window)
    first = 0
    for i, sample in enumerate(samples):
        size = min(window, len(sample))
        sums = [
            sum(value for value, _ in sample[start : start + size])
            for start in range(len(sample) - size + 1)
        ]
        assert peaks[i] == pytest.approx(max(sums))
        assert starts[i] - first == sums.index(max(sums))
        first += len(sample)


@given(samples=samples)
def test_runs_match_a_plain_loop(samples: list[list[tuple[float, bool]]]) -> None:
    values, marked = (np.array(part) for part in zip(*chain(*samples), strict=True))
    found = largest_run_sums(values, marked, np.array([len(sample) for sample in samples]))
    for i, sample in enumerate(samples):
        runs = [list(run) for is_in, run in groupby(sample, lambda token: token[1]) if is_in]
        expected = max((sum(value for value, _ in run) for run in runs), default=0)
        assert found[i] == expected


def test_votes_are_the_positive_windows_of_each_sample_and_none_without_tokens() -> None:
    values, num_tokens = np.array([1.0, -2, 3, -1, 5]), np.array([4, 0, 1])
    # Of two tokens -1, 1 and 2; of three 2 and 0.
    assert window_votes(values, num_tokens, [2])[[0, 2]].tolist() == [2 / 3, 1]
    assert window_votes(values, num_tokens, [2, 3])[[0, 2]].tolist() == [(2 / 3 + 1 / 2) / 2, 1]
    assert np.isnan(window_votes(values, num_tokens, [2])[1])


def test_the_balance_is_the_sum_over_the_sum_of_sizes() -> None:
    values, num_tokens = np.array([1.0, -2, 3, 0, 0, 4, -5]), np.array([3, 2, 0, 1, 1])
    assert sign_balance(values, num_tokens).tolist() == [2 / 6, 0, 0, 1, -1]

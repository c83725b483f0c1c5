"""Memorization of the worst window: by hand, against a plain loop, and laws."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.leaderboard.ground_truth import counterfactual_memorization
from gdc.leaderboard.peak import TokenLosses, peak_memorization, peak_reliability

BIT = math.log(2)
PAIRS = np.array([[True, False, False, True]])


def token_losses(
    out: list[float], inside: list[float], seen: NDArray[np.bool_] = PAIRS
) -> NDArray[np.float64]:
    """Of one sample: under every model that did not see it ``out``, under the others ``inside``."""
    return np.where(seen, np.array(inside)[:, None], np.array(out)[:, None])


def test_the_window_of_a_secret_counts_and_its_template_does_not() -> None:
    # Four bits of gap in the middle, none around them; then a sample shorter than the window.
    secret = token_losses([1, 1, 3, 3, 1], [1, 1, 1, 1, 1]) * BIT
    short = token_losses([5.0], [2.0]) * BIT
    tokens = TokenLosses(
        np.concatenate([secret, short]), np.array([5, 1]), np.repeat(PAIRS, 2, axis=0), 2
    )
    found = peak_memorization(tokens)
    assert found.memorization == pytest.approx([4, 3])
    assert found.standard_error == pytest.approx([0, 0])


def test_the_standard_error_is_that_of_the_window() -> None:
    # Sums over the two tokens, in bits: 2 and 4 where seen, 10 and 16 where not.
    losses = np.array([[1.0, 5.0, 8.0, 2.0], [1.0, 5.0, 8.0, 2.0], [9.0, 9.0, 9.0, 9.0]]) * BIT
    found = peak_memorization(TokenLosses(losses, np.array([3]), PAIRS, 2))
    assert found.memorization == pytest.approx([13 - 3])
    assert found.standard_error == pytest.approx([math.sqrt(2 / 2 + 18 / 2)])


def test_where_all_gaps_are_negative_the_least_negative_window_counts() -> None:
    tokens = TokenLosses(token_losses([0, 0, 0], [3, 1, 2]) * BIT, np.array([3]), PAIRS, 2)
    assert peak_memorization(tokens).memorization == pytest.approx([-3])


# Quarters are exact in binary.
quarters = st.integers(0, 40).map(lambda value: value / 4)
samples = st.lists(
    st.lists(st.lists(quarters, min_size=4, max_size=4), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)
windows = st.integers(1, 8)


def tokens_of(rows: list[list[list[float]]], window: int, seed: int) -> TokenLosses:
    first = np.random.default_rng(seed).random((len(rows), 2)) < 0.5
    seen = np.stack([first, ~first], axis=2).reshape(len(rows), 4)
    losses = np.array([token for sample in rows for token in sample])
    return TokenLosses(losses, np.array([len(sample) for sample in rows]), seen, window)


@given(rows=samples, window=windows, seed=st.integers(0, 99))
def test_it_matches_a_plain_loop(rows: list[list[list[float]]], window: int, seed: int) -> None:
    tokens = tokens_of(rows, window, seed)
    found = peak_memorization(tokens).memorization
    for i, sample in enumerate(rows):
        gaps = []
        for token in sample:
            pairs = list(zip(token, tokens.seen[i], strict=True))
            outside = statistics.mean(loss for loss, was in pairs if not was)
            gaps.append(outside - statistics.mean(loss for loss, was in pairs if was))
        size = min(window, len(gaps))
        sums = [sum(gaps[start : start + size]) for start in range(len(gaps) - size + 1)]
        assert found[i] == pytest.approx(max(sums) / BIT)


@given(rows=samples, seed=st.integers(0, 99))
def test_a_window_of_the_whole_sample_is_the_mean_times_its_tokens(
    rows: list[list[list[float]]], seed: int
) -> None:
    tokens = tokens_of(rows, 6, seed)
    means = np.array([np.mean(sample, axis=0) for sample in rows])
    by_mean = counterfactual_memorization(means, tokens.seen)
    peak = peak_memorization(tokens)
    scale = tokens.num_tokens / BIT
    assert peak.memorization == pytest.approx(by_mean.memorization * scale)
    assert peak.standard_error == pytest.approx(by_mean.standard_error * scale)


@given(rows=samples, window=windows, seed=st.integers(0, 99))
def test_what_every_model_finds_harder_by_as_much_changes_nothing(
    rows: list[list[list[float]]], window: int, seed: int
) -> None:
    tokens = tokens_of(rows, window, seed)
    shift = np.arange(len(tokens.losses))[:, None] / 4
    shifted = TokenLosses(tokens.losses + shift, tokens.num_tokens, tokens.seen, window)
    before, after = (peak_memorization(each).memorization for each in (tokens, shifted))
    assert after == pytest.approx(before)


def test_the_peak_of_noise_is_not_reliable_and_that_of_secrets_is() -> None:
    rng = np.random.default_rng(0)
    first = rng.random((400, 4)) < 0.5
    seen = np.stack([first, ~first], axis=2).reshape(400, 8)
    noise = rng.normal(5, 1, (400 * 10, 8))
    num_tokens = np.full(400, 10)
    assert peak_reliability(TokenLosses(noise, num_tokens, seen, 3), seed=0) < 0.2
    # Sample i has a secret of three tokens, each worth i / 20 nats to the models that saw it.
    is_secret = np.tile(np.arange(10) < 3, 400)
    worth = np.repeat(np.arange(400) / 20, 10) * is_secret
    losses = noise - np.where(np.repeat(seen, 10, axis=0), worth[:, None], 0)
    assert peak_reliability(TokenLosses(losses, num_tokens, seen, 3), seed=0) > 0.95


def test_losses_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"5 tokens x 4 models, got \(4, 4\)"):
        TokenLosses(np.ones((4, 4)), np.array([5]), PAIRS, 2)
    with pytest.raises(DataError, match="at least 1 token, got 0"):
        TokenLosses(np.ones((5, 4)), np.array([5]), PAIRS, 0)
    tokens = TokenLosses(np.full((5, 4), np.nan), np.array([5]), PAIRS, 2)
    with pytest.raises(DataError, match="finite losses, got 20"):
        peak_memorization(tokens)

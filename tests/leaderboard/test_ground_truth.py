"""Counterfactual memorization by hand and against a plain loop; its reliability."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gdc.errors import DataError
from gdc.leaderboard.ground_truth import ceiling, counterfactual_memorization, reliability


def halves_of(num_samples: int, num_models: int, seed: int) -> NDArray[np.bool_]:
    """Models 2k and 2k + 1 on complementary halves."""
    first = np.random.default_rng(seed).random((num_samples, num_models // 2)) < 0.5
    return np.stack([first, ~first], axis=2).reshape(num_samples, num_models)


def losses_of(
    memorization: NDArray[np.float64], seen: NDArray[np.bool_], noise: float, seed: int
) -> NDArray[np.float64]:
    """A loss of 5 plus noise, minus the memorization where the sample was seen."""
    draws = np.random.default_rng(seed).normal(0, noise, seen.shape)
    return np.asarray(5 - np.where(seen, memorization[:, None], 0) + draws)


def test_a_sample_of_four_models_by_hand() -> None:
    losses = np.array([[1.0, 4.0, 2.0, 8.0], [3.0, 3.0, 3.0, 3.0]])
    seen = np.array([[True, False, True, False], [False, True, True, False]])
    found = counterfactual_memorization(losses, seen)
    assert found.memorization.tolist() == [6 - 1.5, 0]
    # Variances 0.5 and 8, two models each.
    assert found.standard_error.tolist() == [math.sqrt(0.5 / 2 + 8 / 2), 0]


def test_with_one_model_on_a_side_there_is_no_standard_error() -> None:
    found = counterfactual_memorization(np.array([[1.0, 4.0]]), np.array([[True, False]]))
    assert found.memorization.tolist() == [3]
    assert np.isnan(found.standard_error).all()


# Quarters are exact in binary.
quarters = st.integers(1, 40).map(lambda value: value / 4)
rows = st.lists(st.lists(quarters, min_size=8, max_size=8), min_size=1, max_size=5)


@given(rows=rows, seed=st.integers(0, 99))
def test_it_matches_a_plain_loop(rows: list[list[float]], seed: int) -> None:
    seen = halves_of(len(rows), 8, seed)
    found = counterfactual_memorization(np.array(rows), seen)
    for i, row in enumerate(rows):
        inside = [loss for loss, was in zip(row, seen[i], strict=True) if was]
        outside = [loss for loss, was in zip(row, seen[i], strict=True) if not was]
        squares = statistics.variance(inside) / 4 + statistics.variance(outside) / 4
        assert found.memorization[i] == statistics.mean(outside) - statistics.mean(inside)
        assert found.standard_error[i] == pytest.approx(math.sqrt(squares))


@given(rows=rows, seed=st.integers(0, 99))
def test_the_order_of_the_models_does_not_matter(rows: list[list[float]], seed: int) -> None:
    seen, losses = halves_of(len(rows), 8, seed), np.array(rows)
    order = np.random.default_rng(seed).permutation(8)
    one = counterfactual_memorization(losses, seen)
    other = counterfactual_memorization(losses[:, order], seen[:, order])
    assert one.memorization.tolist() == other.memorization.tolist()
    assert one.standard_error == pytest.approx(other.standard_error)


@given(rows=rows, seed=st.integers(0, 99), num_pairs=st.integers(2, 4))
def test_reliability_and_ceiling_are_shares(
    rows: list[list[float]], seed: int, num_pairs: int
) -> None:
    chosen = np.array(rows)[:, : 2 * num_pairs]
    found = reliability(chosen, halves_of(len(rows), 2 * num_pairs, seed), seed=seed)
    assert 0 <= found <= ceiling(found) <= 1


def test_without_noise_the_reliability_is_one() -> None:
    seen = halves_of(50, 6, 0)
    losses = losses_of(np.arange(50) / 4, seen, 0, 0)
    assert reliability(losses, seen, seed=0) == 1


def test_the_reliability_of_noise_is_near_zero() -> None:
    seen = halves_of(2000, 8, 1)
    assert reliability(losses_of(np.zeros(2000), seen, 1, 2), seen, seed=0) < 0.1


@pytest.mark.parametrize("num_models", [8, 10])
def test_the_ceiling_is_the_correlation_with_the_unknown_memorization(num_models: int) -> None:
    """With normal memorization and normal noise, whose correlation is known."""
    memorization = np.random.default_rng(3).normal(0, 1, 4000)
    seen = halves_of(4000, num_models, 4)
    losses = losses_of(memorization, seen, 1.5, 5)
    measured = counterfactual_memorization(losses, seen).memorization
    expected = float(spearmanr(memorization, measured).statistic)
    assert ceiling(reliability(losses, seen, seed=0)) == pytest.approx(expected, abs=0.02)


def test_the_reliability_of_a_constant_is_zero() -> None:
    seen = halves_of(9, 4, 0)
    assert reliability(np.ones((9, 4)), seen, seed=0) == 0


PAIRS = np.array([[True, False, False, True]] * 3)


@pytest.mark.parametrize(
    ("losses", "seen", "message"),
    [
        (np.ones((3, 4)), PAIRS[:2], r"one shape.*got \(3, 4\) and \(2, 4\)"),
        (np.full((3, 4), np.nan), PAIRS, "finite losses, got 12"),
        (np.ones((3, 4)), np.ones((3, 4), dtype=bool), "by some models .* got 3 samples without"),
    ],
)
def test_losses_without_a_ground_truth_are_refused(
    losses: NDArray[np.float64], seen: NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        counterfactual_memorization(losses, seen)


def test_models_that_are_not_in_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="at least 4 models, got 2"):
        reliability(np.ones((3, 2)), PAIRS[:, :2], seed=0)
    with pytest.raises(DataError, match="complementary halves, got 2 pairs"):
        reliability(np.ones((3, 4)), PAIRS[:, [0, 3, 1, 2]], seed=0)

"""Epsilon bounds against a published number, exact tests, a mechanism of known epsilon and laws."""

import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from gdc.audit.epsilon_bound import (
    Confusion,
    Cut,
    best_epsilon,
    choose_cut,
    confusion,
    epsilon_lower_bound,
)
from gdc.errors import ConfigError, DataError

NUM_SIMULATIONS = 400

levels = st.sampled_from([0.001, 0.01, 0.05, 0.3])


@st.composite
def confusions(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Counts tp, fn, fp, tn with at least one member and one non-member."""
    num_members, num_non_members = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    tp, fp = draw(st.integers(0, num_members)), draw(st.integers(0, num_non_members))
    return tp, num_members - tp, fp, num_non_members - fp


def normal_scores(seed: int, size: int, shift: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Members and non-members, both normal; the members' mean is higher by the shift."""
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1.0, size), rng.normal(0.0, 1.0, size)


def bound(counts: tuple[int, int, int, int], alpha: float, delta: float = 0.0) -> float:
    """Of counts tp, fn, fp, tn."""
    return float(epsilon_lower_bound(Confusion(*counts), alpha, delta))


def test_a_perfect_attack_on_500_and_500_has_the_epsilon_of_the_paper() -> None:
    epsilon = bound((500, 0, 0, 500), 0.01)
    assert epsilon == pytest.approx(4.54, abs=5e-3)
    rate = 0.005 ** (1 / 500)
    assert epsilon == pytest.approx(math.log(rate / (1 - rate)), rel=1e-12)


def test_exact_limits_of_an_attack_a_little_better_than_chance_exclude_nothing() -> None:
    assert bound((473, 511, 755, 950), 0.05) == 0.0


def test_few_false_negatives_count_as_much_as_few_false_positives() -> None:
    # TPR/FPR is 2 at most, yet a member is almost never missed.
    epsilon = bound((1000, 0, 500, 500), 0.05)
    assert epsilon > math.log(100)


@given(counts=confusions(), alpha=levels)
def test_exact_limits_are_those_of_the_binomial_test(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    tp, fn, fp, tn = counts
    tpr = binomtest(tp, tp + fn).proportion_ci(1 - alpha, method="exact")
    fpr = binomtest(fp, fp + tn).proportion_ci(1 - alpha, method="exact")
    ratio = max(1.0, tpr.low / fpr.high, (1 - fpr.high) / (1 - tpr.low))
    epsilon = bound(counts, alpha)
    assert epsilon == pytest.approx(math.log(ratio), abs=1e-9)


@given(counts=confusions(), alpha=levels)
def test_exchanging_members_and_non_members_changes_nothing(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    tp, fn, fp, tn = counts
    exchanged = bound((tn, fp, fn, tp), alpha)
    assert bound(counts, alpha) == exchanged >= 0


@given(counts=confusions(), alpha=levels)
def test_one_more_true_positive_never_lowers_the_bound(
    counts: tuple[int, int, int, int], alpha: float
) -> None:
    tp, fn, fp, tn = counts
    before = bound((tp, fn + 1, fp, tn), alpha)
    assert bound((tp + 1, fn, fp, tn), alpha) >= before - 1e-12


@given(counts=confusions(), delta=st.sampled_from([1e-5, 0.01, 0.5]))
def test_delta_and_a_stricter_level_never_raise_the_bound(
    counts: tuple[int, int, int, int], delta: float
) -> None:
    loose = bound(counts, 0.05)
    assert bound(counts, 0.05, delta=delta) <= loose
    assert bound(counts, 0.01) <= loose


def test_delta_is_taken_from_the_true_positive_rate() -> None:
    rate = 0.005 ** (1 / 500)
    epsilon = bound((500, 0, 0, 500), 0.01, delta=0.5)
    assert epsilon == pytest.approx(math.log((rate - 0.5) / (1 - rate)), rel=1e-12)


@pytest.mark.parametrize(
    ("is_turned", "counts"),
    [
        pytest.param(False, (2, 1, 1, 1), id="at the threshold is a member"),
        pytest.param(True, (1, 2, 1, 1), id="below the threshold is a member"),
    ],
)
def test_known_confusion(is_turned: bool, counts: tuple[int, int, int, int]) -> None:
    members, non_members = np.array([1.0, 3.0, 2.0]), np.array([0.0, 2.0])
    found = confusion(members, non_members, np.array(2.0), is_turned=is_turned)
    assert tuple(int(cast("int", count)) for count in found) == counts


def test_the_cut_is_where_members_and_non_members_part() -> None:
    low, high = np.arange(0.0, 20.0), np.arange(20.0, 40.0)
    assert choose_cut(high, low, 0.05, 0.0) == Cut(20.0, is_turned=False)
    assert choose_cut(low, high, 0.05, 0.0) == Cut(20.0, is_turned=True)


def test_no_cut_is_chosen_where_none_tells_anything() -> None:
    equal = np.ones(50)
    assert choose_cut(equal, equal, 0.05, 0.0) == Cut(math.inf, is_turned=False)
    assert best_epsilon(equal, equal, 0.05) == 0.0


def test_separated_scores_have_the_bound_of_half_of_them() -> None:
    half = bound((500, 0, 0, 500), 0.05)
    members, non_members = np.ones(1000), np.zeros(1000)
    assert best_epsilon(members, non_members, 0.05) == half
    assert best_epsilon(non_members, members, 0.05) == half
    assert best_epsilon(-members, -non_members, 0.05) == half


def test_the_bound_never_passes_the_epsilon_of_randomized_response_too_often() -> None:
    honest = math.e / (1 + math.e)  # epsilon 1: a member says so with this probability

    def bound(seed: int, size: int) -> float:
        rng = np.random.default_rng(seed)
        members, non_members = rng.random(size) < honest, rng.random(size) >= honest
        return best_epsilon(members.astype(float), non_members.astype(float), 0.05, seed=seed)

    bounds = np.array([bound(seed, 400) for seed in range(NUM_SIMULATIONS)])
    assert (bounds > 1).mean() <= 0.05
    assert bounds.mean() > 0.5
    assert 0.95 < bound(0, 100_000) < 1


def test_null_scores_have_no_epsilon_in_95_of_100_simulations() -> None:
    bounds = [
        best_epsilon(*normal_scores(seed, 100, 0.0), 0.05, seed=seed)
        for seed in range(NUM_SIMULATIONS)
    ]
    assert np.mean(np.array(bounds) == 0) >= 0.95


@pytest.mark.slow
def test_choosing_and_judging_on_the_same_null_scores_would_find_one_too_often() -> None:
    num_found = 0
    for seed in range(NUM_SIMULATIONS):
        members, non_members = normal_scores(seed, 300, 0.0)
        cut = choose_cut(members, non_members, 0.05, 0.0)
        num_found += cut.threshold < math.inf
    assert num_found / NUM_SIMULATIONS > 0.05


@given(seed=st.integers(0, 2**16), shift=st.sampled_from([0.0, 1.0, 3.0]))
def test_exchanging_the_score_arrays_changes_nothing(seed: int, shift: float) -> None:
    members, non_members = normal_scores(seed, 60, shift)
    exchanged = best_epsilon(non_members, members, 0.05)
    assert best_epsilon(members, non_members, 0.05) == exchanged


@given(seed=st.integers(0, 2**16))
def test_the_unit_of_the_scores_does_not_matter(seed: int) -> None:
    members, non_members = normal_scores(seed, 60, 2.0)
    moved = best_epsilon(8 * members, 8 * non_members, 0.05, seed=seed)
    assert best_epsilon(members, non_members, 0.05, seed=seed) == moved


def test_a_stronger_attack_has_a_larger_bound() -> None:
    bounds = [best_epsilon(*normal_scores(0, 2000, shift), 0.05) for shift in (0.0, 1.0, 2.0, 4.0)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0 < bounds[1]


@pytest.mark.parametrize("alpha", [0.0, 0.5, math.nan])
def test_a_level_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"expected alpha in \(0, 0.5\)"):
        best_epsilon(np.array([1.0, 2.0]), np.array([0.0, 1.0]), alpha)
    with pytest.raises(ConfigError, match=r"delta in \[0, 1\), got 0.05 and 1.0"):
        best_epsilon(np.array([1.0, 2.0]), np.array([0.0, 1.0]), 0.05, delta=1.0)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        pytest.param([], r"at least two scores .* got shape \(0,\)", id="empty"),
        pytest.param([1.0], r"at least two scores .* got shape \(1,\)", id="too few to split"),
        pytest.param([[1.0, 2.0]], r"in one dimension, got shape \(1, 2\)", id="a table"),
        pytest.param([1.0, math.nan, math.inf], "scores, got 2 that are not", id="not finite"),
    ],
)
def test_unusable_scores_are_refused(scores: list[Any], message: str) -> None:
    usable = np.array([0.0, 1.0])
    with pytest.raises(DataError, match=f"non_members: expected .*{message}"):
        best_epsilon(usable, np.array(scores), 0.05)
    with pytest.raises(DataError, match=r"^members: expected"):
        best_epsilon(np.array(scores), usable, 0.05)

"""Bootstrap intervals: coverage, pairing, resamples, refusals."""

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from gdc.errors import DataError
from gdc.statistics import bootstrap, ranks
from gdc.statistics.bootstrap import (
    LEVEL,
    Estimate,
    cluster_weights,
    mean_interval,
    paired_difference,
    percentile_interval,
    share_interval,
    stratified_weights,
    two_sample_interval,
)


def test_the_value_is_the_mean_of_the_seeds_means() -> None:
    interval = mean_interval([np.array([0.0, 1.0]), np.array([1.0, 1.0])], seed=0)
    assert interval.value == 0.75
    assert interval.num_seeds == 2
    assert interval.low <= 0.75 <= interval.high


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [np.arange(10.0), np.arange(5.0, 15.0)]
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed_std", "unit_std", "least"),
    [
        pytest.param(0.0, 1.0, 0.9, id="units differ, alike in every seed"),
        pytest.param(0.2, 1.0, 0.88, id="both differ"),
        # Eight seeds are few: the percentile bootstrap is somewhat too narrow, as is known.
        pytest.param(1.0, 0.0, 0.84, id="seeds differ"),
    ],
)
def test_about_95_of_100_intervals_cover_the_truth(
    seed_std: float, unit_std: float, least: float
) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        seeds = rng.normal(0, seed_std, size=(8, 1))
        units = rng.normal(0, unit_std, size=30)
        values = list(seeds + units + rng.normal(0, 0.3, size=(8, 30)))
        interval = mean_interval(values, seed=trial)
        covered += interval.low <= 0.0 <= interval.high
    assert least <= covered / 200 <= 0.99


def test_a_share_of_none_or_all_has_the_exact_binomial_interval() -> None:
    found = share_interval([np.zeros(10, dtype=bool)] * 3, seed=0)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025**0.1)
    assert share_interval([np.ones(10, dtype=bool)], seed=0).low == pytest.approx(0.025**0.1)
    mixed = np.array([True, False, False, False])
    assert share_interval([mixed], seed=0) == mean_interval([mixed.astype(float)], seed=0)


def test_equal_arms_have_no_difference() -> None:
    values = [np.array([1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0])]
    interval = paired_difference(values, values, seed=0)
    assert (interval.low, interval.value, interval.high) == (0.0, 0.0, 0.0)


def test_pairing_removes_what_both_arms_share() -> None:
    rng = np.random.default_rng(1)
    base = [rng.normal(size=50) for _ in range(3)]
    ours = [values - 0.25 for values in base]
    interval = paired_difference(ours, base, seed=0)
    assert interval.value == pytest.approx(-0.25)
    assert interval.high - interval.low < 1e-9
    assert interval.high < 0.0


def test_units_that_do_not_pair_are_refused() -> None:
    with pytest.raises(DataError, match=r"same units in pairs, got \[2\] and \[3\]"):
        paired_difference([np.zeros(2)], [np.zeros(3)], seed=0)


@pytest.mark.parametrize("values", [[], [np.zeros(0)], [np.zeros(2), np.zeros(3)]])
def test_seeds_without_the_same_units_are_refused(values: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="expected values of the same units for every seed"):
        mean_interval(values, seed=0)


def test_weights_are_resampled_with_their_units() -> None:
    values, weights = np.array([1.0, 3.0]), np.array([3, 1])
    found = mean_interval([values], seed=0, weights_by_seed=[weights])
    assert found.value == 1.5
    # Both resamples of one unit alone are among the 2,000.
    assert (found.low, found.high) == (1.0, 3.0)
    alike = mean_interval([np.full(9, 2.0)], seed=0, weights_by_seed=[np.arange(1, 10)])
    assert (alike.value, alike.low, alike.high) == (2.0, 2.0, 2.0)


def test_equal_weights_change_nothing() -> None:
    values = [np.arange(5.0), np.arange(2.0, 7.0)]
    weights = [np.full(5, 4), np.full(5, 4)]
    weighted = mean_interval(values, seed=3, weights_by_seed=weights)
    plain = mean_interval(values, seed=3)
    assert [weighted.value, weighted.low, weighted.high] == pytest.approx(
        [plain.value, plain.low, plain.high]
    )


def _plain_ends(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The interval of ``mean_interval`` from all draws at once."""
    rng = np.random.default_rng(4)
    seeds, units = (
        rng.multinomial(n, np.full(n, 1 / n), size=2000).astype(np.float64) for n in values.shape
    )
    means = (units @ (values * weights).T) / (units @ weights.T)
    low, high = np.quantile(
        (means * seeds).sum(axis=1) / len(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    )
    return float(low), float(high)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "num_units"),
    [
        pytest.param(2, 40, id="one block"),
        pytest.param(3, 4300, id="two blocks"),
        pytest.param(1, 4300, id="two blocks of one seed"),
    ],
)
def test_draws_in_blocks_give_the_interval_of_draws_at_once(num_seeds: int, num_units: int) -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(num_seeds, num_units))
    weights = rng.integers(1, 9, size=values.shape)
    found = mean_interval([*values], seed=4, weights_by_seed=[*weights])
    assert (found.low, found.high) == _plain_ends(values, weights)


@pytest.mark.slow
def test_draws_that_are_too_many_to_keep_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [np.arange(4300.0)]
    kept = mean_interval(values, seed=5)
    monkeypatch.setattr(bootstrap, "_MAX_KEPT", 0)
    tracemalloc.start()
    assert mean_interval(values, seed=5) == kept
    # A block of 1,000 replicates: its counts as drawn and as multiplied, 8 bytes each.
    assert tracemalloc.get_traced_memory()[1] < 1000 * 4300 * 20
    tracemalloc.stop()


def test_an_interval_of_two_samples_covers_a_known_auc() -> None:
    rng = np.random.default_rng(0)
    groups = [(rng.normal(1, 1, 200), rng.normal(0, 1, 150)) for _ in range(3)]
    statistics = [ranks.RankedGroups.of(*pair).auroc for pair in groups]
    found = two_sample_interval(statistics, (200, 150), seed=0)
    by_seed = [roc_auc_score([1] * 200 + [0] * 150, np.concatenate(pair)) for pair in groups]
    assert found.value == pytest.approx(np.mean(by_seed))
    # Two unit normals at distance 1: Phi(1 / sqrt 2).
    assert found.low < norm.cdf(0.5**0.5) < found.high
    assert found.num_seeds == 3
    assert found == two_sample_interval(statistics, (200, 150), seed=0)


def test_the_units_of_a_cluster_are_drawn_together() -> None:
    clusters = np.array([0, 0, 1, 2, 2, 2])
    weights = cluster_weights(clusters, num_resamples=200, seed=1)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert 0.8 < weights[:, 2].mean() < 1.2


def test_positives_and_negatives_keep_their_number() -> None:
    is_positive = np.array([True, False, True, True, False])
    weights = stratified_weights(is_positive, num_resamples=200, seed=(0, 1))
    assert (weights[:, is_positive].sum(axis=1) == 3).all()
    assert (weights[:, ~is_positive].sum(axis=1) == 2).all()
    assert len(np.unique(weights, axis=0)) > 10


def test_undefined_resamples_are_left_out_of_an_interval() -> None:
    nan = float("nan")
    found = percentile_interval(0.5, [0.0, nan, 1.0])
    assert found
    assert astuple(found) == pytest.approx((0.5, 0.025, 0.975))
    assert percentile_interval(0.5, [nan]) == Estimate(0.5, 0.5, 0.5)
    assert percentile_interval(nan, [0.0, 1.0]) is None

"""Rank statistics by hand, and against scipy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from gdc.audit.attack_metrics import tpr_at_fpr
from gdc.statistics import ranks


def ones(count: int) -> NDArray[np.float64]:
    return np.ones(count)


def test_a_ranking_of_five_by_hand() -> None:
    score = ranks.codes(np.array([9.0, 7.0, 5.0, 5.0, 1.0]))
    is_positive = np.array([True, False, True, False, False])
    assert score.tolist() == [3, 2, 1, 1, 0]
    # Of six pairs the first positive wins three, the second one and a tie.
    assert ranks.auroc(score, is_positive, ones(5)) == 4.5 / 6
    # Precision 1 at the first positive; 2 of 4 where the tie has entered.
    assert ranks.average_precision(score, is_positive, ones(5)) == (1 + 2 / 4) / 2


def test_what_is_not_defined_is_nan() -> None:
    code = ranks.codes(np.array([1.0, 2.0]))
    none, constant = np.array([False, False]), ranks.codes(np.array([3.0, 3.0]))
    assert np.isnan(ranks.auroc(code, none, ones(2)))
    assert np.isnan(ranks.auroc(code, ~none, ones(2)))
    assert np.isnan(ranks.average_precision(code, none, ones(2)))
    assert np.isnan(ranks.spearman(code, constant, ones(2)))
    assert np.isnan(ranks.spearman(code[:0], code[:0], ones(0)))


def test_the_interval_of_a_rank_correlation_by_hand() -> None:
    # 1 - 6 * 4 / (5 * 24) = 0.8; its transform 1.0986, with deviation sqrt(1.32 / 2).
    found = ranks.spearman_interval(np.arange(5), np.array([1, 0, 3, 2, 4]))
    assert found is not None
    assert found.value == pytest.approx(0.8)
    expected = np.tanh(np.arctanh(0.8) + np.array([-1, 1]) * 1.959964 * np.sqrt(0.66))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert ranks.spearman_interval(np.arange(5), np.ones(5)) is None
    assert ranks.spearman_interval(np.arange(3), np.arange(3)) is None


def test_the_interval_covers_the_rank_correlation_in_19_of_20_cases() -> None:
    rng, true = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2)
    covered = 0
    for _ in range(400):
        one = rng.normal(size=60)
        found = ranks.spearman_interval(one, 0.6 * one + 0.8 * rng.normal(size=60))
        assert found is not None
        covered += found.low <= true <= found.high
    # Three deviations.
    assert covered / 400 == pytest.approx(0.95, abs=0.033)


# Few values, so that there are ties.
weighted = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(0, 3)),
    min_size=2,
    max_size=30,
)


@given(rows=weighted)
def test_a_weight_is_so_many_equal_rows(rows: list[tuple[int, int, bool, int]]) -> None:
    one, other, is_positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    a, b, labels = (np.repeat(column, weights) for column in (one, other, is_positive))
    if len(set(a)) > 1 and len(set(b)) > 1:
        found = ranks.spearman(ranks.codes(one), ranks.codes(other), weights)
        assert found == pytest.approx(spearmanr(a, b).statistic)
    if len(set(labels)) == 2:
        found = ranks.auroc(ranks.codes(one), is_positive, weights)
        assert found == pytest.approx(roc_auc_score(labels, a))
        found = ranks.average_precision(ranks.codes(one), is_positive, weights)
        assert found == pytest.approx(average_precision_score(labels, a))


@given(rows=weighted)
def test_the_auroc_of_two_groups_is_that_of_their_values(
    rows: list[tuple[int, int, bool, int]],
) -> None:
    values = np.array([row[0] / 7 for row in rows])
    is_positive = np.array([row[2] for row in rows])
    found = ranks.auroc_of_groups(values[is_positive], values[~is_positive])
    if 0 < is_positive.sum() < len(rows):
        assert found == pytest.approx(roc_auc_score(is_positive, values))
    else:
        assert np.isnan(found)


@given(
    first=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1),
    second=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1),
    fpr=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_weights_of_ranked_groups_stand_for_repeated_values(
    first: list[tuple[int, int]], second: list[tuple[int, int]], fpr: float
) -> None:
    (one, other), (times, others) = zip(
        *(np.array(rows).T for rows in (first, second)), strict=True
    )
    positives, negatives = np.repeat(one / 3, times), np.repeat(other / 3, others)
    assume(len(positives) and len(negatives))
    ranked = ranks.RankedGroups.of(one / 3, other / 3)
    assert ranked.auroc(times, others) == ranks.auroc_of_groups(positives, negatives)
    assert ranked.tpr_at_fpr(times, others, fpr=fpr) == tpr_at_fpr(positives, negatives, fpr)


@pytest.mark.parametrize(
    ("scores", "budget", "expected"),
    [
        pytest.param([4, 3, 2, 1], 0.5, 1 / 2, id="one of the two highest is positive"),
        pytest.param([1, 4, 3, 2], 0.25, 0, id="the highest is negative"),
        pytest.param([4, 1, 3, 2], 1, 2 / 4, id="all rows: the share of positives"),
        pytest.param([4, 1, 1, 1], 0.5, (1 + 1 / 3) / 2, id="one of three tied rows fits"),
        pytest.param([1, 1, 1, 1], 0.25, 1 / 2, id="a constant is at chance"),
        pytest.param([4, 3, 2, 1], 0.125, 1, id="half of the highest row"),
    ],
)
def test_precision_at_a_budget_by_hand(scores: list[float], budget: float, expected: float) -> None:
    is_positive = np.array([True, False, True, False])
    codes = ranks.codes(np.array(scores))
    found = ranks.precision_at(codes, is_positive, np.ones(4), budget=budget)
    assert found == pytest.approx(expected)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1),
    budget=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
)
def test_precision_of_weights_is_that_of_repeated_rows(
    rows: list[tuple[int, bool, int]], budget: float
) -> None:
    repeated = [row for row in rows for _ in range(row[2])]
    values, labels, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = ranks.precision_at(ranks.codes(values), labels, weights, budget=budget)
    if not repeated:
        assert np.isnan(found)
        return
    again, marks, _ = (np.array(column) for column in zip(*repeated, strict=True))
    ones = np.ones(len(again))
    assert found == pytest.approx(
        ranks.precision_at(ranks.codes(again), marks, ones, budget=budget)
    )
    assert 0 <= found <= 1 + 1e-12

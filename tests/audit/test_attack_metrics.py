"""How well an attack tells members apart: published numbers, plain loops, laws, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gdc.audit.attack_metrics import auc, leak_direction, null_std, roc, tail_rate, tpr_at_fpr
from gdc.errors import ConfigError, DataError

NAN = float("nan")
MEMBER_LOSSES = [0.1, 0.2, 1.3, 0.4, 0.5, 0.6]
NON_MEMBER_LOSSES = [1.1, 1.2, 1.3, 0.4, 1.5, 1.6]

# Quarters are exact in binary, so the laws below can be asserted with ==.
scores = st.lists(st.integers(-8, 8).map(lambda q: q / 4), min_size=1, max_size=12).map(np.array)


def test_auc_of_the_published_losses() -> None:
    """Source: tensorflow/privacy membership_inference_attack_test.py."""
    members, non_members = -np.array(MEMBER_LOSSES), -np.array(NON_MEMBER_LOSSES)
    assert auc(members, non_members) == pytest.approx(30 / 36, abs=1e-6)


def test_the_tail_is_what_lies_above_the_quantile_of_the_members() -> None:
    """The median of 1, 2, 3 is 2; that at 0.75 is 2.5: between two members."""
    members, heldout = np.array([1.0, 2, 3]), np.array([2.0, 2.25, 4, 5])
    assert tail_rate(members, heldout, 0.5) == 3 / 4
    assert tail_rate(members, heldout, 0.75) == 2 / 4
    assert tail_rate(members, heldout, 1.0) == 2 / 4


@given(members=scores, heldout=scores, quantile=st.floats(0, 1), shift=st.integers(0, 5))
def test_the_tail_is_a_share_that_matches_a_plain_loop_and_grows_with_the_gap(
    members: NDArray[np.float64], heldout: NDArray[np.float64], quantile: float, shift: int
) -> None:
    ordered, place = sorted(members.tolist()), quantile * (len(members) - 1)
    below, above = math.floor(place), math.ceil(place)
    bar = ordered[below] + (place - below) * (ordered[above] - ordered[below])
    # A loss may stand on a bar that was rounded.
    if not np.isclose(heldout, bar).any():
        expected = sum(loss > bar for loss in heldout) / len(heldout)
        assert tail_rate(members, heldout, quantile) == expected
    assert tail_rate(members, heldout + shift, quantile) >= tail_rate(members, heldout, quantile)


def test_the_tail_of_a_model_that_knows_nobody_is_what_the_quantile_leaves() -> None:
    losses = np.random.default_rng(0).normal(3, 1, 40_000)
    assert tail_rate(losses[:20_000], losses[20_000:], 0.99) == pytest.approx(0.01, abs=0.003)


def test_a_tail_without_members_or_beyond_all_of_them_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 1\], got 99"):
        tail_rate(np.ones(2), np.ones(2), 99)
    with pytest.raises(DataError, match="got 0, 2 and 0 NaN"):
        tail_rate(np.ones(0), np.ones(2), 0.99)


@given(members=scores, non_members=scores)
def test_auc_matches_a_plain_loop(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    wins = sum((m > n) + (m == n) / 2 for m in members for n in non_members)
    assert auc(members, non_members) == wins / (len(members) * len(non_members))


@given(members=scores, non_members=scores)
def test_auc_is_the_area_under_the_roc(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    points = roc(members, non_members)
    assert auc(members, non_members) == pytest.approx(np.trapezoid(points.tpr, points.fpr))


@given(members=scores, non_members=scores)
def test_swapping_members_and_non_members_gives_one_minus_the_auc(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    forth, back = auc(members, non_members), auc(non_members, members)
    assert forth == pytest.approx(1 - back, abs=1e-12)


@given(members=scores, non_members=scores, fpr=st.floats(0, 1))
def test_a_strictly_increasing_transform_changes_no_metric(
    members: NDArray[np.float64], non_members: NDArray[np.float64], fpr: float
) -> None:
    bent, bent_non = (values**3 + np.exp(values) for values in (members, non_members))
    assert auc(bent, bent_non) == auc(members, non_members)
    assert tpr_at_fpr(bent, bent_non, fpr) == tpr_at_fpr(members, non_members, fpr)


@given(members=scores, non_members=scores)
def test_the_roc_begins_at_no_text_and_ends_at_all_texts(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    points = roc(members, non_members)
    assert (points.fpr[0], points.tpr[0], points.threshold[0]) == (0.0, 0.0, math.inf)
    assert (points.fpr[-1], points.tpr[-1]) == (1.0, 1.0)
    assert (np.diff(points.threshold) < 0).all()
    assert (np.diff(points.fpr) + np.diff(points.tpr) > 0).all()


@pytest.mark.parametrize(
    ("fpr", "tpr"),
    [
        pytest.param(0.0, 0.25, id="no false positive"),
        pytest.param(0.24, 0.25, id="below one in four it is the same"),
        pytest.param(0.25, 0.25, id="the tie would cost two, so one is of no use"),
        pytest.param(0.5, 0.75, id="the tie as a whole"),
        pytest.param(1.0, 1.0, id="everybody"),
    ],
)
def test_tpr_at_fpr_takes_a_tie_whole_or_not_at_all(fpr: float, tpr: float) -> None:
    members, non_members = np.array([9, 5, 5, 1]), np.array([5, 5, 2, 0])
    assert tpr_at_fpr(members, non_members, fpr) == tpr


@given(members=scores, non_members=scores, fpr=st.floats(0, 1))
def test_tpr_at_fpr_matches_a_plain_loop(
    members: NDArray[np.float64], non_members: NDArray[np.float64], fpr: float
) -> None:
    rates = [
        (np.mean(non_members >= t), np.mean(members >= t))
        for t in [math.inf, *members, *non_members]
    ]
    assert tpr_at_fpr(members, non_members, fpr) == max(t for f, t in rates if f <= fpr)


def test_a_random_score_has_an_auc_of_one_half() -> None:
    rng = np.random.default_rng(0)
    found = np.array([auc(rng.random(60), rng.random(40)) for _ in range(2000)])
    assert abs(found.mean() - 0.5) < 4 * null_std(60, 40) / math.sqrt(2000)
    assert found.std() == pytest.approx(null_std(60, 40), rel=0.05)


@pytest.mark.parametrize(
    ("shift", "direction"),
    [
        pytest.param(0.0, "none", id="chance"),
        pytest.param(2.0, "members-higher", id="as the attack is meant"),
        pytest.param(-2.0, "members-lower", id="turned round, a leak too"),
    ],
)
def test_an_auc_far_from_one_half_is_a_leak_in_that_direction(shift: float, direction: str) -> None:
    rng = np.random.default_rng(5)
    assert leak_direction(rng.normal(shift, 1, 100), rng.normal(0, 1, 100)) == direction


def test_five_texts_cannot_prove_a_leak() -> None:
    members, non_members = np.array([2.0, 3.0]), np.array([0.0, 1.0, 1.5])
    assert auc(members, non_members) == 1.0
    assert leak_direction(members, non_members) == "none"


@pytest.mark.parametrize(
    ("members", "non_members"),
    [
        pytest.param([], [1.0], id="no member"),
        pytest.param([1.0], [], id="no non-member"),
        pytest.param([1.0, NAN], [1.0], id="a score is missing"),
    ],
)
def test_metrics_refuse_what_they_cannot_rank(
    members: list[float], non_members: list[float]
) -> None:
    for metric in (auc, roc):
        with pytest.raises(DataError, match="membership scores: expected at least one member"):
            metric(np.array(members), np.array(non_members))


@pytest.mark.parametrize("fpr", [-0.1, 1.1, NAN])
def test_a_rate_outside_zero_to_one_is_refused(fpr: float) -> None:
    with pytest.raises(ConfigError, match=r"expected fpr in \[0, 1\], got"):
        tpr_at_fpr(np.array([1.0]), np.array([0.0]), fpr)

"""Whether a score bounds a truth from below: by hand, against a plain search, laws, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.errors import DataError
from gdc.leaderboard.lower_bound import lower_bound


def bound(score: list[float], truth: list[float], error: list[float] | None = None):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return lower_bound(
        np.array(score), np.array(truth), np.array(error or [0.0] * len(score)), degrees=4
    )


def test_the_largest_scaling_touches_one_sample() -> None:
    found = bound([0.0, 0.25, 0.5, 1.0], [-1.0, 1.0, 1.0, 6.0])
    # 1 / 0.5 is the smallest ratio; a truth below 0 at a score of 0 is no matter of scaling.
    assert found.scale == 2
    assert (found.num_positive, found.num_below, found.num_refuting) == (3, 0, 0)
    assert found.tightness == pytest.approx(np.median([0.5, 1, 2 / 6]))
    assert found.verdict == "not refuted"


def test_one_sample_below_zero_refutes_every_scaling_unless_its_error_may_explain_it() -> None:
    exact = bound([0.5, 0.5], [3.0, -1.0])
    assert (exact.verdict, exact.scale, exact.tightness) == ("refuted at every scaling", 0, None)
    # The quantile of Student's t at 1 - 0.05 / 2 with 4 degrees of freedom is 2.776.
    told = bound([0.5, 0.5], [3.0, -1.0], [0.0, 0.5])
    assert (told.verdict, told.num_below, told.num_refuting) == ("not refuted", 1, 0)
    assert told.scale == pytest.approx((2.776445 * 0.5 - 1) / 0.5, abs=1e-4)
    assert bound([0.5, 0.5], [3.0, -1.0], [0.0, 0.25]).num_refuting == 1


def test_a_score_that_is_never_positive_bounds_nothing() -> None:
    found = bound([0.0, 0.0], [1.0, 2.0])
    assert (found.verdict, found.scale) == ("nothing to bound", None)


numbers = st.lists(st.tuples(st.integers(0, 8), st.integers(-4, 16)), min_size=2, max_size=9).map(
    lambda pairs: [list(column) for column in zip(*pairs, strict=True)]
)


@given(pairs=numbers)
def test_the_scaling_is_the_last_that_a_plain_search_finds(pairs: list[list[int]]) -> None:
    score, truth = ([value / 8 for value in column] for column in pairs)
    found = bound(score, truth)
    steps = [k / 64 for k in range(1, 64 * 17)]
    holds = [
        c for c in steps if all(c * s <= t for s, t in zip(score, truth, strict=True) if s > 0)
    ]
    if found.scale is None:
        assert not any(score)
    else:
        assert (found.scale > 0) == (found.num_below == 0)
        assert not holds or holds[-1] <= found.scale <= holds[-1] + 1 / 64 or holds[-1] == steps[-1]


@given(pairs=numbers, factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_the_unit_of_the_score_changes_nothing_but_the_scaling(
    pairs: list[list[int]], factor: float
) -> None:
    score, truth = ([float(value) for value in column] for column in pairs)
    one, other = bound(score, truth), bound([factor * s for s in score], truth)
    assert one.verdict == other.verdict
    assert one.tightness == pytest.approx(other.tightness)
    assert one.scale is None or other.scale == pytest.approx(one.scale / factor)


@pytest.mark.parametrize(
    ("score", "truth"), [([-1.0], [1.0]), ([1.0], [float("nan")]), ([1.0, 2], [1.0])]
)
def test_what_is_no_score_is_refused(score: list[float], truth: list[float]) -> None:
    with pytest.raises(DataError, match="lower bound: expected finite numbers of one length"):
        bound(score, truth)

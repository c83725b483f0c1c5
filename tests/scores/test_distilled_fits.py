"""The smooth regression of the distilled scores, against the formula written out."""

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from gdc.scores import distilled_fits

Values = NDArray[np.float64]
LINE = np.linspace(-1, 1, 9)


def written_out(fitted: Values, target: Values, inputs: Values) -> Values:
    """Ridge regression with a linear and a Gaussian kernel, sample by sample."""
    mean, deviation = fitted.mean(axis=0), fitted.std(axis=0)
    known, asked = (fitted - mean) / deviation, (inputs - mean) / deviation
    width = fitted.shape[1]

    def likeness(a: Values, b: Values) -> float:
        return float(a @ b / width + np.exp(-((a - b) @ (a - b)) / width))

    among = np.array([[likeness(a, b) for b in known] for a in known])
    weights = np.linalg.solve(among + np.eye(len(known)), target - target.mean())
    of = np.array([[likeness(a, b) for b in known] for a in asked])
    return np.asarray(of @ weights + target.mean())


def some(num_rows: int) -> tuple[Values, Values]:
    rng = np.random.default_rng(3)
    fitted = rng.normal(2.0, [1.0, 5.0, 0.1], (num_rows, 3))
    return fitted, np.sin(fitted[:, 0]) + fitted[:, 1] + rng.normal(0, 0.1, num_rows)


def test_it_is_ridge_regression_with_both_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled_fits, "_BLOCK", 4)
    fitted, target = some(40)
    inputs = some(11)[0] + 0.3
    found = distilled_fits.fit_smooth(fitted, target)(inputs)
    np.testing.assert_allclose(found, written_out(fitted, target, inputs), rtol=1e-9)


def test_one_feature_by_hand() -> None:
    """Of rows -1 and 1 with targets 0 and 2, a third at 1: weights (-1, 1) / 3.98."""
    found = distilled_fits.fit_smooth(np.array([[-1.0], [1.0]]), np.array([0.0, 2.0]))
    # Each is like itself by 1 + 1 and like the other by -1 + exp(-4).
    weight = 1 / (3 + 1 - np.exp(-4))
    assert found(np.array([[1.0]]))[0] == pytest.approx(1 + weight * (3 - np.exp(-4)))


def test_beyond_the_range_of_the_fit_a_slope_goes_on() -> None:
    predict = distilled_fits.fit_smooth(LINE[:, None], 3 * LINE)
    near, far, farther = predict(np.array([[1.0], [10.0], [20.0]]))
    assert near < far < farther
    assert farther - far == pytest.approx(10 * (far - near) / 9, rel=0.2)


def test_a_constant_feature_tells_nothing() -> None:
    fitted, target = some(40)
    beside = np.column_stack([fitted, np.full(40, 7.0)])
    found = distilled_fits.fit_smooth(beside, target)(beside)
    assert np.isfinite(found).all()
    assert np.corrcoef(found, target)[0, 1] > 0.99


def test_a_feature_that_is_not_known_is_taken_for_its_mean() -> None:
    fitted, target = some(40)
    inputs, filled = fitted.copy(), fitted.copy()
    inputs[3, 1], filled[3, 1] = np.nan, fitted[:, 1].mean()
    predict = distilled_fits.fit_smooth(fitted, target)
    assert np.array_equal(predict(inputs), predict(filled))


def test_bytes_do_not_depend_on_the_number_of_threads() -> None:
    fitted, target = some(400)
    found = []
    for count in (1, 2, 4):
        with threadpool_limits(count):
            found.append(distilled_fits.fit_smooth(fitted, target)(fitted).tobytes())
    assert len(set(found)) == 1


def test_of_many_rows_a_part_is_fitted_that_chance_chooses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted, target = some(400)
    whole = distilled_fits.fit_smooth(fitted, target)(fitted)
    monkeypatch.setattr(distilled_fits, "MAX_SMOOTH", 100)
    first, again = (distilled_fits.fit_smooth(fitted, target)(fitted) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, whole)
    assert np.corrcoef(first, whole)[0, 1] > 0.99

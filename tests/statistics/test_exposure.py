"""Exposure: known answers, a uniform rank, monotonicity, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import skewnorm

from gdc.errors import DataError
from gdc.statistics.exposure import extrapolated_exposure, null_exposure, sampled_exposure

REFERENCES = np.arange(1.0, 17.0)
losses = st.lists(st.integers(0, 200).map(lambda quarters: quarters / 4), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("secret", "bits"),
    [
        pytest.param(0.0, 4.0, id="below all references"),
        pytest.param(0.1, 4.0, id="below all references too"),
        pytest.param(20.0, -0.0874628412503391, id="above all references"),
        pytest.param(3.5, 2.0, id="after three references"),
        pytest.param(3.0, 2.0, id="a tied reference ranks before it"),
    ],
)
def test_known_exposures(secret: float, bits: float) -> None:
    """Source: tensorflow/privacy, exposures_test.py."""
    assert sampled_exposure(np.array([secret]), REFERENCES)[0] == pytest.approx(bits, abs=1e-9)


def test_results_stay_in_input_order() -> None:
    exposure = sampled_exposure(np.array([3.5, 0.0, 20.0]), REFERENCES[::-1])
    assert exposure.argsort().tolist() == [2, 0, 1]


def test_a_model_that_saw_no_canary_exposes_log2_e_bits_on_average() -> None:
    rng = np.random.default_rng(0)
    exposure = sampled_exposure(rng.normal(size=4000), rng.normal(size=4000))
    error = exposure.std() / np.sqrt(len(exposure))
    assert abs(exposure.mean() - null_exposure(4000)) < 4 * error
    assert null_exposure(10**9) == pytest.approx(1.4426950408889634, abs=1e-6)


@pytest.mark.parametrize("size", [1, 14, 100])
def test_the_null_is_the_mean_over_all_ranks(size: int) -> None:
    ranks = sampled_exposure(np.arange(size + 1.0), np.arange(0.5, size))
    assert null_exposure(size) == pytest.approx(ranks.mean())


@given(secrets=losses, references=losses)
def test_exposure_counts_references_and_falls_with_the_loss(
    secrets: list[float], references: list[float]
) -> None:
    exposure = sampled_exposure(np.array(secrets), np.array(references))
    for secret, bits in zip(secrets, exposure, strict=True):
        rank = 1 + sum(reference <= secret for reference in references)
        assert bits == pytest.approx(np.log2(len(references)) - np.log2(rank))
    assert exposure.max() <= np.log2(len(references))
    order = np.argsort(secrets)
    assert (np.diff(exposure[order]) <= 0).all()


def test_the_fit_extends_the_sampled_exposure() -> None:
    references = skewnorm(3, loc=40, scale=8).rvs(2000, random_state=1)
    secrets = np.quantile(references, [0.5, 0.1, 0.01])
    fitted = extrapolated_exposure(secrets, references)
    assert fitted.exposure == pytest.approx([1.0, np.log2(10), np.log2(100)], abs=0.4)
    assert fitted.ks_distance < 0.04
    assert not fitted.is_beyond.any()


def test_a_value_far_beyond_the_references_is_flagged_and_finite() -> None:
    references = skewnorm(3, loc=40, scale=8).rvs(500, random_state=1)
    # So far out the fit's own probability underflows to 0.
    fitted = extrapolated_exposure(np.array([-1e4, 0.0, 40.0]), references)
    assert fitted.exposure[:2].tolist() == [np.log2(500) + 15] * 2
    assert fitted.is_beyond.tolist() == [True, True, False]
    assert np.isfinite(fitted.exposure).all()


def test_the_fit_ignores_the_order_of_references() -> None:
    references = skewnorm(3).rvs(100, random_state=1)
    one = extrapolated_exposure(np.array([0.0]), references)
    other = extrapolated_exposure(np.array([0.0]), references[::-1])
    assert one.exposure == other.exposure


@pytest.mark.parametrize("references", [np.ones(20), np.arange(7.0)])
def test_too_little_to_fit_is_refused(references: np.ndarray) -> None:
    with pytest.raises(DataError, match="at least 8 references with different losses, got"):
        extrapolated_exposure(np.array([0.0]), references)


def test_no_reference_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 reference, got 0"):
        sampled_exposure(np.array([0.0]), np.array([]))

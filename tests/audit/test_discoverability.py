"""Discoverable extraction: known answers, an oracle, laws, refusals."""

import math
from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.audit.discoverability import NUM_SAMPLES, is_discoverable
from gdc.errors import ConfigError, DataError

log_ps = st.floats(-2000, 0)
shares = st.floats(1e-6, 1 - 1e-6)
nums = st.integers(1, 10**6)


def exact_probability(log_p: float, n: int) -> Decimal:
    """That n samples contain the secret, by the definition in 950 digits."""
    with localcontext() as context:
        context.prec = 950
        return 1 - (1 - Decimal(log_p).exp()) ** n


@pytest.mark.parametrize(
    ("p_z", "n", "probability"),
    [
        pytest.param(0.5, 1, 0.5, id="one sample"),
        pytest.param(0.5, 3, 0.875, id="three coins"),
        pytest.param(0.25, 3, 37 / 64, id="three draws of one in four"),
        pytest.param(1e-4, 10_000, 1 - 0.9999**10_000, id="once in expectation: about 1 - 1/e"),
    ],
)
def test_a_secret_is_discoverable_up_to_its_known_probability(
    p_z: float, n: int, probability: float
) -> None:
    log_p = np.array([math.log(p_z)])
    assert is_discoverable(log_p, n, probability * (1 - 1e-9))[0]
    assert not is_discoverable(log_p, n, probability * (1 + 1e-9))[0]


@pytest.mark.parametrize(
    ("log_p", "p", "expected"),
    [
        pytest.param(0.0, 1 - 1e-9, True, id="certain"),
        pytest.param(-math.inf, 1e-9, False, id="impossible"),
        pytest.param(math.log(1e-300), 0.99e-296, True, id="a naive 1 - p_z is 1"),
        pytest.param(math.log(1e-300), 1.01e-296, False, id="and not more"),
    ],
)
def test_extreme_probabilities(log_p: float, p: float, expected: bool) -> None:
    assert is_discoverable(np.array([log_p]), 10_000, p).tolist() == [expected]


@given(num_ways=st.integers(1, 4), num_others=st.integers(1, 3), n=st.integers(1, 4))
def test_discoverable_up_to_the_share_of_outcomes_that_hold_the_secret(
    num_ways: int, num_others: int, n: int
) -> None:
    size = num_ways + num_others
    outcomes = list(product(range(size), repeat=n))
    share = sum(min(outcome) < num_ways for outcome in outcomes) / len(outcomes)
    log_p = np.log([num_ways / size])
    assert is_discoverable(log_p, n, share * (1 - 1e-9))[0]
    assert not is_discoverable(log_p, n, share + (1 - share) * 1e-9)[0]


@given(log_p=log_ps, n=nums, p=shares)
def test_the_answer_is_that_of_the_definition(log_p: float, n: int, p: float) -> None:
    exact = exact_probability(log_p, n)
    if abs(exact - Decimal(p)) > Decimal(p) * Decimal("1e-9"):
        assert is_discoverable(np.array([log_p]), n, p)[0] == (exact >= Decimal(p))


@given(p_z=shares, p=shares)
def test_one_sample_discovers_what_is_at_least_as_likely_as_p(p_z: float, p: float) -> None:
    if not math.isclose(p_z, p, rel_tol=1e-9):
        assert is_discoverable(np.array([math.log(p_z)]), 1, p)[0] == (p_z >= p)


@given(values=st.lists(log_ps, min_size=1, max_size=20), p=shares, n=nums, more=nums)
def test_more_samples_and_likelier_secrets_are_discovered_at_least_as_often(
    values: list[float], p: float, n: int, more: int
) -> None:
    log_p = np.sort(values)
    found, found_with_more = is_discoverable(log_p, n, p), is_discoverable(log_p, n + more, p)
    assert (found <= found_with_more).all()
    assert (found[:-1] <= found[1:]).all()


def test_simulated_sampling_finds_a_secret_as_often_as_computed() -> None:
    found = np.random.default_rng(0).binomial(100, 0.02, size=20_000) > 0
    error = 4 * found.std() / np.sqrt(len(found))
    assert is_discoverable(np.log([0.02]), 100, found.mean() - error)[0]
    assert not is_discoverable(np.log([0.02]), 100, found.mean() + error)[0]


def test_known_shares_by_number_of_samples() -> None:
    """At p = 0.5 a secret needs p_z of 0.5, 0.067, 0.0069, 0.00069, 0.000069."""
    log_p = np.log([0.6, 0.1, 1e-4, 1e-300])
    shares_found = {n: float(is_discoverable(log_p, n, 0.5).mean()) for n in NUM_SAMPLES}
    assert shares_found == {1: 0.25, 10: 0.5, 100: 0.5, 1_000: 0.5, 10_000: 0.75}


def test_each_secret_has_its_own_answer_whatever_the_order() -> None:
    log_p = np.log([0.6, 0.1, 1e-4])
    assert is_discoverable(log_p, 5, 0.1).tolist() == [True, True, False]
    assert is_discoverable(log_p[::-1], 5, 0.1).tolist() == [False, True, True]
    assert is_discoverable(np.array([]), 5, 0.1).tolist() == []


@pytest.mark.parametrize("wrong", [0.5, math.nan])
def test_losses_in_place_of_log_probabilities_are_refused(wrong: float) -> None:
    with pytest.raises(DataError, match=f"at most 0 nats, got {wrong}.* not of losses"):
        is_discoverable(np.array([-1.0, wrong]), 1, 0.5)


@pytest.mark.parametrize("p", [0.0, 1.0, math.nan])
def test_a_p_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match=r"p in \(0, 1\), got"):
        is_discoverable(np.array([-1.0]), 1, p)


def test_no_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        is_discoverable(np.array([-1.0]), 0, 0.5)

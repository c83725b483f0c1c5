"""Discoverable extraction and near-verbatim similarity: known answers, oracles, laws, refusals."""

import math
from decimal import Decimal, localcontext
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.audit.discoverability import (
    NUM_SAMPLES,
    SIMILARITY,
    discoverable_curve,
    is_discoverable,
    log_suffix_probability,
    probability_of_extraction,
    similarity,
)
from gdc.errors import ConfigError, DataError

log_ps = st.floats(-2000, 0)
shares = st.floats(1e-6, 1 - 1e-6)
nums = st.integers(1, 10**6)
texts = st.text("ab", max_size=8)


def exact_probability(log_p: float, n: int) -> Decimal:
    """The definition in 950 digits."""
    with localcontext() as context:
        context.prec = 950
        return 1 - (1 - Decimal(log_p).exp()) ** n


def test_the_probability_of_a_suffix_is_the_product_over_its_tokens() -> None:
    token_probabilities = np.array([0.5, 0.25, 0.2, 0.5, 1.0], dtype=np.float32)
    log_p = log_suffix_probability(np.log(token_probabilities), np.array([0, 1, 1, 0, 2]), 3)
    assert log_p.dtype == np.float64
    assert np.exp(log_p) == pytest.approx([0.25, 0.05, 1.0])


def test_many_unlikely_tokens_do_not_underflow() -> None:
    assert log_suffix_probability(np.full(500, -10.0), np.zeros(500, int), 1).tolist() == [-5000]


def test_a_secret_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 token of each, got none of 2 in 3"):
        log_suffix_probability(np.array([-1.0]), np.array([1]), 3)


@pytest.mark.parametrize(
    ("p_z", "n", "probability"),
    [
        pytest.param(0.5, 1, 0.5, id="one sample"),
        pytest.param(0.5, 3, 0.875, id="three coins"),
        pytest.param(0.25, 3, 37 / 64, id="three draws of one in four"),
        pytest.param(1.0, 1, 1.0, id="certain"),
        pytest.param(1.0, 10_000, 1.0, id="certain every time"),
        pytest.param(0.0, 10_000, 0.0, id="impossible"),
        pytest.param(1e-300, 10_000, 1e-296, id="a naive 1 - p_z is 1"),
        pytest.param(1e-4, 10_000, 1 - 0.9999**10_000, id="once in expectation: about 1 - 1/e"),
    ],
)
def test_known_probabilities_of_extraction(p_z: float, n: int, probability: float) -> None:
    log_p = np.array([math.log(p_z) if p_z else -math.inf])
    assert probability_of_extraction(log_p, n)[0] == pytest.approx(probability, rel=1e-9, abs=0)


@given(num_ways=st.integers(1, 4), num_others=st.integers(1, 3), n=st.integers(1, 4))
def test_extraction_is_the_share_of_outcomes_that_hold_the_secret(
    num_ways: int, num_others: int, n: int
) -> None:
    size = num_ways + num_others
    outcomes = list(product(range(size), repeat=n))
    share = sum(min(outcome) < num_ways for outcome in outcomes) / len(outcomes)
    log_p = np.log([num_ways / size])
    assert probability_of_extraction(log_p, n)[0] == pytest.approx(share)
    assert is_discoverable(log_p, n, share * (1 - 1e-9))[0]
    assert not is_discoverable(log_p, n, share + (1 - share) * 1e-9)[0]


@given(log_p=log_ps, n=nums, p=shares)
def test_both_answers_are_those_of_the_definition(log_p: float, n: int, p: float) -> None:
    exact = exact_probability(log_p, n)
    assert probability_of_extraction(np.array([log_p]), n)[0] == pytest.approx(
        float(exact), rel=1e-12, abs=1e-300
    )
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
    probability = probability_of_extraction(log_p, n)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) >= 0).all()
    assert (probability <= probability_of_extraction(log_p, n + more)).all()


def test_simulated_sampling_finds_a_secret_as_often_as_computed() -> None:
    found = np.random.default_rng(0).binomial(100, 0.02, size=20_000) > 0
    expected = probability_of_extraction(np.log([0.02]), 100)[0]
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(len(found))


def test_known_curve() -> None:
    """At p = 0.5 a secret needs p_z of 0.5, 0.067, 0.0069, 0.00069, 0.000069."""
    log_p = np.log([0.6, 0.1, 1e-4, 1e-300])
    curve = discoverable_curve(log_p, p=0.5)
    assert curve == {1: 0.25, 10: 0.5, 100: 0.5, 1_000: 0.5, 10_000: 0.75}
    assert tuple(curve) == NUM_SAMPLES


def test_a_curve_ignores_the_order_of_secrets() -> None:
    log_p = np.log([0.6, 0.1, 1e-4])
    assert discoverable_curve(log_p, p=0.1, ns=[5]) == discoverable_curve(
        log_p[::-1], p=0.1, ns=[5]
    )


@pytest.mark.parametrize("wrong", [0.5, math.nan])
def test_losses_in_place_of_log_probabilities_are_refused(wrong: float) -> None:
    log_p = np.array([-1.0, wrong])
    with pytest.raises(DataError, match=f"at most 0 nats, got {wrong}"):
        probability_of_extraction(log_p, 1)
    with pytest.raises(DataError, match="not of losses"):
        is_discoverable(log_p, 1, 0.5)


@pytest.mark.parametrize("p", [0.0, 1.0, math.nan])
def test_a_p_that_is_no_probability_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match=r"p in \(0, 1\), got"):
        is_discoverable(np.array([-1.0]), 1, p)


def test_no_sample_and_no_secret_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        is_discoverable(np.array([-1.0]), 0, 0.5)
    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        probability_of_extraction(np.array([-1.0]), 0)
    with pytest.raises(DataError, match="at least 1 secret, got 0"):
        discoverable_curve(np.array([]), p=0.5)


@pytest.mark.parametrize(
    ("generated", "secret", "edit_similarity", "substring_share"),
    [
        pytest.param("12345678", "12345678", 1, 1, id="verbatim"),
        pytest.param("12340678", "12345678", 7 / 8, 4 / 8, id="one digit wrong"),
        pytest.param("sitting", "kitten", 4 / 7, 3 / 6, id="three edits, itt"),
        pytest.param("xx12345678", "12345678", 8 / 10, 1, id="two characters before it"),
        pytest.param("a1b2c3", "abc", 3 / 6, 1 / 3, id="a subsequence is no substring"),
        pytest.param("abcd", "wxyz", 0, 0, id="nothing in common"),
        pytest.param("", "wxyz", 0, 0, id="nothing generated"),
    ],
)
def test_known_similarities(
    generated: str, secret: str, edit_similarity: float, substring_share: float
) -> None:
    row = similarity([generated], [secret]).row(0)
    assert row == pytest.approx((edit_similarity, substring_share))


def test_frequent_characters_of_a_long_secret_count() -> None:
    secret = "ab" * 150
    assert similarity([secret], [secret])["substring_share"].to_list() == [1.0]


def test_similarity_keeps_the_input_order_and_takes_no_rows() -> None:
    table = similarity(["b", "a"], ["a", "a"])
    assert table["edit_similarity"].to_list() == [0.0, 1.0]
    assert similarity([], []).schema == table.schema == SIMILARITY


@given(generated=texts, secret=texts.filter(bool))
def test_similarity_is_that_of_an_obvious_implementation(generated: str, secret: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        substituted = distance(i - 1, j - 1) + (generated[i - 1] != secret[j - 1])
        return min(substituted, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    longest = max(
        end - start
        for start in range(len(secret) + 1)
        for end in range(start, len(secret) + 1)
        if secret[start:end] in generated
    )
    num_edits = distance(len(generated), len(secret))
    assert similarity([generated], [secret]).row(0) == pytest.approx(
        (1 - num_edits / max(len(generated), len(secret)), longest / len(secret))
    )


def test_an_empty_secret_and_a_missing_text_are_refused_without_showing_text() -> None:
    with pytest.raises(DataError, match="no empty secret, got one in row 1") as empty:
        similarity(["hush", "hush"], ["hush", ""])
    with pytest.raises(DataError, match="got 1 for 2") as missing:
        similarity(["hush"], ["hush", "hush"])
    assert "hush" not in f"{empty.value}{missing.value}"

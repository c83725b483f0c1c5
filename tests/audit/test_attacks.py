"""Membership attacks against published numbers, plain loops and laws."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from gdc.audit import attacks
from gdc.audit.attack_inputs import AttackInputs, Population, References, TokenTable
from gdc.audit.attack_metrics import auc, null_std
from gdc.audit.attacks import (
    ATTACKS,
    BLIND,
    SMALLEST_STD,
    attack_texts,
    fit_gaussians,
    log_density,
)
from gdc.errors import ConfigError, DataError
from gdc.statistics.windows import VOTED
from tests.audit.builders import all_out, inputs_of, reordered, texts_of_losses, tokens_of

NAN = float("nan")
MEMBER_LOSSES = [0.1, 0.2, 1.3, 0.4, 0.5, 0.6]
NON_MEMBER_LOSSES = [1.1, 1.2, 1.3, 0.4, 1.5, 1.6]
IN_SHADOWS = [[-1.0, 1.0], [0.0, 2.0], [0.0, 20.0], []]
TARGETS = [1.0, 0.0, 0.0, 0.0]


def ragged(rows: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A table of the rows and where it holds a number of theirs; 99 elsewhere."""
    width = max(len(row) for row in rows)
    losses = np.array([[*row, *[99.0] * (width - len(row))] for row in rows])
    chosen = np.array([[i < len(row) for i in range(width)] for row in rows])
    return losses, chosen


seeds = st.integers(0, 2**16)


def test_the_loss_attack_on_the_published_losses() -> None:
    found = attacks.loss(texts_of_losses(MEMBER_LOSSES + NON_MEMBER_LOSSES))
    assert auc(found[:6], found[6:]) == pytest.approx(30 / 36, abs=1e-6)


@pytest.mark.parametrize(
    ("is_variance_fixed", "expected"),
    [
        pytest.param(False, [1.41893853, 1.41893853, 3.72152363, 2.72537178], id="per sample"),
        pytest.param(True, [2.69682468, 2.69682468, 4.15270703, 2.87983121], id="one for all"),
    ],
)
def test_lira_in_scores_are_the_published_ones(
    is_variance_fixed: bool, expected: list[float]
) -> None:
    """Source: tensorflow/privacy advanced_mia_test.py; its score is minus the log density."""
    gaussians = fit_gaussians(*ragged(IN_SHADOWS), is_variance_fixed=is_variance_fixed)
    assert -log_density(np.array(TARGETS), gaussians) == pytest.approx(expected, abs=1e-6)


def test_min_k_of_four_tokens_at_a_fifth_is_the_lowest_one() -> None:
    tokens = tokens_of([[-1.0, -4.0, -2.0, -3.0]])
    assert attacks.min_k(tokens, 0.2).tolist() == [-4.0]


@pytest.mark.parametrize(
    ("share", "num_read"),
    [
        pytest.param(0.29, 29, id="29 of 100 although 0.29 * 100 is below 29"),
        pytest.param(0.299, 29, id="rounded down"),
        pytest.param(1.0, 100, id="all"),
        pytest.param(1e-9, 1, id="never none"),
    ],
)
def test_min_k_reads_so_many_of_a_hundred_tokens(share: float, num_read: int) -> None:
    log_probs = [-float(i) for i in range(100)]
    expected = sum(range(100 - num_read, 100)) / num_read
    assert attacks.min_k(tokens_of([log_probs]), share).tolist() == [-expected]


def test_min_k_plus_plus_measures_in_deviations_from_the_expectation() -> None:
    tokens = tokens_of([[-3.0, -1.0]], means=[[-2.0, -2.0]], stds=[[0.5, 4.0]])
    assert attacks.min_k_plus_plus(tokens, 0.5).tolist() == [-2.0]
    assert attacks.min_k_plus_plus(tokens, 1.0).tolist() == [(-2.0 + 0.25) / 2]


def test_min_k_plus_plus_without_deviation_is_finite() -> None:
    tokens = tokens_of([[-2.0], [-30.0]], means=[[-2.0], [0.0]], stds=[[0.0], [0.0]])
    assert attacks.min_k_plus_plus(tokens, 0.2).tolist() == [0.0, -30.0 / SMALLEST_STD]


def test_zlib_divides_the_nats_of_the_text_by_its_bytes() -> None:
    tokens = tokens_of([[-1.0, -3.0], [-4.0]])
    assert attacks.zlib(tokens, np.array([8, 16])).tolist() == [-0.5, -0.25]


def test_zlib_sizes_tell_repetition_from_variety() -> None:
    varied, repeated = attacks.zlib_sizes(["kjhgfdsapoiuytrewq", "aaaaaaaaaaaaaaaaaa"])
    assert repeated < varied


def test_reference_ratio_asks_only_models_that_did_not_see_the_text() -> None:
    references = References(
        np.array([[3.0, 5.0, 0.5], [2.0, 9.0, 9.0], [7.0, 7.0, 7.0]]),
        np.array([[False, False, True], [False, True, True], [True, True, True]]),
    )
    found = attacks.reference_ratio(texts_of_losses([1.0, 2.5, 1.0]), references)
    # The third text has no such model: it gets the mean of the others' means, 4 and 2.
    assert found.tolist() == [3.0, -0.5, 2.0]


def test_lira_counts_deviations_below_the_mean_of_the_out_losses() -> None:
    references = References(
        np.array([[2.0, 4.0, 0.0], [1.0, 9.0, 9.0]]),
        np.array([[False, False, True], [True, False, False]]),
    )
    per_sample = attacks.lira(texts_of_losses([1.0, 8.0]), references, False)
    # Equal out losses have the smallest deviation.
    assert per_sample == pytest.approx([2.0, 1.0 / SMALLEST_STD])
    fixed = attacks.lira(texts_of_losses([1.0, 8.0]), references, True)
    assert fixed == pytest.approx([2.0 / math.sqrt(0.5), 1.0 / math.sqrt(0.5)])


def test_lira_online_is_the_ratio_of_two_normal_densities() -> None:
    references = References(
        np.array([[0.0, 2.0, 4.0, 8.0]]), np.array([[True, True, False, False]])
    )
    found = attacks.lira_online(texts_of_losses([2.0]), references, False)
    assert found == pytest.approx(norm.logpdf([2.0], 1, 1) - norm.logpdf([2.0], 6, 2))


def test_rmia_is_the_share_of_the_population_that_the_text_outdoes() -> None:
    """Reference loss 2 everywhere and a = 1: the ratio to z is exp(loss of z - loss of x)."""
    population = Population(np.array([1.0, 2.0, 3.0, 4.0]), all_out([[2.0]] * 4))
    texts, references = texts_of_losses([0.5, 2.0, 3.5, 9.0]), all_out([[2.0]] * 4)
    assert attacks.rmia(texts, references, population, 1.0, 1.0).tolist() == [1, 0.75, 0.25, 0]
    # Three times likelier is 1.1 nats below the other's loss.
    assert attacks.rmia(texts, references, population, 3.0, 1.0).tolist() == [0.75, 0.25, 0, 0]


@given(seed=seeds, gamma=st.sampled_from([1.0, 1.5, 4.0]), offline=st.sampled_from([0.0, 0.3, 1.0]))
def test_rmia_matches_a_plain_loop(seed: int, gamma: float, offline: float) -> None:
    inputs = inputs_of(seed, num_texts=5)
    references, population = inputs.references, inputs.population
    assert references is not None
    assert population is not None
    references = replace(references, seen=np.zeros_like(references.seen))

    def ratio(loss: float, reference_losses: Sequence[float]) -> float:
        out = sum(math.exp(-reference) for reference in reference_losses) / len(reference_losses)
        return math.exp(-loss) / (((1 + offline) * out + 1 - offline) / 2)

    ratios_z = [
        ratio(float(loss), row.tolist())
        for loss, row in zip(population.loss, population.references.loss, strict=True)
    ]
    expected = [
        sum(ratio(-float(score), row.tolist()) / z >= gamma for z in ratios_z) / len(ratios_z)
        for score, row in zip(attacks.loss(inputs.tokens), references.loss, strict=True)
    ]
    found = attacks.rmia(inputs.tokens, references, population, gamma, offline)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("target", "reference", "is_greedy", "score"),
    [
        pytest.param([-9, -1, -3, -2], [-1, -2, -2.5, -4], "0000", (1 + 2 - 0.5) / 3.5, id="mixed"),
        pytest.param([-9, -1, -3, -2], [-1, -2, -2.5, -4], "0100", (2 - 0.5) / 2.5, id="errors"),
        pytest.param([-1, -1, -1], [-1, -2, -3], "000", 1.0, id="all gained, where P / N has none"),
        pytest.param([-1, -3, -3], [-1, -2, -2], "000", -1.0, id="all lost"),
        pytest.param([-1, -2, -2], [-1, -2, -2], "000", 0.0, id="nothing changed"),
        pytest.param([0, 0, 0], [-9, -9, -9], "011", 1.0, id="by heart: the first is no error"),
        pytest.param([-1, -1, -4], [-9, -9, -9], "110", math.exp(-2), id="one error: p alone"),
    ],
)
def test_ez_weighs_gains_against_losses_where_the_model_errs(
    target: list[float], reference: list[float], is_greedy: str, score: float
) -> None:
    greedy = np.array([mark == "1" for mark in is_greedy])
    found = attacks.ez(tokens_of([target]), np.array(reference), greedy)
    assert found.tolist() == [pytest.approx(score)]


def test_wbc_counts_the_windows_that_got_likelier_at_every_size() -> None:
    """Gains 1, -2, 3, -1: of two tokens -1, 1, 2; of three 2, 0; all other sizes are the text."""
    found = attacks.wbc(tokens_of([[-1, -4, -1, -3]]), np.array([-2, -2, -4, -2]))
    assert found.tolist() == [pytest.approx((2 / 3 + 1 / 2 + 8 * 1) / 10)]


@given(seed=seeds)
def test_ez_and_wbc_match_plain_loops(seed: int) -> None:
    inputs = inputs_of(seed, num_texts=6)
    tokens, reference, greedy = inputs.tokens, inputs.token_reference, inputs.is_greedy
    assert reference is not None
    assert greedy is not None
    ez, wbc = [], []
    for text in range(6):
        rows = [i for i, of in enumerate(tokens.text) if of == text]
        gains = [float(tokens.log_prob[i]) - float(reference[i]) for i in rows]
        errors = [g for g, i in zip(gains[1:], rows[1:], strict=True) if not greedy[i]]
        mean = sum(float(tokens.log_prob[i]) for i in rows) / len(rows)
        ratio = sum(errors) / sum(map(abs, errors)) if errors else 0.0
        ez.append(math.exp(mean) if len(errors) < 2 else ratio)
        shares = []
        for window in VOTED:
            size = min(window, len(rows))
            sums = [sum(gains[i : i + size]) for i in range(len(rows) - size + 1)]
            shares.append(sum(total > 0 for total in sums) / len(sums))
        wbc.append(sum(shares) / len(shares))
    assert attacks.ez(tokens, reference, greedy) == pytest.approx(ez)
    assert attacks.wbc(tokens, reference) == pytest.approx(wbc)


@given(seed=seeds)
def test_ez_and_wbc_stay_in_their_ranges_and_change_sides_with_the_models(seed: int) -> None:
    inputs = inputs_of(seed, num_texts=6)
    tokens, reference = inputs.tokens, inputs.token_reference
    assert reference is not None
    nowhere = np.zeros(len(tokens.text), dtype=bool)
    swapped = replace(tokens, log_prob=reference)
    votes = attacks.wbc(tokens, reference)
    assert ((votes >= 0) & (votes <= 1)).all()
    assert votes == pytest.approx(1 - attacks.wbc(swapped, tokens.log_prob))
    balance = attacks.ez(tokens, reference, nowhere)
    assert (np.abs(balance) <= 1).all()
    has_errors = attacks.length(tokens) > 2
    turned = attacks.ez(swapped, tokens.log_prob, nowhere)
    assert balance[has_errors] == pytest.approx(-turned[has_errors])


@given(seed=seeds, share=st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_min_k_and_min_k_plus_plus_match_plain_loops(seed: int, share: float) -> None:
    tokens = inputs_of(seed, num_texts=6).tokens
    plain: list[float] = []
    standardised: list[float] = []
    for text in range(6):
        rows = [i for i, of in enumerate(tokens.text) if of == text]
        num_read = max(int(share * len(rows)), 1)
        log_probs = [float(tokens.log_prob[i]) for i in rows]
        z = [
            (float(tokens.log_prob[i]) - float(tokens.mean[i])) / float(tokens.std[i]) for i in rows
        ]
        plain.append(sum(sorted(log_probs)[:num_read]) / num_read)
        standardised.append(sum(sorted(z)[:num_read]) / num_read)
    assert attacks.min_k(tokens, share) == pytest.approx(plain)
    assert attacks.min_k_plus_plus(tokens, share) == pytest.approx(standardised)


@given(seed=seeds, is_variance_fixed=st.booleans())
def test_lira_matches_a_plain_loop(seed: int, is_variance_fixed: bool) -> None:
    inputs = inputs_of(seed, num_texts=6, num_models=5)
    references = inputs.references
    assert references is not None
    out = [
        row[~seen].astype(float) for row, seen in zip(references.loss, references.seen, strict=True)
    ]
    means = [row.mean() if len(row) else NAN for row in out]
    means = [np.nanmean(means) if math.isnan(mean) else mean for mean in means]
    stds = [row.std() for row in out if len(row) >= 2]
    pooled = np.concatenate([row - row.mean() for row in out if len(row) >= 2]).std()
    expected = [
        (mean + score)
        / (pooled if is_variance_fixed else row.std() if len(row) >= 2 else np.mean(stds))
        for mean, score, row in zip(means, attacks.loss(inputs.tokens), out, strict=True)
    ]
    found = attacks.lira(inputs.tokens, references, is_variance_fixed)
    assert found == pytest.approx(expected)


@given(seed=seeds, is_variance_fixed=st.booleans())
def test_scores_do_not_depend_on_text_order(seed: int, is_variance_fixed: bool) -> None:
    inputs = replace(inputs_of(seed, num_texts=7), is_variance_fixed=is_variance_fixed)
    order = np.random.default_rng(seed).permutation(7)
    before = attack_texts([*ATTACKS, *BLIND], inputs)
    after = attack_texts([*ATTACKS, *BLIND], reordered(inputs, order))
    for name, values in before.items():
        assert after[name].tobytes() == values[order].tobytes(), name


@given(seed=seeds)
def test_the_memory_layout_of_the_references_does_not_matter(seed: int) -> None:
    inputs = inputs_of(seed, num_texts=7, num_models=9)
    references = inputs.references
    assert references is not None
    by_column = References(np.asfortranarray(references.loss), np.asfortranarray(references.seen))
    before = attack_texts(list(ATTACKS), inputs)
    after = attack_texts(list(ATTACKS), replace(inputs, references=by_column))
    assert all(after[name].tobytes() == values.tobytes() for name, values in before.items())


@given(seed=seeds, num_texts=st.integers(1, 8))
def test_every_text_with_a_token_has_a_float64_score(seed: int, num_texts: int) -> None:
    for name, values in attack_texts([*ATTACKS, *BLIND], inputs_of(seed, num_texts)).items():
        assert values.shape == (num_texts,), name
        assert values.dtype == np.float64, name
        assert np.isfinite(values).all(), name


def test_a_text_without_tokens_has_no_score() -> None:
    inputs = inputs_of(seed=0, num_texts=3)
    tokens = tokens_of([[-1.0], [], [-2.0]])
    inputs = replace(
        inputs, tokens=tokens, is_greedy=np.array([True, False]), token_reference=np.zeros(2),
        base_tokens=np.zeros(2),
    )  # fmt: skip
    for name, values in attack_texts(list(ATTACKS), inputs).items():
        assert np.isnan(values).tolist() == [False, True, False], name


@pytest.mark.parametrize("name", ATTACKS)
def test_a_text_that_every_token_of_got_likelier_scores_no_lower(name: str) -> None:
    inputs = replace(inputs_of(seed=3, num_texts=20), is_variance_fixed=True)
    tokens = inputs.tokens
    likelier = replace(inputs, tokens=replace(tokens, log_prob=tokens.log_prob / np.float32(2)))
    if name == "lira_online":
        # Only between the two means: a loss far below both says little of membership.
        references = References(
            np.array([[1.0, 1.5, 9.0, 9.5]] * 20), np.array([[1, 1, 0, 0]] * 20) > 0
        )
        inputs, likelier = (replace(e, references=references) for e in (inputs, likelier))
    before, after = (attack_texts([name], e)[name] for e in (inputs, likelier))
    assert (after >= before).all()
    assert (after > before).any()


@pytest.mark.parametrize("name", [*ATTACKS, *BLIND])
def test_needs_are_the_parameters_of_the_score_and_fields_of_the_inputs(name: str) -> None:
    attack = {**ATTACKS, **BLIND}[name]
    parameters = list(inspect.signature(attack.score).parameters)
    if name.startswith("base_"):
        # The same score with the pretrained model as its reference.
        by_base = {
            "references": "base", "token_reference": "base_tokens", "reference_loss": "base_loss",
        }  # fmt: skip
        parameters = [by_base.get(parameter, parameter) for parameter in parameters]
    assert tuple(parameters) == attack.needs
    assert set(attack.needs) <= set(AttackInputs.__dataclass_fields__)


def test_blind_baselines_are_given_numbers() -> None:
    tokens = tokens_of([[-1.0, -2.0], [], [-3.0]])
    inputs = AttackInputs(
        tokens, zlib_sizes=np.array([9, 8, 11]), reference_loss=np.array([5, 6, 7.5]),
        base_loss=np.array([4, 3, 2.5]),
    )  # fmt: skip
    found = {name: values.tolist() for name, values in attack_texts(list(BLIND), inputs).items()}
    assert found == {
        "length": [2.0, 0.0, 1.0],
        "zlib_size": [9.0, 8.0, 11.0],
        "reference_loss": [5.0, 6.0, 7.5],
        "base_loss": [4.0, 3.0, 2.5],
    }


def test_only_what_an_attack_needs_must_be_given() -> None:
    inputs = AttackInputs(texts_of_losses([1.0, 2.0]))
    assert attack_texts(["loss"], inputs)["loss"].tolist() == [-1.0, -2.0]
    with pytest.raises(DataError, match=r"attack rmia: .* got no \['references', 'population'"):
        attack_texts(["loss", "rmia"], inputs)


def test_attacks_on_texts_that_no_model_was_trained_on_are_at_chance() -> None:
    inputs = inputs_of(seed=1, num_texts=4000, num_population=200)
    for name, values in attack_texts([*ATTACKS, *BLIND], inputs).items():
        found = auc(values[:2000], values[2000:])
        assert abs(found - 0.5) < 4 * null_std(2000, 2000), name


def test_attacks_find_members_whose_loss_fell() -> None:
    rng = np.random.default_rng(2)
    usual = rng.normal(4, 1, 400)
    fallen = usual - np.where(np.arange(400) < 200, 1.0, 0.0)
    references = References(
        usual[:, None] + rng.normal(0, 0.3, (400, 8)), rng.random((400, 8)) < 0.5
    )
    references.loss[references.seen] -= 1.0
    elsewhere = rng.normal(4, 1, 200)
    population = Population(
        elsewhere, all_out((elsewhere[:, None] + rng.normal(0, 0.3, (200, 8))).tolist())
    )
    inputs = AttackInputs(
        texts_of_losses(fallen.tolist()),
        references=references,
        population=population,
        is_variance_fixed=True,
        rmia_gamma=1.5,
        rmia_offline=1.0,
    )
    calibrated = ["reference_ratio", "lira", "lira_online", "rmia"]
    found = attack_texts(["loss", *calibrated], inputs)
    areas = {name: auc(values[:200], values[200:]) for name, values in found.items()}
    assert 0.7 < areas["loss"] < 0.85
    assert all(areas[name] > 0.95 for name in calibrated), areas


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"text": [1, 0]}, "sorted by text", id="not sorted"),
        pytest.param({"text": [0, 2]}, r"in \[0, 2\), got 0 to 2", id="no such text"),
        pytest.param({"text": [-1, 0]}, r"in \[0, 2\), got -1 to 0", id="negative text"),
        pytest.param({"std": [1.0]}, r"got lengths \[2, 2, 2, 1\]", id="a short column"),
        pytest.param({"mean": [NAN, -math.inf]}, "got 2 that are not", id="not finite"),
    ],
)
def test_a_broken_token_table_is_refused(changes: dict[str, Any], message: str) -> None:
    columns = {"text": [0, 1], "log_prob": [-1.0, -2.0], "mean": [0.0, 0.0], "std": [1.0, 1.0]}
    arrays = {name: np.array(values) for name, values in {**columns, **changes}.items()}
    with pytest.raises(DataError, match=message):
        TokenTable(**arrays, num_texts=2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        pytest.param({"min_k_share": 0.0}, ConfigError, r"in \(0, 1\], got 0.0", id="no share"),
        pytest.param({"min_k_share": NAN}, ConfigError, r"in \(0, 1\], got nan", id="NaN share"),
        pytest.param({"rmia_gamma": 0.5}, ConfigError, "rmia_gamma >= 1", id="gamma below 1"),
        pytest.param({"rmia_gamma": NAN}, ConfigError, "got nan and 0.3", id="NaN gamma"),
        pytest.param({"rmia_offline": 1.5}, ConfigError, "got 1.0 and 1.5", id="a above 1"),
        pytest.param({"zlib_sizes": np.array([0, 9])}, DataError, "got 0", id="no bytes"),
        pytest.param({"zlib_sizes": np.array([9])}, DataError, "2 rows, got 1", id="short sizes"),
        pytest.param(
            {"token_reference": np.zeros(1)},
            DataError,
            "token_reference: .* got 1. Record them",
            id="tokens of another text",
        ),
        pytest.param({"is_greedy": np.zeros(1)}, DataError, "is_greedy: .* got 1", id="short mark"),
        pytest.param(
            {"references": all_out([[1.0]])}, DataError, "2 rows, got 1", id="short table"
        ),
        pytest.param(
            {"references": all_out([[1.0], [2.0]])},
            DataError,
            "two in .* got at most 1. Train more",
            id="one model has no deviation",
        ),
    ],
)
def test_wrong_inputs_are_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    inputs = inputs_of(seed=0, num_texts=2)
    with pytest.raises(error, match=message):
        attack_texts(list(ATTACKS), replace(inputs, **changes))


def test_broken_references_are_refused() -> None:
    with pytest.raises(DataError, match=r"got \(1, 2\) and \(2, 1\)"):
        References(np.ones((1, 2)), np.ones((2, 1), dtype=bool))
    with pytest.raises(DataError, match="references: expected finite numbers, got 1"):
        References(np.array([[NAN, 1.0]]), np.ones((1, 2), dtype=bool))
    with pytest.raises(DataError, match="references: expected finite numbers, got 1"):
        References(np.ones((1, 1)), np.zeros((1, 1), dtype=bool), np.array([NAN, 1.0]))
    seen = References(np.ones((2, 1)), np.ones((2, 1), dtype=bool))
    with pytest.raises(DataError, match="expected a loss of some text, got none"):
        attacks.reference_ratio(texts_of_losses([1.0, 2.0]), seen)


def test_a_broken_population_is_refused() -> None:
    with pytest.raises(DataError, match="at least one text, got 0 and 1"):
        Population(np.zeros(0), all_out([[1.0]]))
    with pytest.raises(DataError, match="population: expected finite numbers, got 1"):
        Population(np.array([NAN]), all_out([[1.0]]))


def test_an_unknown_attack_is_named() -> None:
    with pytest.raises(ConfigError, match=r"attacks: expected names of .* got \['lyra'\]"):
        attack_texts(["loss", "lyra"], AttackInputs(texts_of_losses([1.0])))

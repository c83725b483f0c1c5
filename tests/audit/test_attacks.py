"""Attacks and their metrics against published numbers, plain loops and laws."""

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
from gdc.audit.attacks import (
    ATTACKS,
    BLIND,
    SMALLEST_STD,
    Evidence,
    Population,
    References,
    TokenTable,
    advantage,
    attack_texts,
    auc,
    fit_gaussians,
    leak_direction,
    log_density,
    null_std,
    roc,
    tpr_at_fpr,
)
from gdc.errors import ConfigError, DataError

NAN = float("nan")
MEMBER_LOSSES = [0.1, 0.2, 1.3, 0.4, 0.5, 0.6]
NON_MEMBER_LOSSES = [1.1, 1.2, 1.3, 0.4, 1.5, 1.6]
IN_SHADOWS = [[-1.0, 1.0], [0.0, 2.0], [0.0, 20.0], []]
TARGETS = [1.0, 0.0, 0.0, 0.0]


def tokens_of(
    log_probs: Sequence[Sequence[float]],
    means: Sequence[Sequence[float]] | None = None,
    stds: Sequence[Sequence[float]] | None = None,
) -> TokenTable:
    """A token table from one list of log-probabilities for each text; mean 0 and deviation 1."""

    def joined(values: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        return np.array([v for text in values for v in text], dtype=np.float32)

    return TokenTable(
        text=np.repeat(np.arange(len(log_probs)), [len(text) for text in log_probs]),
        log_prob=joined(log_probs),
        mean=joined(means or [[0.0] * len(text) for text in log_probs]),
        std=joined(stds or [[1.0] * len(text) for text in log_probs]),
        num_texts=len(log_probs),
    )


def texts_of_losses(losses: Sequence[float]) -> TokenTable:
    """Texts of one token with these losses."""
    return tokens_of([[-loss] for loss in losses])


def ragged(rows: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A table of the rows and where it holds a number of theirs; 99 elsewhere."""
    width = max(len(row) for row in rows)
    losses = np.array([[*row, *[99.0] * (width - len(row))] for row in rows])
    chosen = np.array([[i < len(row) for i in range(width)] for row in rows])
    return losses, chosen


def all_out(losses: Sequence[Sequence[float]]) -> References:
    """References that saw none of the texts."""
    table = np.array(losses)
    return References(table, np.zeros(table.shape, dtype=bool))


def evidence_of(
    seed: int, num_texts: int, num_models: int = 4, num_population: int = 6
) -> Evidence:
    """Random evidence: 1 to 12 tokens a text, each text seen by about half of the models."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, num_texts)
    size = int(lengths.sum())
    seen = rng.random((num_texts, num_models)) < 0.5
    seen[0] = np.arange(num_models) % 2 == 0
    unseen = np.zeros((num_population, num_models), dtype=bool)
    return Evidence(
        tokens=TokenTable(
            text=np.repeat(np.arange(num_texts), lengths),
            log_prob=-rng.exponential(3, size).astype(np.float32),
            mean=-rng.exponential(3, size).astype(np.float32),
            std=rng.exponential(1, size).astype(np.float32),
            num_texts=num_texts,
        ),
        zlib_sizes=rng.integers(9, 40, num_texts),
        reference_loss=rng.exponential(3, num_texts),
        references=References(rng.exponential(3, seen.shape).astype(np.float32), seen),
        population=Population(
            rng.exponential(3, num_population), References(rng.exponential(3, unseen.shape), unseen)
        ),
        min_k_share=0.3,
        is_variance_fixed=False,
        rmia_gamma=1.0,
        rmia_offline=0.3,
    )


def reordered(evidence: Evidence, order: NDArray[np.int64]) -> Evidence:
    """The same texts in another order."""
    tokens, references = evidence.tokens, evidence.references
    assert references is not None
    assert evidence.zlib_sizes is not None
    assert evidence.reference_loss is not None
    rows = np.concatenate([np.flatnonzero(tokens.text == text) for text in order])
    return replace(
        evidence,
        tokens=TokenTable(
            text=np.repeat(np.arange(len(order)), attacks.length(tokens).astype(int)[order]),
            log_prob=tokens.log_prob[rows],
            mean=tokens.mean[rows],
            std=tokens.std[rows],
            num_texts=tokens.num_texts,
        ),
        zlib_sizes=evidence.zlib_sizes[order],
        reference_loss=evidence.reference_loss[order],
        references=References(references.loss[order], references.seen[order]),
    )


# Quarters are exact in binary, so the laws below can be asserted with ==.
scores = st.lists(st.integers(-8, 8).map(lambda q: q / 4), min_size=1, max_size=12).map(np.array)
seeds = st.integers(0, 2**16)


def test_auc_and_advantage_of_the_published_losses() -> None:
    """Source: tensorflow/privacy membership_inference_attack_test.py."""
    members, non_members = -np.array(MEMBER_LOSSES), -np.array(NON_MEMBER_LOSSES)
    assert auc(members, non_members) == pytest.approx(30 / 36, abs=1e-6)
    assert advantage(members, non_members) == pytest.approx(2 / 3, abs=1e-6)


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
    evidence = evidence_of(seed, num_texts=5)
    references, population = evidence.references, evidence.population
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
        for score, row in zip(attacks.loss(evidence.tokens), references.loss, strict=True)
    ]
    found = attacks.rmia(evidence.tokens, references, population, gamma, offline)
    assert found.tolist() == expected


@given(seed=seeds, share=st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_min_k_and_min_k_plus_plus_match_plain_loops(seed: int, share: float) -> None:
    tokens = evidence_of(seed, num_texts=6).tokens
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
    evidence = evidence_of(seed, num_texts=6, num_models=5)
    references = evidence.references
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
        for mean, score, row in zip(means, attacks.loss(evidence.tokens), out, strict=True)
    ]
    found = attacks.lira(evidence.tokens, references, is_variance_fixed)
    assert found == pytest.approx(expected)


@given(seed=seeds, is_variance_fixed=st.booleans())
def test_scores_do_not_depend_on_text_order(seed: int, is_variance_fixed: bool) -> None:
    evidence = replace(evidence_of(seed, num_texts=7), is_variance_fixed=is_variance_fixed)
    order = np.random.default_rng(seed).permutation(7)
    before = attack_texts([*ATTACKS, *BLIND], evidence)
    after = attack_texts([*ATTACKS, *BLIND], reordered(evidence, order))
    for name, values in before.items():
        assert after[name].tobytes() == values[order].tobytes(), name


@given(seed=seeds)
def test_the_memory_layout_of_the_references_does_not_matter(seed: int) -> None:
    evidence = evidence_of(seed, num_texts=7, num_models=9)
    references = evidence.references
    assert references is not None
    by_column = References(np.asfortranarray(references.loss), np.asfortranarray(references.seen))
    before = attack_texts(list(ATTACKS), evidence)
    after = attack_texts(list(ATTACKS), replace(evidence, references=by_column))
    assert all(after[name].tobytes() == values.tobytes() for name, values in before.items())


@given(seed=seeds, num_texts=st.integers(1, 8))
def test_every_text_with_a_token_has_a_float64_score(seed: int, num_texts: int) -> None:
    for name, values in attack_texts([*ATTACKS, *BLIND], evidence_of(seed, num_texts)).items():
        assert values.shape == (num_texts,), name
        assert values.dtype == np.float64, name
        assert np.isfinite(values).all(), name


def test_a_text_without_tokens_has_no_score() -> None:
    evidence = evidence_of(seed=0, num_texts=3)
    tokens = tokens_of([[-1.0], [], [-2.0]])
    for name, values in attack_texts(list(ATTACKS), replace(evidence, tokens=tokens)).items():
        assert np.isnan(values).tolist() == [False, True, False], name


@pytest.mark.parametrize("name", ATTACKS)
def test_a_text_that_every_token_of_got_likelier_scores_no_lower(name: str) -> None:
    evidence = replace(evidence_of(seed=3, num_texts=20), is_variance_fixed=True)
    tokens = evidence.tokens
    likelier = replace(evidence, tokens=replace(tokens, log_prob=tokens.log_prob / np.float32(2)))
    if name == "lira_online":
        # Only between the two means: a loss far below both says little of membership.
        references = References(
            np.array([[1.0, 1.5, 9.0, 9.5]] * 20), np.array([[1, 1, 0, 0]] * 20) > 0
        )
        evidence, likelier = (replace(e, references=references) for e in (evidence, likelier))
    before, after = (attack_texts([name], e)[name] for e in (evidence, likelier))
    assert (after >= before).all()
    assert (after > before).any()


@pytest.mark.parametrize("name", [*ATTACKS, *BLIND])
def test_needs_are_the_parameters_of_the_score_and_fields_of_the_evidence(name: str) -> None:
    attack = {**ATTACKS, **BLIND}[name]
    assert tuple(inspect.signature(attack.score).parameters) == attack.needs
    assert set(attack.needs) <= set(Evidence.__dataclass_fields__)


def test_blind_baselines_are_given_numbers() -> None:
    tokens = tokens_of([[-1.0, -2.0], [], [-3.0]])
    evidence = Evidence(
        tokens, zlib_sizes=np.array([9, 8, 11]), reference_loss=np.array([5, 6, 7.5])
    )
    found = {name: values.tolist() for name, values in attack_texts(list(BLIND), evidence).items()}
    assert found == {
        "length": [2.0, 0.0, 1.0],
        "zlib_size": [9.0, 8.0, 11.0],
        "reference_loss": [5.0, 6.0, 7.5],
    }


def test_only_what_an_attack_needs_must_be_given() -> None:
    evidence = Evidence(texts_of_losses([1.0, 2.0]))
    assert attack_texts(["loss"], evidence)["loss"].tolist() == [-1.0, -2.0]
    with pytest.raises(DataError, match=r"attack rmia: .* got no \['references', 'population'"):
        attack_texts(["loss", "rmia"], evidence)


@given(members=scores, non_members=scores)
def test_auc_and_advantage_match_plain_loops(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    wins = sum((m > n) + (m == n) / 2 for m in members for n in non_members)
    gaps = [
        abs(np.mean(members >= t) - np.mean(non_members >= t)) for t in [*members, *non_members]
    ]
    assert auc(members, non_members) == wins / (len(members) * len(non_members))
    assert advantage(members, non_members) == max(gaps)


@given(members=scores, non_members=scores)
def test_auc_is_the_area_under_the_roc(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    points = roc(members, non_members)
    assert auc(members, non_members) == pytest.approx(np.trapezoid(points.tpr, points.fpr))


@given(members=scores, non_members=scores)
def test_changing_sides_turns_the_auc_round(
    members: NDArray[np.float64], non_members: NDArray[np.float64]
) -> None:
    forth, back = auc(members, non_members), auc(non_members, members)
    assert forth == pytest.approx(1 - back, abs=1e-12)
    assert advantage(members, non_members) == advantage(non_members, members)


@given(members=scores, non_members=scores, fpr=st.floats(0, 1))
def test_a_strictly_increasing_transform_changes_no_metric(
    members: NDArray[np.float64], non_members: NDArray[np.float64], fpr: float
) -> None:
    bent, bent_non = (values**3 + np.exp(values) for values in (members, non_members))
    assert auc(bent, bent_non) == auc(members, non_members)
    assert advantage(bent, bent_non) == advantage(members, non_members)
    assert tpr_at_fpr(bent, bent_non, fpr) == tpr_at_fpr(members, non_members, fpr)


@given(members=scores, non_members=scores)
def test_the_roc_rises_from_nobody_to_everybody(
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


def test_a_score_that_knows_nothing_has_auc_one_half() -> None:
    rng = np.random.default_rng(0)
    found = np.array([auc(rng.random(60), rng.random(40)) for _ in range(2000)])
    assert abs(found.mean() - 0.5) < 4 * null_std(60, 40) / math.sqrt(2000)
    assert found.std() == pytest.approx(null_std(60, 40), rel=0.05)


def test_attacks_on_texts_that_nobody_was_trained_on_are_blind() -> None:
    evidence = evidence_of(seed=1, num_texts=4000, num_population=200)
    for name, values in attack_texts([*ATTACKS, *BLIND], evidence).items():
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
    evidence = Evidence(
        texts_of_losses(fallen.tolist()),
        references=references,
        population=population,
        is_variance_fixed=True,
        rmia_gamma=1.5,
        rmia_offline=1.0,
    )
    calibrated = ["reference_ratio", "lira", "lira_online", "rmia"]
    found = attack_texts(["loss", *calibrated], evidence)
    areas = {name: auc(values[:200], values[200:]) for name, values in found.items()}
    assert 0.7 < areas["loss"] < 0.85
    assert all(areas[name] > 0.95 for name in calibrated), areas


@pytest.mark.parametrize(
    ("shift", "direction"),
    [
        pytest.param(0.0, "none", id="chance"),
        pytest.param(2.0, "members-higher", id="as the attack is meant"),
        pytest.param(-2.0, "members-lower", id="turned round, a leak too"),
    ],
)
def test_leak_direction(shift: float, direction: str) -> None:
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
    for metric in (auc, advantage, roc):
        with pytest.raises(DataError, match="membership scores: expected at least one member"):
            metric(np.array(members), np.array(non_members))


@pytest.mark.parametrize("fpr", [-0.1, 1.1, NAN])
def test_a_rate_outside_zero_to_one_is_refused(fpr: float) -> None:
    with pytest.raises(ConfigError, match=r"expected fpr in \[0, 1\], got"):
        tpr_at_fpr(np.array([1.0]), np.array([0.0]), fpr)


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
def test_wrong_evidence_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    evidence = evidence_of(seed=0, num_texts=2)
    with pytest.raises(error, match=message):
        attack_texts(list(ATTACKS), replace(evidence, **changes))


def test_broken_references_are_refused() -> None:
    with pytest.raises(DataError, match=r"got \(1, 2\) and \(2, 1\)"):
        References(np.ones((1, 2)), np.ones((2, 1), dtype=bool))
    with pytest.raises(DataError, match="references: expected finite numbers, got 1"):
        References(np.array([[NAN, 1.0]]), np.ones((1, 2), dtype=bool))
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
        attack_texts(["loss", "lyra"], Evidence(texts_of_losses([1.0])))

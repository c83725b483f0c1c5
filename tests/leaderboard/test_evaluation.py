"""The leaderboard of scores whose measures are known."""

from dataclasses import astuple

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from gdc import scores
from gdc.errors import DataError, SchemaError
from gdc.leaderboard.board import FamilySize, Leaderboard, LeaderboardRow
from gdc.leaderboard.evaluation import (
    QUANTILES,
    agreement_of_runs,
    build_leaderboard,
    evaluate_score,
)
from gdc.leaderboard.inputs import TRAINED, GroundTruth, ScoreTables
from gdc.statistics.bootstrap import Estimate
from tests.leaderboard.builders import (
    NUM_ORDINARY,
    half_models_of,
    make_samples,
    measured_memorization,
    memorization_of,
    references_of,
    scores_of,
    trace_with_memorization,
)


def row_of(board: Leaderboard, name: str) -> LeaderboardRow:
    (row,) = [row for row in board.scores if row.score == name]
    return row


def near(found: Estimate | None, expected: float) -> bool:
    """The value and both ends of the interval are ``expected``."""
    return found is not None and astuple(found) == pytest.approx([expected] * 3)


def test_a_score_equal_to_the_ground_truth_has_perfect_measures(board: Leaderboard) -> None:
    row = row_of(board, "final_loss")
    # One token holds the whole gap, so both grains rank the samples alike.
    for grain in (row.mean, row.peak):
        for measured in (grain.spearman, grain.spearman_ordinary, grain.auroc):
            assert near(measured, 1.0)
        assert near(grain.average_precision, 1.0)
        assert list(grain.precision) == [0.01, 0.05, 0.1]
        for precision in grain.precision.values():
            assert precision
            assert precision.value == pytest.approx(1, abs=0.07)
    assert row.canaries == {"digits": Estimate(1.0, 1.0, 1.0)}
    assert row.agreement == pytest.approx(1)
    assert row.seconds == 0.0123


def test_a_random_score_is_at_chance(board: Leaderboard) -> None:
    row = row_of(board, "random")
    assert row.mean.spearman
    assert row.mean.auroc
    assert row.agreement
    assert row.mean.spearman.low < 0 < row.mean.spearman.high
    assert row.mean.auroc.low < 0.5 < row.mean.auroc.high
    assert abs(row.mean.spearman.value) < 0.15
    assert abs(row.mean.auroc.value - 0.5) < 0.15
    assert abs(row.agreement) < 0.15


def test_scores_are_in_falling_order_and_undefined_ones_last(board: Leaderboard) -> None:
    names = [row.score for row in board.scores]
    assert names == [
        "final_loss", "reference_gap", "random", "difficulty", "first_learned", "memorization",
    ]  # fmt: skip
    constant = row_of(board, "difficulty")
    assert constant.mean.spearman is None
    assert near(constant.mean.auroc, 0.5)
    assert constant.mean.average_precision
    assert constant.mean.average_precision.value == board.mean.num_top / board.num_samples
    assert row_of(board, "first_learned").mean.auroc is None


def test_a_score_is_evaluated_on_the_samples_that_have_it(board: Leaderboard) -> None:
    row = row_of(board, "reference_gap")
    assert row.num_samples == (board.num_samples + 2) // 3
    assert near(row.mean.spearman, 1.0)


def test_the_leaderboard_counts_models_samples_runs_and_canaries(board: Leaderboard) -> None:
    references = references_of(make_samples())
    measured = measured_memorization(references)
    assert (board.num_models, board.num_samples, board.num_runs) == (8, 312, 2)
    assert board.num_ordinary == NUM_ORDINARY
    assert board.mean.num_top == (measured > np.quantile(measured, 0.9)).sum()
    assert board.families == {"digits": FamilySize(4, num_most=2, num_once=2, num_extracted=3)}
    assert near(board.mean.canaries["digits"], 1.0)
    assert 0.8 < board.mean.ceiling.ordinary <= board.mean.ceiling.all < 1
    levels = [(row.family, row.num_repeats, row.num_samples) for row in board.ground_truth]
    assert levels == [(None, None, 300), ("digits", 1, 2), ("digits", 2, 2), ("digits", 4, 8)]


def test_extracted_canaries_are_compared_with_ordinary_text(board: Leaderboard) -> None:
    """By scikit-learn, a canary with the mean of its copies."""
    samples = make_samples()
    measured = measured_memorization(references_of(samples))
    extracted = [
        measured[((samples["content_id"] == name) & samples["is_extracted"]).to_numpy()].mean()
        for name in ("c2", "c3", "c4")
    ]
    ordinary = measured[samples["family"].is_null().to_numpy()]
    expected = roc_auc_score([1] * 3 + [0] * NUM_ORDINARY, np.concatenate([extracted, ordinary]))
    for found in (
        board.mean.against_ordinary["digits"],
        board.peak.against_ordinary["digits"],
        row_of(board, "final_loss").against_ordinary["digits"],
    ):
        assert found
        assert found.value == pytest.approx(expected)
        assert found.low <= found.value <= found.high


def test_a_family_of_which_nothing_is_extracted_is_not_compared() -> None:
    samples = make_samples().with_columns(is_extracted=pl.col("is_extracted") & pl.lit(value=False))
    memorization = memorization_of(samples)
    truth = GroundTruth(samples, memorization, memorization, seed=0)
    row = evaluate_score("final_loss", memorization, truth)
    assert row.against_ordinary == {"digits": None}
    assert row.canaries["digits"] is not None


def test_the_peak_is_in_bits_of_the_window(board: Leaderboard) -> None:
    references = references_of(make_samples())
    ordinary = make_samples()["family"].is_null().to_numpy()
    bits = 3 * measured_memorization(references)[ordinary].mean() / np.log(2)
    assert board.window_tokens == 2
    assert board.ground_truth[0].peak == pytest.approx(bits, rel=1e-6)
    assert board.ground_truth[0].peak_standard_error


def test_models_trained_for_a_score_are_counted(board: Leaderboard) -> None:
    counts = {row.score: row.num_models for row in board.scores}
    assert (counts["random"], counts["final_loss"], counts["reference_gap"]) == (0, 2, 2 + 4)


def test_the_epsilon_curve_matches_forget_events_by_numpy(board: Leaderboard) -> None:
    samples = make_samples()
    losses = trace_with_memorization(samples).losses.collect().to_numpy().astype(np.float64)
    measured = measured_memorization(references_of(samples))
    is_top = measured > np.quantile(measured, 0.9)
    curve = board.epsilon_curve
    assert [point.quantile for point in curve] == list(QUANTILES)
    assert (curve[0].quantile, curve[-1].quantile) == (0.005, 0.75)
    for point in curve:
        epsilon = np.quantile(losses, point.quantile)
        forget = ((losses[:, :-1] < epsilon) & (losses[:, 1:] > epsilon)).mean(axis=1)
        below = (losses < epsilon).any(axis=1)
        assert point.epsilon == pytest.approx(epsilon)
        assert point.auroc == pytest.approx(roc_auc_score(is_top, forget))
        assert point.auroc_ever_below == pytest.approx(roc_auc_score(is_top, below))
        if len(set(forget)) > 1:
            found = spearmanr(forget, measured).statistic
            assert point.spearman == pytest.approx(found)


def test_copies_are_resampled_together_and_equally_for_one_seed() -> None:
    samples = make_samples()
    memorization = memorization_of(samples)
    truth, again = (GroundTruth(samples, memorization, memorization, seed=7) for _ in range(2))
    assert (truth.weights == again.weights).all()
    assert (truth.weights[0] == 1).all()
    for name in ("c3", "c4"):
        copies = truth.weights[:, (samples["content_id"] == name).to_numpy()]
        assert copies.shape[1] == 4
        assert (copies == copies[:, :1]).all()
    first = ~samples["content_id"].is_duplicated() | samples["sample_id"].str.ends_with("-0")
    assert (truth.weights[:, first.to_numpy()].sum(axis=1) == first.sum()).all()


def test_an_interval_covers_a_known_correlation() -> None:
    rng = np.random.default_rng(2)
    names = [f"{i:04}" for i in range(800)]
    rows = [(name, name, None, None, None) for name in names]
    samples = pl.DataFrame(rows, schema=TRAINED, orient="row")
    memorization = rng.normal(size=800)
    truth = GroundTruth(samples, memorization, memorization, seed=0)
    row = evaluate_score("final_loss", memorization + rng.normal(size=800), truth)
    # The rank correlation of two normals with correlation r is 6 asin(r / 2) / pi.
    expected = 6 * np.arcsin(np.sqrt(0.5) / 2) / np.pi
    assert row.mean.spearman
    assert row.mean.spearman.low < expected < row.mean.spearman.high
    assert row.mean.spearman.high - row.mean.spearman.low < 0.1
    assert row.canaries == {}


def test_agreement_of_runs_needs_two_runs() -> None:
    one, other = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    assert agreement_of_runs([one]) is None
    assert agreement_of_runs([one, other]) == -1
    assert agreement_of_runs([one, one, other]) == pytest.approx(-1 / 3)
    assert agreement_of_runs([one, np.full(3, np.nan)]) is None


def test_every_score_has_a_cost() -> None:
    costs = {name: scores.cost_class(name) for name in [*scores.REGISTRY, "difficulty"]}
    assert costs["difficulty"] == costs["forget"] == costs["zlib"] == "one run"
    assert {costs[name] for name in ("hard_token_drop", "self_influence")} == {"one run"}
    assert costs["num_copies"] == costs["random"] == "no model"
    assert costs["reference_gap"] == costs["reference_gap_calibrated"] == "reference models"


def test_tables_of_different_samples_are_refused() -> None:
    samples = make_samples()
    references = references_of(samples)
    table = scores_of(samples, {})
    tables = ScoreTables(table, [table], [trace_with_memorization(samples)], "online")
    with pytest.raises(DataError, match="312 samples, 1 of them without"):
        build_leaderboard(samples, half_models_of(references[1:]), tables, seed=0)
    with pytest.raises(DataError, match="at least 10 training samples, got 9 samples"):
        build_leaderboard(samples[:9], half_models_of(references), tables, seed=0)
    fewer = ScoreTables(table[1:], [table], tables.traces, "online")
    with pytest.raises(DataError, match="312 samples of the ground truth, got 311"):
        build_leaderboard(samples, half_models_of(references), fewer, seed=0)
    with pytest.raises(SchemaError, match="samples: expected columns"):
        build_leaderboard(samples.drop("family"), half_models_of(references), tables, seed=0)

"""Scores and losses of half-models -> how well each score predicts memorization."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Threshold
from gdc.errors import DataError
from gdc.leaderboard import ground_truth, peak
from gdc.leaderboard.board import (
    BySamples,
    EpsilonPoint,
    Grain,
    Leaderboard,
    LeaderboardRow,
    Measures,
    MemorizationLevel,
)
from gdc.leaderboard.inputs import (
    NUM_RESAMPLES,
    TRAINED,
    Family,
    GroundTruth,
    HalfModels,
    ScoreTables,
)
from gdc.recording.trace import Trace
from gdc.schema import REFERENCES, SCORES, require
from gdc.scores import cost_class, epsilon_of, reads_run
from gdc.scores.baselines import ever_below_eps
from gdc.scores.trace_scores import memorization
from gdc.statistics import ranks
from gdc.statistics.bootstrap import LEVEL, Estimate, percentile_interval

# Shares of all recorded losses.
QUANTILES: Final = (
    0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75,
)  # fmt: skip

# Shares of the samples that an intervention may act on.
BUDGETS: Final = (0.01, 0.05, 0.1)

# With fewer samples a top decile would be a single one.
MIN_SAMPLES: Final = 10

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def build_leaderboard(
    samples: pl.DataFrame, half_models: HalfModels, scores: ScoreTables, *, seed: int
) -> Leaderboard:
    """Compare every score column with counterfactual memorization.

    Args:
        samples: ``TRAINED`` table, rows in any order.
        half_models: They hold every row of ``samples``.
        scores: The scores, of the same samples.
        seed: Seed of the resamples and of the splits behind the reliability.

    Raises:
        SchemaError: A table has other columns.
        DataError: The tables hold different samples, there are fewer than ``MIN_SAMPLES``, or
            counterfactual memorization is not defined for the losses.
    """
    require(samples, TRAINED, name="samples")
    samples = samples.sort("sample_id")
    losses, seen = _matrices(samples, half_models.references)
    tokens = _token_losses(half_models, seen)
    mean = ground_truth.counterfactual_memorization(losses, seen)
    worst = peak.peak_memorization(tokens)
    truth = GroundTruth(samples, mean.memorization, worst.memorization, seed)
    ordinary = truth.is_ordinary
    return Leaderboard(
        num_models=losses.shape[1],
        num_samples=samples.height,
        num_ordinary=int(ordinary.sum()),
        num_runs=len(scores.runs),
        num_resamples=NUM_RESAMPLES,
        level=LEVEL,
        window_tokens=half_models.window_tokens,
        mean=_grain(
            truth.memorization,
            truth,
            BySamples(
                ground_truth.reliability(losses, seen, seed=seed),
                ground_truth.reliability(losses[ordinary], seen[ordinary], seed=seed),
            ),
        ),
        peak=_grain(
            truth.peak,
            truth,
            BySamples(
                peak.peak_reliability(tokens, seed=seed),
                peak.peak_reliability(tokens.of(ordinary), seed=seed),
            ),
        ),
        ground_truth=_levels(truth, mean.standard_error, worst.standard_error),
        families={name: family.size for name, family in truth.families.items()},
        scores=evaluate_scores(scores, truth),
        epsilon_curve=epsilon_curve(scores, truth),
    )


def evaluate_scores(scores: ScoreTables, truth: GroundTruth) -> list[LeaderboardRow]:
    """One row for each score; the highest Spearman correlation first, undefined ones last.

    Raises:
        SchemaError: The scores are no ``SCORES`` table.
        DataError: They are of other samples than the ground truth.
    """
    require(scores.table, SCORES, name="scores")
    names = [name for name, dtype in scores.table.schema.items() if dtype == pl.Float64]
    rows = [_evaluate_column(name, scores, truth) for name in names]
    return sorted(rows, key=lambda row: (-_spearman_or_lowest(row), row.score))


def evaluate_score(score: str, values: Values, truth: GroundTruth) -> LeaderboardRow:
    """Compare one score with the ground truth, over the samples that have the score.

    Args:
        score: Name of the score.
        values: One for each sample, in the order of ``truth``; NaN where it is not defined.
        truth: Counterfactual memorization.

    Returns:
        Each measure with its interval over samples, which covers neither the variation of the
        half-models nor that of the tracked runs; without what the score costs.
    """
    return LeaderboardRow(
        score=score,
        cost=cost_class(score),
        num_models=0,
        seconds=None,
        num_samples=int(np.isfinite(values).sum()),
        mean=_measures(values, truth.memorization, truth),
        peak=_measures(values, truth.peak, truth),
        canaries=_canary_aurocs(values, truth),
        against_ordinary=_against_ordinary(values, truth),
        agreement=None,
    )


def agreement_of_runs(runs: Sequence[Values]) -> float | None:
    """Mean Spearman correlation between pairs of tracked runs.

    None: there is one run, or no correlation is defined.
    """
    correlations = []
    for one, other in combinations(runs, 2):
        both = np.isfinite(one) & np.isfinite(other)
        codes = [ranks.codes(values[both]) for values in (one, other)]
        correlations.append(ranks.spearman(codes[0], codes[1], np.ones(int(both.sum()))))
    return _or_none(float(np.mean(correlations))) if correlations else None


def epsilon_curve(scores: ScoreTables, truth: GroundTruth) -> list[EpsilonPoint]:
    """How forget frequency depends on its threshold: one point for each of ``QUANTILES``."""
    return [_epsilon_point(quantile, scores, truth) for quantile in QUANTILES]


def _evaluate_column(name: str, scores: ScoreTables, truth: GroundTruth) -> LeaderboardRow:
    runs = [_values(run, name, truth) for run in scores.runs if name in run.columns]
    return replace(
        evaluate_score(name, _values(scores.table, name, truth), truth),
        num_models=_num_models(name, scores),
        seconds=scores.seconds.get(name),
        agreement=agreement_of_runs(runs),
    )


# ---- one measure with its interval


def _measures(values: Values, memorization: Values, truth: GroundTruth) -> Measures:
    has_score = np.isfinite(values)
    is_top = is_above(memorization, 0.1)
    return Measures(
        spearman=_spearman(values, memorization, truth, has_score),
        spearman_ordinary=_spearman(values, memorization, truth, has_score & truth.is_ordinary),
        auroc=_detection(values, is_top, truth, ranks.auroc),
        average_precision=_detection(values, is_top, truth, ranks.average_precision),
        precision={
            budget: _detection(
                values,
                is_above(memorization, budget),
                truth,
                partial(ranks.precision_at, budget=budget),
            )
            for budget in BUDGETS
        },
    )


def is_above(memorization: Values, share: float) -> Mask:
    """The samples of this share with the highest memorization: strictly above its quantile."""
    return np.asarray(memorization > np.quantile(memorization, 1 - share))


def _spearman(
    values: Values, memorization: Values, truth: GroundTruth, chosen: Mask
) -> Estimate | None:
    score_codes, truth_codes = ranks.codes(values[chosen]), ranks.codes(memorization[chosen])
    weights = truth.weights[:, chosen].astype(np.float64)
    return _interval([ranks.spearman(score_codes, truth_codes, row) for row in weights])


def _detection(
    values: Values,
    is_positive: Mask,
    truth: GroundTruth,
    measure: Callable[[ranks.Codes, Mask, ranks.Weights], float],
) -> Estimate | None:
    has_score = np.isfinite(values)
    codes, is_positive = ranks.codes(values[has_score]), is_positive[has_score]
    return _interval([measure(codes, is_positive, row) for row in truth.weights[:, has_score]])


def _canary_aurocs(values: Values, truth: GroundTruth) -> dict[str, Estimate | None]:
    return {
        name: _canary_auroc(values, family, truth.weights)
        for name, family in truth.families.items()
    }


def _canary_auroc(values: Values, family: Family, weights: NDArray[np.uint16]) -> Estimate | None:
    means, firsts = _by_canary(values, family, family.is_extreme)
    is_most = family.num_repeats[family.is_extreme] > 1
    has_score = np.isfinite(means)
    codes, is_most = ranks.codes(means[has_score]), is_most[has_score]
    return _interval([ranks.auroc(codes, is_most, row) for row in weights[:, firsts[has_score]]])


def _against_ordinary(values: Values, truth: GroundTruth) -> dict[str, Estimate | None]:
    return {
        name: _extracted_auroc(values, family, truth) for name, family in truth.families.items()
    }


def _extracted_auroc(values: Values, family: Family, truth: GroundTruth) -> Estimate | None:
    means, firsts = _by_canary(values, family, family.is_extracted)
    rows = np.concatenate([firsts, np.flatnonzero(truth.is_ordinary)])
    both = np.concatenate([means, values[truth.is_ordinary]])
    is_canary = np.arange(len(both)) < len(means)
    has_score = np.isfinite(both)
    codes, is_canary = ranks.codes(both[has_score]), is_canary[has_score]
    weights = truth.weights[:, rows[has_score]]
    return _interval([ranks.auroc(codes, is_canary, row) for row in weights])


def _by_canary(values: Values, family: Family, chosen: Mask) -> tuple[Values, NDArray[np.int64]]:
    """Mean over the copies of each chosen canary, and the row of its first copy."""
    rows = [copies for copies, is_chosen in zip(family.rows, chosen, strict=True) if is_chosen]
    means = np.array([values[copies].mean() for copies in rows], dtype=np.float64)
    return means, np.array([copies[0] for copies in rows], dtype=np.int64)


def _interval(found: Sequence[float]) -> Estimate | None:
    """The first value with the percentiles of the others."""
    return percentile_interval(found[0], found[1:])


# ---- tables -> arrays in the order of the ground truth


def _matrices(samples: pl.DataFrame, references: pl.DataFrame) -> tuple[NDArray[np.float64], Mask]:
    """Losses and halves, samples x models, in the order of ``samples``."""
    require(references, REFERENCES, name="references")
    joined = samples.join(references, on="sample_id", how="left", maintain_order="left")
    num_missing = joined["loss"].null_count()
    if num_missing or samples.height < MIN_SAMPLES:
        raise DataError(
            f"leaderboard: expected losses under half-models of at least {MIN_SAMPLES} training "
            f"samples, got {samples.height} samples, {num_missing} of them without. "
            "Add text, or run again: gdc leaderboard"
        )
    losses = np.array(joined["loss"].to_list(), dtype=np.float64)
    return losses, np.array(joined["seen"].to_list(), dtype=np.bool_)


def _values(table: pl.DataFrame, name: str, truth: GroundTruth) -> Values:
    """A score in the order of the ground truth; NaN where it is not defined."""
    ordered = table.sort("sample_id")
    if not ordered["sample_id"].equals(truth.samples["sample_id"]):
        raise DataError(
            f"leaderboard: expected scores of the {truth.samples.height} samples of the ground "
            f"truth, got {table.height} others. Run again: gdc run, then gdc leaderboard"
        )
    return ordered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _token_losses(half_models: HalfModels, seen: Mask) -> peak.TokenLosses:
    lists = half_models.token_losses
    num_tokens = lists[0].list.len().cast(pl.Int64).to_numpy()
    losses = np.stack([losses.explode().to_numpy() for losses in lists], axis=1)
    return peak.TokenLosses(losses, num_tokens, seen, half_models.window_tokens)


def _grain(memorization: Values, truth: GroundTruth, reliability: BySamples) -> Grain:
    return Grain(
        reliability=reliability,
        ceiling=BySamples(
            all=ground_truth.ceiling(reliability.all),
            ordinary=ground_truth.ceiling(reliability.ordinary),
        ),
        num_top=int(is_above(memorization, 0.1).sum()),
        canaries=_canary_aurocs(memorization, truth),
        against_ordinary=_against_ordinary(memorization, truth),
    )


def _levels(
    truth: GroundTruth, standard_error: Values, peak_standard_error: Values
) -> list[MemorizationLevel]:
    """Ordinary text first, then every family by number of repeats."""
    table = truth.samples.with_columns(
        memorization=truth.memorization,
        standard_error=pl.Series(standard_error, dtype=pl.Float64).fill_nan(None),
        peak=truth.peak,
        peak_standard_error=pl.Series(peak_standard_error, dtype=pl.Float64).fill_nan(None),
    )
    levels = (
        table.group_by("family", "num_repeats")
        .agg(
            pl.len().alias("num_samples"),
            pl.col("memorization", "peak").mean(),
            pl.col("standard_error", "peak_standard_error").median(),
        )
        .sort("family", "num_repeats", nulls_last=False)
    )
    return [MemorizationLevel(**level) for level in levels.to_dicts()]


def _num_models(name: str, scores: ScoreTables) -> int:
    """Models that are trained for a score: the tracked runs that it reads, and references."""
    num_references = scores.num_references if cost_class(name) == "reference models" else 0
    return num_references + (len(scores.runs) if reads_run(name) else 0)


def _epsilon_point(quantile: float, scores: ScoreTables, truth: GroundTruth) -> EpsilonPoint:
    threshold = Threshold(kind="quantile", value=quantile)
    epsilon = epsilon_of(scores.traces, scores.mode, threshold)
    runs = [_forget_and_below(trace, scores.mode, epsilon) for trace in scores.traces]
    table = pl.concat(runs).group_by("sample_id").agg(pl.all().mean())
    forget, below = (_values(table, name, truth) for name in ("forget", "below"))
    return EpsilonPoint(
        quantile=quantile,
        epsilon=epsilon,
        auroc=_plain_auroc(forget, truth),
        spearman=_plain_spearman(forget, truth),
        auroc_ever_below=_plain_auroc(below, truth),
    )


def _forget_and_below(trace: Trace, mode: str, epsilon: float) -> pl.DataFrame:
    columns = trace.columns(mode)
    return (
        pl.concat([trace.index.lazy(), trace.losses], how="horizontal")
        .select(
            "sample_id",
            forget=memorization(columns, epsilon),
            below=ever_below_eps(columns, epsilon),
        )
        .collect()
    )


def _plain_auroc(values: Values, truth: GroundTruth) -> float | None:
    known = np.isfinite(values)
    codes = ranks.codes(values[known])
    return _or_none(
        ranks.auroc(codes, is_above(truth.memorization, 0.1)[known], np.ones(int(known.sum())))
    )


def _plain_spearman(values: Values, truth: GroundTruth) -> float | None:
    known = np.isfinite(values)
    codes = [ranks.codes(column[known]) for column in (values, truth.memorization)]
    return _or_none(ranks.spearman(codes[0], codes[1], np.ones(int(known.sum()))))


def _spearman_or_lowest(row: LeaderboardRow) -> float:
    return row.mean.spearman.value if row.mean.spearman else float("-inf")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value

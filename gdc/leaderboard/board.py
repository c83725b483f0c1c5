"""Scores and the truth of half-models -> which score finds what is memorized, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Threshold
from gdc.errors import DataError
from gdc.leaderboard import ground_truth
from gdc.recording.trace import Trace
from gdc.schema import REFERENCES, SCORES, require
from gdc.scores import cost_class, epsilon_of
from gdc.scores.baselines import ever_below_eps
from gdc.scores.trace_scores import memorization
from gdc.statistics import ranks
from gdc.statistics.bootstrap import LEVEL, cluster_weights

NUM_RESAMPLES: Final = 500
# Shares of all recorded losses.
QUANTILES: Final = (
    0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75,
)  # fmt: skip

# One row is a training sample; family and num_repeats are null for ordinary text.
TRAINED: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "content_id": pl.String,
        "family": pl.String,
        "num_repeats": pl.Int64,
    }
)
# A truth of at least this many samples has a top decile worth the name.
MIN_SAMPLES: Final = 10

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """What is judged.

    Attributes:
        table: ``SCORES`` table with its further columns, means over the tracked runs.
        runs: The same of each tracked run alone, ``first_learned`` aside.
        traces: Of the same runs.
        mode: Of the checkpoints that the scores read.
        seconds: What each column takes to compute, with the training of what it needs besides the
            tracked runs; None: not known.
    """

    table: pl.DataFrame
    runs: Sequence[pl.DataFrame]
    traces: Sequence[Trace]
    mode: str
    seconds: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """The truth of the training samples, in the order of ``samples``, and what is asked of it."""

    samples: pl.DataFrame  # TRAINED, sorted by sample_id
    memorization: Values  # nats per token
    seed: int

    @cached_property
    def is_ordinary(self) -> Mask:
        """No planted canary."""
        return self.samples["family"].is_null().to_numpy()

    @cached_property
    def is_top(self) -> Mask:
        """Strictly above the ninth decile of the truth."""
        return np.asarray(self.memorization > np.quantile(self.memorization, 0.9))

    @cached_property
    def weights(self) -> NDArray[np.uint16]:
        """Times that each sample stands in each resample; those of one content go together.

        The first row is the sample itself, all ones.
        """
        group = ranks.codes(self.samples["content_id"].rank("dense").to_numpy())
        resamples = cluster_weights(group, num_resamples=NUM_RESAMPLES, seed=self.seed)
        return np.vstack([np.ones_like(resamples[:1]), resamples])

    @cached_property
    def families(self) -> Mapping[str, "Family"]:
        """The canaries of each family that were planted once, or as often as any."""
        rows = self.samples.with_row_index("row").drop_nulls("family")
        return {
            str(name): _family(table)
            for (name,), table in rows.sort("family").group_by("family", maintain_order=True)
        }


@dataclass(frozen=True)
class Family:
    """Canaries planted once and those planted most; a copy is no canary of its own."""

    num_repeats: int  # of those planted most
    is_most: Mask
    rows: Sequence[NDArray[np.int64]]  # the copies of each canary

    @property
    def num_most(self) -> int:
        """Canaries planted most."""
        return int(self.is_most.sum())

    @property
    def num_once(self) -> int:
        """Canaries planted once."""
        return len(self.is_most) - self.num_most


def build_leaderboard(
    samples: pl.DataFrame, references: pl.DataFrame, scored: Scored, *, seed: int
) -> dict[str, Any]:
    """Judge every score column by counterfactual memorization.

    Args:
        samples: ``TRAINED`` table, rows in any order.
        references: ``REFERENCES`` table of half-models that no score has used, models 2k and
            2k + 1 on complementary halves; it holds every row of ``samples``.
        scored: The scores, of the same samples.
        seed: Of the resamples and of the splits behind the reliability.

    Returns:
        The content of ``leaderboard.json``: the truth, its ceilings, one row for each score in
        falling order of its Spearman correlation, and the curve of ``epsilon_curve``.

    Raises:
        SchemaError: A table has other columns.
        DataError: The tables hold different samples, there are fewer than ``MIN_SAMPLES``, or the
            losses give no truth.
    """
    require(samples, TRAINED, name="samples")
    samples = samples.sort("sample_id")
    losses, seen = _matrices(samples, references)
    measured = ground_truth.counterfactual_memorization(losses, seen)
    judge = Judge(samples, measured.memorization, seed)
    reliabilities = {
        name: ground_truth.reliability(losses[chosen], seen[chosen], seed=seed)
        for name, chosen in (("all", slice(None)), ("ordinary", judge.is_ordinary))
    }
    return {
        "num_models": losses.shape[1],
        "num_samples": samples.height,
        "num_ordinary": int(judge.is_ordinary.sum()),
        "num_top": int(judge.is_top.sum()),
        "num_runs": len(scored.runs),
        "num_resamples": NUM_RESAMPLES,
        "level": LEVEL,
        "reliability": reliabilities,
        "ceiling": {name: ground_truth.ceiling(value) for name, value in reliabilities.items()},
        "truth": _truth_rows(judge, measured.standard_error),
        "truth_canaries": judge_score(judge.memorization, judge)["canaries"],
        "families": {
            name: {
                "num_repeats": family.num_repeats,
                "num_most": family.num_most,
                "num_once": family.num_once,
            }
            for name, family in judge.families.items()
        },
        "scores": rank_scores(scored, judge),
        "epsilon_curve": epsilon_curve(scored, judge),
    }


def rank_scores(scored: Scored, judge: Judge) -> list[dict[str, Any]]:
    """One row for each score column; the highest Spearman correlation first, undefined ones last.

    Raises:
        SchemaError: The scores are no ``SCORES`` table.
        DataError: They are of other samples than the truth.
    """
    require(scored.table, SCORES, name="scores")
    names = [name for name, dtype in scored.table.schema.items() if dtype == pl.Float64]
    values = {name: _values(scored.table, name, judge) for name in names}
    runs = {
        name: [_values(run, name, judge) for run in scored.runs if name in run.columns]
        for name in names
    }
    rows = [
        {"score": name, "cost": cost_class(name), "seconds": scored.seconds.get(name)}
        | judge_score(values[name], judge)
        | {"agreement": agreement(runs[name])}
        for name in names
    ]
    return sorted(rows, key=lambda row: (-_rank_by(row), row["score"]))


def judge_score(values: Values, judge: Judge) -> dict[str, Any]:
    """What one score says of the truth; each value with its interval over samples, or None.

    A value is taken over the samples that have a score, ``num_samples`` of them. An interval
    covers the chance of the samples alone, neither that of the models nor of the tracked runs.
    """
    has_score = np.isfinite(values)
    top, ordinary = judge.is_top, judge.is_ordinary
    return {
        "num_samples": int(has_score.sum()),
        "spearman": _spearman_interval(values, judge, has_score),
        "spearman_ordinary": _spearman_interval(values, judge, has_score & ordinary),
        "auroc": _detection_interval(values, top, judge, ranks.auroc),
        "average_precision": _detection_interval(values, top, judge, ranks.average_precision),
        "canaries": {
            name: _family_interval(values, family, judge) for name, family in judge.families.items()
        },
    }


def agreement(runs: Sequence[Values]) -> float | None:
    """Mean Spearman correlation between pairs of tracked runs; None: one run, or none defined."""
    found = []
    for one, other in combinations(runs, 2):
        both = np.isfinite(one) & np.isfinite(other)
        codes = [ranks.codes(values[both]) for values in (one, other)]
        found.append(ranks.spearman(codes[0], codes[1], np.ones(int(both.sum()))))
    return _or_none(float(np.mean(found))) if found else None


def epsilon_curve(scored: Scored, judge: Judge) -> list[dict[str, float | None]]:
    """How ``memorization`` depends on its threshold: one entry for each of ``QUANTILES``.

    Beside its AUROC and Spearman correlation stands the AUROC of the event without which nothing
    is forgotten, a loss below epsilon.
    """
    return [_curve_point(quantile, scored, judge) for quantile in QUANTILES]


# ---- one value and its interval


def _spearman_interval(values: Values, judge: Judge, chosen: Mask) -> dict[str, float] | None:
    ours, theirs = ranks.codes(values[chosen]), ranks.codes(judge.memorization[chosen])
    weights = judge.weights[:, chosen]
    return _interval([ranks.spearman(ours, theirs, row) for row in weights.astype(np.float64)])


def _detection_interval(
    values: Values,
    is_positive: Mask,
    judge: Judge,
    measure: Callable[[ranks.Codes, Mask, ranks.Weights], float],
) -> dict[str, float] | None:
    has_score = np.isfinite(values)
    codes, positive = ranks.codes(values[has_score]), is_positive[has_score]
    return _interval([measure(codes, positive, row) for row in judge.weights[:, has_score]])


def _family_interval(values: Values, family: Family, judge: Judge) -> dict[str, float] | None:
    of_canary = np.array([values[rows].mean() for rows in family.rows])
    has_score = np.isfinite(of_canary)
    weights = judge.weights[:, [rows[0] for rows in family.rows]][:, has_score]
    codes, is_most = ranks.codes(of_canary[has_score]), family.is_most[has_score]
    return _interval([ranks.auroc(codes, is_most, row) for row in weights])


def _interval(found: Sequence[float]) -> dict[str, float] | None:
    """The first value and the quantiles of the others; a resample that has none is left out."""
    value, *resampled = found
    if np.isnan(value):
        return None
    defined = [other for other in resampled if not np.isnan(other)] or [value]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": value, "low": float(low), "high": float(high)}


# ---- what they are taken from


def _matrices(samples: pl.DataFrame, references: pl.DataFrame) -> tuple[NDArray[np.float64], Mask]:
    """Losses and halves, samples x models, in the order of ``samples``."""
    require(references, REFERENCES, name="references")
    joined = samples.join(references, on="sample_id", how="left", maintain_order="left")
    num_missing = joined["loss"].null_count()
    if num_missing or samples.height < MIN_SAMPLES:
        raise DataError(
            f"leaderboard: expected losses under half-models of at least {MIN_SAMPLES} training "
            f"samples, got {samples.height} samples, {num_missing} of them without. "
            "Add text, or run again: gdc benchmark"
        )
    losses = np.array(joined["loss"].to_list(), dtype=np.float64)
    return losses, np.array(joined["seen"].to_list(), dtype=np.bool_)


def _values(table: pl.DataFrame, name: str, judge: Judge) -> Values:
    """A score in the order of the truth; NaN where it is not defined."""
    ordered = table.sort("sample_id")
    if not ordered["sample_id"].equals(judge.samples["sample_id"]):
        raise DataError(
            f"leaderboard: expected scores of the {judge.samples.height} samples of the truth, got "
            f"{table.height} others. Run again: gdc run, then gdc benchmark"
        )
    return ordered[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _family(table: pl.DataFrame) -> Family:
    most = table.select(pl.col("num_repeats").max()).item()
    extremes = table.filter(pl.col("num_repeats").is_in([1, most]))
    canaries = (
        extremes.sort("content_id", "row")
        .group_by("content_id", maintain_order=True)
        .agg("row", pl.col("num_repeats").first())
    )
    rows = [np.array(copies, dtype=np.int64) for copies in canaries["row"].to_list()]
    is_most = (canaries["num_repeats"] > 1).to_numpy()
    return Family(num_repeats=most, is_most=is_most, rows=rows)


def _truth_rows(judge: Judge, standard_error: Values) -> list[dict[str, Any]]:
    """Mean truth of ordinary text and of each family and number of repeats."""
    table = judge.samples.with_columns(
        memorization=judge.memorization,
        standard_error=pl.Series(standard_error, dtype=pl.Float64).fill_nan(None),
    )
    means = (
        table.group_by("family", "num_repeats")
        .agg(
            num_samples=pl.len(),
            memorization=pl.col("memorization").mean(),
            standard_error=pl.col("standard_error").median(),
        )
        .sort("family", "num_repeats", nulls_last=False)
    )
    return means.to_dicts()


def _curve_point(quantile: float, scored: Scored, judge: Judge) -> dict[str, float | None]:
    threshold = Threshold(kind="quantile", value=quantile)
    epsilon = epsilon_of(scored.traces, scored.mode, threshold)
    runs = [_forget_and_below(trace, scored.mode, epsilon) for trace in scored.traces]
    table = pl.concat(runs).group_by("sample_id").agg(pl.all().mean())
    forget, below = (_values(table, name, judge) for name in ("forget", "below"))
    return {
        "quantile": quantile,
        "epsilon": epsilon,
        "auroc": _top_auroc(forget, judge),
        "spearman": _plain_spearman(forget, judge),
        "auroc_ever_below": _top_auroc(below, judge),
    }


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


def _top_auroc(values: Values, judge: Judge) -> float | None:
    has = np.isfinite(values)
    found = ranks.auroc(ranks.codes(values[has]), judge.is_top[has], np.ones(int(has.sum())))
    return _or_none(found)


def _plain_spearman(values: Values, judge: Judge) -> float | None:
    has = np.isfinite(values)
    codes = [ranks.codes(column[has]) for column in (values, judge.memorization)]
    return _or_none(ranks.spearman(codes[0], codes[1], np.ones(int(has.sum()))))


def _rank_by(row: Mapping[str, Any]) -> float:
    return float(row["spearman"]["value"]) if row["spearman"] else float("-inf")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value

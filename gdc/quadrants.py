"""Scores -> quadrants: two thresholds cut difficulty and memorization into four kinds of sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import scipy  # loads scipy.stats, which takes a second, when it is needed
from numpy.typing import NDArray

from gdc.config import AUTO, ConformalThreshold, PartitionConfig, Threshold
from gdc.errors import ConfigError, DataError
from gdc.schema import QUADRANT_TABLE, QUADRANTS


def resolve_axis(
    config: PartitionConfig, auto: Mapping[str, Any]
) -> tuple[PartitionConfig, list[str]]:
    """The same with a score in place of ``axis: auto``, and a warning where none is validated.

    Args:
        config: Its axis is a score or ``auto``.
        auto: ``axis``, ``is_validated`` and ``reason`` of ``calibration.json``.
    """
    if config.axis != AUTO:
        return config, []
    resolved = config.model_copy(update={"axis": auto["axis"]})
    return resolved, [] if auto["is_validated"] else [auto["reason"]]


def partition(
    scores: pl.DataFrame, by_run: pl.DataFrame, config: PartitionConfig
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Give every sample its quadrant: strictly above a threshold is high.

    Low difficulty: ``stable-easy`` or, with a high axis, ``hotspot-memorized``; high difficulty:
    ``ambiguous-hard`` or ``noisy-outlier``. A quadrant may be empty.

    Args:
        scores: ``SCORES`` table with the column that ``config.axis`` names.
        by_run: ``SCORES_BY_RUN`` table of the same samples, with no row where there was one run.
            Each run is cut at its own thresholds, by the same rule.
        config: The memorization axis and both thresholds. A conformal one wants scores of one run.

    Returns:
        ``QUADRANT_TABLE`` in the row order of ``scores``, and a summary for ``quadrants.json``.

    Raises:
        ConfigError: ``config.axis`` is no column of ``scores``.
        DataError: A sample has no difficulty or no value on the axis.

    Source: arXiv:2509.00083, section on quadrants; it names no percentiles.
    """
    known = [name for name in scores.columns if scores[name].dtype.is_float()]
    if config.axis not in known:
        raise ConfigError(f"partition.axis: expected one of {known}, got {config.axis!r}")
    for axis in ("difficulty", config.axis):
        missing = scores.filter(pl.col(axis).is_null() | pl.col(axis).is_nan())
        if missing.height:
            raise DataError(
                f"data/scores.parquet: {missing.height} samples have no {axis}, first "
                f"{missing['sample_id'][0]}. Choose a score that all samples have."
            )
    difficulty_cut, memorization_cut = cuts = _cuts(scores, config)
    quadrants = _cut(scores, config.axis, cuts)
    stability = _stability(quadrants, by_run, config)
    quadrants = quadrants.join(
        stability, on="sample_id", how="left", maintain_order="left"
    ).match_to_schema(QUADRANT_TABLE)
    return quadrants, {
        "axis": config.axis,
        "difficulty_threshold": difficulty_cut,
        "memorization_threshold": memorization_cut,
        "counts": {q: int((quadrants["quadrant"] == q).sum()) for q in QUADRANTS},
        "num_unstable": int((quadrants["stability"] < 1).sum()) if by_run.height else None,
        "warnings": [
            *_warnings("difficulty", scores["difficulty"], config.difficulty, difficulty_cut),
            *_warnings(config.axis, scores[config.axis], config.memorization, memorization_cut),
        ],
    }


def _cuts(scores: pl.DataFrame, config: PartitionConfig) -> tuple[float, float]:
    return (
        threshold_value(scores["difficulty"], config.difficulty),
        threshold_value(scores[config.axis], config.memorization),
    )


def _cut(scores: pl.DataFrame, axis: str, cuts: tuple[float, float]) -> pl.DataFrame:
    hard, memorized = pl.col("difficulty") > cuts[0], pl.col(axis) > cuts[1]
    return scores.select(
        "sample_id",
        quadrant=pl.when(hard & memorized)
        .then(pl.lit("noisy-outlier"))
        .when(hard)
        .then(pl.lit("ambiguous-hard"))
        .when(memorized)
        .then(pl.lit("hotspot-memorized"))
        .otherwise(pl.lit("stable-easy")),
    )


def _stability(
    quadrants: pl.DataFrame, by_run: pl.DataFrame, config: PartitionConfig
) -> pl.DataFrame:
    """``sample_id`` and the share of runs whose own map says what the map of the means says."""
    runs = [
        _cut(table, config.axis, _cuts(table, config)).join(
            quadrants, on="sample_id", suffix="_of_means"
        )
        for table in by_run.partition_by("run", maintain_order=True)
    ]
    if not runs:
        return quadrants.select("sample_id", stability=pl.lit(None, pl.Float64))
    same = pl.col("quadrant") == pl.col("quadrant_of_means")
    return pl.concat(runs).group_by("sample_id").agg(stability=same.mean())


def threshold_value(values: pl.Series, threshold: Threshold | ConformalThreshold) -> float:
    """The cut: as given, a quantile with linear interpolation (numpy's default), or conformal."""
    if threshold.kind == "absolute":
        return threshold.value
    if threshold.kind == "conformal":
        return conformal_cut(values.to_numpy(), threshold.value)
    value = values.quantile(threshold.value, interpolation="linear")
    assert value is not None  # noqa: S101 - no values are missing
    return float(value)


def conformal_cut(log_ps: NDArray[np.float64], rate: float) -> float:
    """The largest value that Benjamini-Hochberg leaves: strictly above it is found; 0: all are.

    Args:
        log_ps: Minus log10 of the conformal p-values of one run, at least 0, in any order.
        rate: False discovery rate: the expected share of unmemorized samples among the found ones
            is at most this, where unmemorized and held-out samples are exchangeable.

    A mean over runs is no p-value, and times e it is one but not of the dependence that
    Benjamini-Hochberg allows, so there is no cut for several runs.

    Source: Benjamini & Hochberg 1995; for conformal p-values Bates et al. 2023, arXiv:2104.08279.
    """
    adjusted = scipy.stats.false_discovery_control(10.0**-log_ps, method="bh")
    # Rounded: p-values are ratios of counts and often equal their bound, but for the last bit.
    left = log_ps[np.round(adjusted, 12) > rate]
    return float(left.max(initial=0.0)) + 0.0  # no minus zero


def _warnings(
    axis: str, values: pl.Series, threshold: Threshold | ConformalThreshold, cut: float
) -> list[str]:
    warnings = []
    num_distinct = values.n_unique()
    if num_distinct < 5:
        warnings.append(f"{axis} has only {num_distinct} distinct values; many samples tie.")
    num_high = int((values > cut).sum())
    if threshold.kind == "quantile" and cut in (values.min(), values.max()):
        warnings.append(
            f"{axis}: its quantile {threshold.value} is its smallest or largest value ({cut:.4g}), "
            f"so {num_high} of {len(values)} samples are above it, not the share asked for."
        )
    if threshold.kind == "conformal" and num_high == 0:
        smallest = 10 ** -float(values.to_numpy().max())
        warnings.append(
            f"{axis}: no sample is found at a false discovery rate of {threshold.value}. Finding k "
            f"of {len(values)} takes p-values of at most {threshold.value} k / {len(values)}, and "
            f"the smallest is {smallest:.4g}; more held-out samples "
            "(ingest.validation_fraction) allow smaller ones."
        )
    return warnings

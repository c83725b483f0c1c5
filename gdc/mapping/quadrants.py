"""Scores -> a quadrant for every sample, by a threshold on difficulty and one on memorization."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Final

import numpy as np
import polars as pl
import scipy  # loads scipy.stats, which takes a second, when it is needed
from numpy.typing import NDArray

from gdc.config import AUTO, ConformalThreshold, PartitionConfig, Threshold
from gdc.errors import ConfigError, DataError
from gdc.filesystem.json_values import JsonObject
from gdc.mapping.score_cards import AutoAxis
from gdc.schema import QUADRANT_TABLE, QUADRANTS
from gdc.statistics import streaming_quantile
from gdc.statistics.streaming_quantile import Table
from gdc.statistics.wording import counted

_QUADRANT = pl.Enum(QUADRANTS)
_SCORES: Final = "data/scores.parquet"  # the pipeline's, for messages
# Else another score can be chosen.
_MISSING: Final = {
    "difficulty": "Record their first losses, or choose other checkpoints: score.mode (--mode)."
}
# Of so many samples difficulty and the axis are held, which takes 2 GB at most; of more they are
# read again wherever they are needed.
_MAX_HELD_SAMPLES: Final = 2**27


@dataclass(frozen=True)
class QuadrantsSummary:
    """The content of ``quadrants.json``.

    ``counts`` has the number of samples of each quadrant, in the order of ``QUADRANTS``;
    ``num_unstable`` counts the samples whose quadrant differs between runs, None with one run.
    """

    axis: str
    difficulty_threshold: float
    memorization_threshold: float
    counts: dict[str, int]
    num_unstable: int | None
    warnings: tuple[str, ...]

    @property
    def thresholds(self) -> tuple[float, float]:
        """The thresholds on difficulty and on ``axis``."""
        return self.difficulty_threshold, self.memorization_threshold

    def to_json(self) -> JsonObject:
        """The same as nested objects of numbers and strings."""
        return {**asdict(self), "warnings": list(self.warnings)}


def resolve_axis(
    config: PartitionConfig, auto: AutoAxis
) -> tuple[PartitionConfig, tuple[str, ...]]:
    """Put a score in place of ``axis: auto``; a warning where no score is validated.

    Args:
        config: Its axis is a score or ``auto``.
        auto: Of ``calibration.json``.
    """
    if config.axis != AUTO:
        return config, ()
    resolved = config.model_copy(update={"axis": auto.axis})
    return resolved, () if auto.is_validated else (auto.reason,)


def partition(
    scores: pl.DataFrame, by_run: pl.DataFrame, config: PartitionConfig, name: str = _SCORES
) -> tuple[pl.DataFrame, QuadrantsSummary]:
    """Give every sample its quadrant: strictly above a threshold is high.

    Low difficulty: ``stable-easy`` or, with a high axis, ``hotspot-memorized``; high difficulty:
    ``ambiguous-hard`` or ``noisy-outlier``. A quadrant may be empty.

    Args:
        scores: ``SCORES`` table with the column that ``config.axis`` names.
        by_run: ``SCORES_BY_RUN`` table of the same samples, with no row where there was one run.
            Each run is cut at its own thresholds, by the same rule.
        config: The memorization axis and both thresholds. A conformal one wants scores of one run.
        name: Of what the scores are of, for messages.

    Returns:
        ``QUADRANT_TABLE`` in the row order of ``scores``, and its summary.

    Raises:
        ConfigError: ``config.axis`` is no column of ``scores``.
        DataError: A sample has no difficulty or no value on the axis.

    Source: arXiv:2509.00083, section on quadrants; it names no percentiles.
    """
    summary = summarize(scores, config, scores.lazy().select("sample_id"), name)
    quadrants = scores.select(
        "sample_id",
        quadrant=quadrant(config.axis, summary.thresholds).cast(pl.String),
        stability=pl.lit(None, pl.Float64),
    )
    if by_run.is_empty():
        return quadrants, summary
    quadrants = (
        quadrants.drop("stability")
        .join(
            _stability(quadrants, by_run, config), on="sample_id", how="left", maintain_order="left"
        )
        .match_to_schema(QUADRANT_TABLE)
    )
    num_unstable = int((quadrants["stability"] < 1).sum())
    return quadrants, replace(summary, num_unstable=num_unstable)


def summarize(
    scores: Table,
    config: PartitionConfig,
    sample_ids: pl.LazyFrame,
    name: str = _SCORES,
) -> QuadrantsSummary:
    """The thresholds of the map of one run, and what lies where.

    Memory holds difficulty and the axis of a table on disk, 16 bytes of each sample; of more than
    134 million samples they are read a few times, a block at a time, and a conformal threshold
    alone holds the axis.

    Args:
        scores: With difficulty and the axis, of all samples.
        config: As for ``partition``.
        sample_ids: Column ``sample_id``, in the same order.
        name: As for ``partition``.

    Raises:
        ConfigError: As ``partition``.
        DataError: As ``partition``.
    """
    require_axis(scores, config)
    points = _read_points(scores, config.axis)
    difficulty, memorization = _read_axes(points, ("difficulty", config.axis), sample_ids, name)
    cuts = _cuts(points, config)
    hard, memorized = _is_high(config.axis, cuts)
    num_hard, num_memorized, num_noisy = (
        points.lazy()
        .select(
            hard.sum(), memorized.sum().alias("memorized"), (hard & memorized).sum().alias("noisy")
        )
        .collect(engine="streaming")
        .row(0)
    )
    return QuadrantsSummary(
        axis=config.axis,
        difficulty_threshold=cuts[0],
        memorization_threshold=cuts[1],
        counts={
            "stable-easy": difficulty.num_samples - num_hard - num_memorized + num_noisy,
            "ambiguous-hard": num_hard - num_noisy,
            "hotspot-memorized": num_memorized - num_noisy,
            "noisy-outlier": num_noisy,
        },
        num_unstable=None,
        warnings=(
            *_warnings(difficulty, config.difficulty, cuts[0], num_hard),
            *_warnings(memorization, config.memorization, cuts[1], num_memorized),
        ),
    )


def _read_points(scores: Table, axis: str) -> Table:
    """Difficulty and the axis: in memory, or on disk where they are too many."""
    points = scores.select(list(dict.fromkeys(("difficulty", axis))))
    if isinstance(points, pl.DataFrame):
        return points
    num_samples: int = points.select(pl.len()).collect(engine="streaming").item()
    return points if num_samples > _MAX_HELD_SAMPLES else points.collect(engine="streaming")


def _cuts(scores: Table, config: PartitionConfig) -> tuple[float, float]:
    return (
        threshold_value(scores.select("difficulty"), config.difficulty),
        threshold_value(scores.select(config.axis), config.memorization),
    )


def require_axis(scores: Table, config: PartitionConfig) -> None:
    """Raise ``ConfigError`` unless ``config.axis`` is a score of the table."""
    known = [name for name, dtype in scores.collect_schema().items() if dtype.is_float()]
    if config.axis not in known:
        raise ConfigError(f"partition.axis: expected one of {known}, got {config.axis!r}")


def quadrant(axis: str, cuts: tuple[float, float]) -> pl.Expr:
    """A sample's quadrant, an Enum of ``QUADRANTS``, by difficulty and its value on ``axis``."""
    hard, memorized = _is_high(axis, cuts)
    easy, ambiguous, hotspot, noisy = (pl.lit(name, _QUADRANT) for name in QUADRANTS)
    return (
        pl.when(hard & memorized)
        .then(noisy)
        .when(hard)
        .then(ambiguous)
        .when(memorized)
        .then(hotspot)
        .otherwise(easy)
    )


def _is_high(axis: str, cuts: tuple[float, float]) -> tuple[pl.Expr, pl.Expr]:
    return pl.col("difficulty") > cuts[0], pl.col(axis) > cuts[1]


def _stability(
    quadrants: pl.DataFrame, by_run: pl.DataFrame, config: PartitionConfig
) -> pl.DataFrame:
    """``sample_id`` and the share of runs whose own map says what the map of the means says."""
    runs = [
        table.select(
            "sample_id",
            quadrant=quadrant(config.axis, _cuts(table, config)).cast(pl.String),
        ).join(quadrants, on="sample_id", suffix="_of_means")
        for table in by_run.partition_by("run", maintain_order=True)
    ]
    same = pl.col("quadrant") == pl.col("quadrant_of_means")
    return pl.concat(runs).group_by("sample_id").agg(stability=same.mean())


def threshold_value(values: Table, threshold: Threshold | ConformalThreshold) -> float:
    """The cut of one column.

    As given, a quantile with linear interpolation (numpy's default), or conformal.
    """
    if threshold.kind == "absolute":
        return threshold.value
    if threshold.kind == "conformal":
        return conformal_cut(values.lazy().collect().to_series().to_numpy(), threshold.value)
    num_rows: int = values.lazy().select(pl.len()).collect().item()
    value = streaming_quantile.quantile([values], threshold.value, [num_rows])
    assert value is not None  # noqa: S101 - no values are missing
    return value


def conformal_cut(log_ps: NDArray[np.float64], rate: float) -> float:
    """The largest value that Benjamini-Hochberg does not find; 0: it finds all.

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


@dataclass(frozen=True)
class _Axis:
    """What the warnings need of one axis of the map."""

    name: str
    num_samples: int
    num_distinct: int  # or 5, where they are more
    least: float
    most: float


def _read_axes(
    points: Table, axes: Sequence[str], sample_ids: pl.LazyFrame, name: str
) -> list[_Axis]:
    """Read the extent of the axes; refuse one that lacks values."""
    extents = chain.from_iterable(map(_extent_of, dict.fromkeys(axes)))
    seen = points.lazy().select(pl.len(), *extents)
    found = seen.collect(engine="streaming").row(0, named=True)
    for axis in axes:
        if found[f"{axis} missing"]:
            is_missing = pl.col(axis).is_null() | pl.col(axis).is_nan()
            row = points.lazy().with_row_index().filter(is_missing).head(1).collect().row(0)[0]
            first = sample_ids.slice(row, 1).collect().item()
            raise DataError(
                f"{name}: {found[f'{axis} missing']} samples have no {axis}, first {first}. "
                f"{_MISSING.get(axis, 'Choose a score that all samples have.')}"
            )
    return [
        _Axis(
            axis,
            found["len"],
            _num_distinct(points.lazy().select(axis)),
            found[f"{axis} least"],
            found[f"{axis} most"],
        )
        for axis in axes
    ]


def _extent_of(axis: str) -> list[pl.Expr]:
    value = pl.col(axis)
    num_missing = value.null_count() + value.is_nan().sum()
    return [
        num_missing.alias(f"{axis} missing"),
        value.min().alias(f"{axis} least"),
        value.max().alias(f"{axis} most"),
    ]


def _num_distinct(values: pl.LazyFrame) -> int:
    """Of one column; counted in full only where the first values do not show five."""
    for part in (values.head(10_000), values.head(1_000_000), values):
        num_distinct: int = part.select(pl.all().n_unique()).collect(engine="streaming").item()
        if num_distinct >= 5:
            return 5
    return num_distinct


def _warnings(
    axis: _Axis, threshold: Threshold | ConformalThreshold, cut: float, num_high: int
) -> list[str]:
    warnings = []
    if axis.num_distinct < 5:
        warnings.append(
            f"{axis.name} has only {counted(axis.num_distinct, 'distinct value')}; many samples "
            "tie."
        )
    if threshold.kind == "quantile" and cut in (axis.least, axis.most):
        warnings.append(
            f"{axis.name}: its quantile {threshold.value} is its smallest or largest value "
            f"({cut:.4g}), so {num_high} of {axis.num_samples} samples are above it, not the share "
            "asked for."
        )
    elif threshold.kind == "quantile" and num_high < (1 - threshold.value) * axis.num_samples / 2:
        warnings.append(
            f"{axis.name}: many samples tie at its quantile {threshold.value} ({cut:.4g}), so only "
            f"{num_high} of {axis.num_samples} are above it. Copies of one text tie: drop them "
            "(rule dedup), or lower this quantile in section partition of params.yaml."
        )
    if threshold.kind == "conformal" and num_high == 0:
        smallest = 10**-axis.most
        warnings.append(
            f"{axis.name}: no sample is found at a false discovery rate of {threshold.value}. "
            f"Finding k of {axis.num_samples} takes p-values of at most {threshold.value} k / "
            f"{axis.num_samples}, and the smallest is {smallest:.4g}; more held-out samples "
            "(ingest.validation_fraction) allow smaller ones."
        )
    return warnings

"""A trace and the held-out trace beside it -> drops beyond what unseen or like text shows.

Every held-out table has ``num_tokens``, ``zlib_size`` where the texts are at hand, and the loss
columns; its rows are sorted by ``sample_id``, as sums of floats depend on their order.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.recording.trace import Trace
from gdc.scores.trace_scores import Columns, losses

FOLDS: Final = 5
"""Parts of the held-out samples; the residuals of one come from a fit to the others."""

MIN_HELDOUT: Final = 20
"""A fit has five coefficients; on fewer samples its residuals say little of the next."""

MAX_GROUPS, MIN_LIKE = 20, 50
"""Groups of like first loss at most, and the samples that one shall hold."""


@dataclass(frozen=True)
class Calibration:
    """What held-out samples tell of the last loss: a linear fit, and how far it errs.

    ``lower`` and ``upper`` bound each feature to where it was fitted. ``residuals`` are expected
    minus last loss of the held-out samples, cross-fitted and sorted, nats per token.
    """

    intercept: float
    slopes: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    residuals: NDArray[np.float64]


def late_drop(columns: Columns, heldout: pl.DataFrame) -> pl.Expr:
    """Drop of the loss since the held-out loss was lowest, minus the mean held-out drop since then.

    Nats per token, any sign. Where the held-out loss is lowest at the last checkpoint, the drop is
    counted from checkpoint floor(T / 2). Needs: the trace and the held-out trace. Cost: none.

    Source: our own; only what does not generalise is left of the drop.
    """
    seen = heldout.drop_nulls(columns)
    require_heldout("late_drop", seen.height, 1)
    first, last = losses([columns[_lowest_checkpoint(columns, seen)], columns[-1]])
    expected: float = seen.select((first - last).mean()).item()
    return first - last - expected


def late_drop_sum(columns: Columns, heldout: pl.DataFrame, num_tokens: pl.Expr) -> pl.Expr:
    """``late_drop`` of the whole text: nats, any sign. Needs and cost: as ``late_drop``.

    Source: our own; sums ranked better than means where both were tried.
    """
    return late_drop(columns, heldout) * num_tokens


def calibrated_drop(
    columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr, heldout: pl.DataFrame
) -> pl.Expr:
    """Expected minus actual last loss, nats per token, any sign.

    What is expected is a least-squares fit to the held-out samples on the first loss, its square,
    the number of tokens and the compressed bytes per token; outside of the held-out range of a
    feature it is that of the range's end. The first loss must predate the sample's first update:
    the online one does, a probe need not. An online first loss is that of any moment of the first
    pass and the held-out one that of its end, so in that mode the drop also tells when in the first
    pass a sample was met.

    Needs: the trace, the held-out trace and the corpus column ``text``. Cost: compressing the texts
    and one small fit.

    Source: our own; difficulty calibration as in Watson et al. 2022, arXiv:2111.08440, with a fit
    in place of reference models.
    """
    return _drop(calibrate(columns, heldout), columns, num_tokens, zlib_size)


def calibrated_drop_log_p(
    columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr, heldout: pl.DataFrame
) -> pl.Expr:
    """Minus log10 of the conformal p-value of ``calibrated_drop``, in [0, log10(1 + n)].

    p = (1 + number of held-out residuals at least as large) / (1 + n), for n held-out samples. On
    one run and where the held-out samples are exchangeable with unmemorized ones, p is at most a
    with probability a, so Benjamini-Hochberg on it bounds the share of false finds; the mean over
    runs has no such meaning. Needs and cost: as ``calibrated_drop``.

    Source: Vovk et al. 2005; Bates et al. 2023, arXiv:2104.08279.
    """
    fit = calibrate(columns, heldout)
    return log_p(_drop(fit, columns, num_tokens, zlib_size), fit.residuals)


def log_p(residual: pl.Expr, heldout_residuals: NDArray[np.float64]) -> pl.Expr:
    """Minus log10 of ``p_values``, null where the residual is."""

    def of_values(residuals: pl.Series) -> pl.Series:
        return pl.Series(-np.log10(p_values(residuals.to_numpy(), heldout_residuals)))

    log_ps = residual.map_batches(of_values, return_dtype=pl.Float64, is_elementwise=True)
    return pl.when(residual.is_not_null()).then(log_ps)


def p_values(
    residuals: NDArray[np.float64], heldout_residuals: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Conformal p-values in (0, 1], in input order; ``heldout_residuals`` is sorted."""
    num_heldout = len(heldout_residuals)
    num_larger = num_heldout - np.searchsorted(heldout_residuals, residuals, side="left")
    return np.asarray((1 + num_larger) / (1 + num_heldout), dtype=np.float64)


def calibrate(columns: Columns, heldout: pl.DataFrame) -> Calibration:
    """Fit the last held-out loss to what is known of a sample before it is trained on.

    Raises:
        DataError: Fewer than ``MIN_HELDOUT`` held-out samples have both losses.
    """
    features = _features(columns, pl.col("num_tokens"), pl.col("zlib_size"))
    table = heldout.select(
        *[f.alias(str(i)) for i, f in enumerate(features)], last=losses(columns)[-1]
    )
    *inputs, last = (column.to_numpy() for column in table.drop_nulls().iter_columns())
    require_heldout("calibrated_drop", len(last), MIN_HELDOUT)
    known = np.stack(inputs, axis=1)
    fold = np.arange(len(last)) % FOLDS
    residuals = np.empty(len(last))
    for part in range(FOLDS):
        intercept, slopes = least_squares(known[fold != part], last[fold != part])
        residuals[fold == part] = intercept + known[fold == part] @ slopes - last[fold == part]
    intercept, slopes = least_squares(known, last)
    return Calibration(
        intercept,
        tuple(slopes.tolist()),
        tuple(known.min(axis=0).tolist()),
        tuple(known.max(axis=0).tolist()),
        np.sort(residuals),
    )


def relative_area(columns: Columns, trace: Trace) -> pl.Expr:
    """Minus the area between a curve and that of samples with a like first loss.

    Sum over the seen checkpoints of (mean loss of the samples with a like first loss, minus the
    loss), nats per token times checkpoints, any sign, 0 on average. High: the curve falls sooner
    than its like, as that of a duplicate; very low: atypical text. Like are the samples of one
    quantile group of the first loss: ``MAX_GROUPS`` groups at most, of about ``MIN_LIKE`` samples
    or more. Null: not seen at the first checkpoint. Needs: the trace. Cost: one pass over the
    losses, a column at a time.

    Source: our own.
    """
    # Sorted by id, since sums of floats depend on their order.
    order = trace.index["sample_id"].arg_sort()
    first = _column(trace, columns[0], order)
    is_scored = ~np.isnan(first)
    num_groups = int(np.clip(is_scored.sum() // MIN_LIKE, 1, MAX_GROUPS))
    shares = np.arange(1, num_groups) / num_groups
    cuts = np.quantile(first[is_scored], shares) if num_groups > 1 else np.empty(0)
    group = np.searchsorted(cuts, first)
    area = np.where(is_scored, 0.0, np.nan)
    for name in columns:
        loss = _column(trace, name, order)
        counted = is_scored & ~np.isnan(loss)
        sums = np.bincount(group[counted], weights=loss[counted], minlength=num_groups)
        counts = np.bincount(group[counted], minlength=num_groups)
        area[counted] += (sums / np.maximum(counts, 1))[group[counted]] - loss[counted]
    in_row_order = np.empty_like(area)
    in_row_order[order.to_numpy()] = area
    return pl.lit(pl.Series(in_row_order, nan_to_null=True))


def _lowest_checkpoint(columns: Columns, heldout: pl.DataFrame) -> int:
    means = heldout.select(loss.mean() for loss in losses(columns)).row(0)
    lowest = int(np.argmin(means))
    return lowest if lowest < len(columns) - 1 else len(columns) // 2


def _drop(fit: Calibration, columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr) -> pl.Expr:
    features = zip(
        _features(columns, num_tokens, zlib_size), fit.slopes, fit.lower, fit.upper, strict=True
    )
    expected = sum(
        (slope * feature.clip(low, high) for feature, slope, low, high in features),
        start=pl.lit(fit.intercept),
    )
    return expected - losses(columns)[-1]


def _features(columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr) -> list[pl.Expr]:
    first = losses(columns)[0]
    return [first, first**2, num_tokens.cast(pl.Float64), zlib_size / num_tokens]


def least_squares(
    known: NDArray[np.float64], last: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and slopes; of features that tell the same, the shortest slopes."""
    mean, scale = known.mean(axis=0), known.std(axis=0)
    scale[scale == 0] = 1
    slopes = np.linalg.lstsq((known - mean) / scale, last - last.mean())[0] / scale
    return float(last.mean() - mean @ slopes), slopes


def _column(trace: Trace, name: str, order: pl.Series) -> NDArray[np.float64]:
    column = trace.losses.select(pl.col(name).cast(pl.Float64)).collect().to_series()
    return column[order].to_numpy()


def require_heldout(score: str, num_samples: int, minimum: int) -> None:
    """Raise ``DataError`` unless ``score`` has that many held-out samples."""
    if num_samples < minimum:
        raise DataError(
            f"{score}: expected at least {minimum} held-out samples with their losses, got "
            f"{num_samples}. Raise ingest.validation_fraction or take {score} out of score.enabled."
        )

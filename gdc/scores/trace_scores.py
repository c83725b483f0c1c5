"""Loss columns of one sample -> expressions: difficulty, memorization and the trace-only scores.

Every score is higher the more a sample is taken to be memorized, and null where it is not defined.
All read nothing but the trace and cost no model run. Each is computed a block of samples at a time,
so none needs the trace in memory.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

Columns = Sequence[str]
# Losses of each checkpoint; the same of a block, checkpoints x samples; a number for each sample.
# NaN: not seen.
Curves = Sequence[NDArray[np.float32]]
Losses = NDArray[np.float64]
Values = NDArray[np.float64]
_Term = TypeVar("_Term", pl.Expr, Values)

# Samples of a block: with ten checkpoints its losses stay in the cache of a core.
_BLOCK: Final = 4096


def losses(columns: Columns) -> list[pl.Expr]:
    """The losses in double precision, in checkpoint order."""
    return [pl.col(name).cast(pl.Float64) for name in columns]


def difficulty(columns: Columns, num_early: int) -> pl.Expr:
    """Mean loss over the first checkpoints, nats per token; high: hard to learn.

    Source: arXiv:2509.00083, with ``num_early`` for T_e.
    """
    return mean(columns[:num_early])


def mean(columns: Columns) -> pl.Expr:
    """Mean of the recorded losses, nats per token; null: there is none.

    polars' own horizontal mean adds in an order that depends on its threads.
    """
    num_seen = _count([pl.col(name).is_not_null() for name in columns])
    return pl.when(num_seen > 0).then(
        _tree_sum([loss.fill_null(0.0) for loss in losses(columns)]) / num_seen
    )


def memorization(columns: Columns, epsilon: float) -> pl.Expr:
    """Share of checkpoint steps, in [0, 1], that forget: below ``epsilon`` before, above it after.

    A loss equal to ``epsilon`` is neither, so no event touches it. With T checkpoints there are at
    most floor(T / 2) events. Needs: the trace. Cost: none.

    Source: arXiv:2509.00083; forget events: Toneva et al. 2019, arXiv:1812.05159.
    """
    below, above = _bound(epsilon, np.inf), _bound(epsilon, -np.inf)
    count = np.min_scalar_type(len(columns))

    def of_curves(curves: Curves) -> Values:
        num_events, num_steps = (np.zeros(len(curves[0]), count) for _ in range(2))
        for before, after in pairwise(curves):
            num_events += ((before < below) & (after > above)).view(np.uint8)
            num_steps += (~np.isnan(before) & ~np.isnan(after)).view(np.uint8)
        return _ratio(num_events, num_steps)

    return _of_curves(columns, of_curves)


def first_learned(columns: Columns, epsilon: float) -> pl.Expr:
    """Ordinal of the first checkpoint with a loss below ``epsilon``; null: there is none."""
    below = pl.lit(_bound(epsilon, np.inf), pl.Float32)
    return pl.coalesce(
        pl.when(pl.col(name) < below).then(pl.lit(float(t))) for t, name in enumerate(columns)
    )


def forget_hysteresis(columns: Columns, epsilon: float, band: float) -> pl.Expr:
    """Share of the steps between seen checkpoints, in [0, 1], that forget across a band.

    A sample is learned once its loss is below ``epsilon - band`` and stays so until it is above
    ``epsilon + band``; that is the event, at most floor(T / 2) of them. What lies in the band or
    was not seen changes nothing, so noise of less than ``band`` nats per token makes no event.
    Null: seen less than twice. Needs: the trace. Cost: none.

    Source: ``memorization`` with a Schmitt trigger for its threshold.
    """

    def of_block(losses: Losses) -> Values:
        learned = np.zeros(losses.shape[1], dtype=np.bool_)
        num_events = np.zeros(losses.shape[1], dtype=np.int64)
        for is_low, is_high in zip(losses < epsilon - band, losses > epsilon + band, strict=True):
            num_events += learned & is_high
            learned = is_low | (learned & ~is_high)
        return _ratio(num_events, np.maximum(_num_seen(losses) - 1, 0))

    return _by_block(columns, of_block)


def forget_adaptive(columns: Columns) -> pl.Expr:
    """``memorization``, in [0, 1], with the middle of the sample's own range for epsilon.

    Each sample forgets at its own level, so an easy and a hard one are told apart only by how often
    they swing. Needs: the trace. Cost: none.

    Source: ``memorization`` without its threshold, which otherwise measures closeness to epsilon.
    """

    def of_block(losses: Losses) -> Values:
        middle = (np.fmax.reduce(losses, axis=0) + np.fmin.reduce(losses, axis=0)) / 2
        events = (losses[:-1] < middle) & (losses[1:] > middle)
        return _ratio(np.count_nonzero(events, axis=0), _num_steps(losses))

    return _by_block(columns, of_block)


def forget_magnitude(columns: Columns) -> pl.Expr:
    """Sum of the rises of the loss from one checkpoint to the next, nats per token, at least 0.

    Steps with both losses count; null: there is none. Needs: the trace. Cost: none.

    Source: ``memorization`` without a threshold, each event with its size.
    """

    def of_block(losses: Losses) -> Values:
        rises = np.diff(losses, axis=0)
        rises[~(rises > 0)] = 0
        return np.where(_num_steps(losses) > 0, _tree_sum(list(rises)), np.nan)

    return _by_block(columns, of_block)


def iqr(columns: Columns) -> pl.Expr:
    """Third minus first quartile of the losses, nats per token, at least 0.

    Quartiles interpolate linearly. Null: seen less than twice. Needs: the trace. Cost: a sort of
    each curve.

    Source: Pollock et al. 2024, arXiv:2411.05743.
    """

    def of_block(losses: Losses) -> Values:
        ordered, num_seen = np.sort(losses, axis=0), _num_seen(losses)  # NaN comes last
        spread = _quantile(ordered, num_seen, 0.75) - _quantile(ordered, num_seen, 0.25)
        return np.where(num_seen > 1, spread, np.nan)

    return _by_block(columns, of_block)


def std(columns: Columns) -> pl.Expr:
    """Standard deviation of the losses (divisor: their number), nats per token, at least 0.

    Null: seen less than twice. Needs: the trace. Cost: none.

    Source: as ``iqr``, which is not moved by a single odd checkpoint; here every loss counts.
    """

    def of_block(losses: Losses) -> Values:
        is_unseen, num_seen = np.isnan(losses), _num_seen(losses)
        losses[is_unseen] = 0
        squares = losses - _ratio(_tree_sum(list(losses)), num_seen)
        squares *= squares
        squares[is_unseen] = 0
        return np.sqrt(_ratio(_tree_sum(list(squares)), np.where(num_seen > 1, num_seen, 0)))

    return _by_block(columns, of_block)


def total_drop(columns: Columns) -> pl.Expr:
    """First minus last loss, nats per token, any sign. Needs: the trace. Cost: none.

    It holds what the model learned of all text as well: see ``calibrated_drop``.

    Source: our own baseline of the drops.
    """
    first, *_, last = losses(columns)
    return first - last


def total_drop_sum(columns: Columns, num_tokens: pl.Expr) -> pl.Expr:
    """``total_drop`` of the whole text: nats, any sign. Needs: the trace. Cost: none.

    Source: our own; sums ranked better than means where both were tried.
    """
    return total_drop(columns) * num_tokens


def online_probe_gap(both_modes: tuple[Columns, Columns]) -> pl.Expr:
    """Mean online loss after the first pass minus mean frozen loss late on, nats per token.

    An online loss is asked a whole pass after the sample was last trained on, a frozen one sooner:
    what lies between is what the sample's own updates gain and the others undo. To this comes the
    drop from early to late. The first pass is left out, as all text falls there, memorized or not;
    so what is repeated within a pass and collapses in it is missed. Any sign. Null: a sample was
    not trained on. Needs: a trace of both modes, its online and its probe columns. Cost: none.

    Source: our own, found on CPython's documentation with the LSTM of preset `leaderboard`.
    """
    online, probes = both_modes
    late = probes[len(probes) // 2 :]
    return mean(online[1:]) - mean(late)


def _by_block(columns: Columns, of_block: Callable[[Losses], Values]) -> pl.Expr:
    """A number for each sample; ``of_block`` may overwrite the losses it is given."""

    def of_curves(curves: Curves) -> Values:
        values = np.empty(len(curves[0]))
        for start in range(0, len(values), _BLOCK):
            block = slice(start, start + _BLOCK)
            values[block] = of_block(np.stack([curve[block] for curve in curves], dtype=np.float64))
        return values

    return _of_curves(columns, of_curves)


def _of_curves(columns: Columns, of_curves: Callable[[Curves], Values]) -> pl.Expr:
    """A number for each sample, NaN becoming null, from the losses of each checkpoint in turn."""

    def of_table(table: pl.Series) -> pl.Series:
        curves = [column.to_numpy() for column in table.struct.unnest()]
        return pl.Series(of_curves(curves), nan_to_null=True)

    return pl.struct(columns).map_batches(of_table, pl.Float64, is_elementwise=True)


def _quantile(ordered: Losses, num_seen: NDArray[np.int64], share: float) -> Values:
    """Quantile of each sample's first ``num_seen`` losses, with linear interpolation."""
    place = np.maximum(num_seen - 1, 0) * share
    before, sample = place.astype(np.int64), np.arange(ordered.shape[1])
    low, high = ordered[before, sample], ordered[np.ceil(place).astype(np.int64), sample]
    return np.where(low == high, low, (place - before) * (high - low) + low)


def _num_seen(losses: Losses) -> NDArray[np.int64]:
    return np.asarray(np.count_nonzero(~np.isnan(losses), axis=0), dtype=np.int64)


def _num_steps(losses: Losses) -> NDArray[np.int64]:
    """Steps with both losses."""
    is_seen = ~np.isnan(losses)
    return np.asarray(np.count_nonzero(is_seen[:-1] & is_seen[1:], axis=0), dtype=np.int64)


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Values:
    """NaN where ``whole`` is 0."""
    ratio: Values = np.full(len(whole), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _count(conditions: Sequence[pl.Expr]) -> pl.Expr:
    return pl.sum_horizontal(*conditions)


def _bound(epsilon: float, side: float) -> np.float32:
    """The nearest float32 to ``epsilon`` that is not on its other side.

    A float32 is below it, or above it, just where it is so of ``epsilon`` itself, and the losses
    need no cast.
    """
    nearest = np.float32(epsilon)
    # As Python floats: numpy would compare in single precision.
    is_on_side = float(nearest) >= epsilon if side > 0 else float(nearest) <= epsilon
    return nearest if is_on_side else np.nextafter(nearest, np.float32(side))


def _tree_sum(terms: Sequence[_Term]) -> _Term:
    """The sum of halves, each the sum of its halves: in an order that depends on nothing else."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _tree_sum(terms[:middle]) + _tree_sum(terms[middle:])

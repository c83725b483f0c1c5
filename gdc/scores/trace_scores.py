"""Loss columns of one sample -> expressions: difficulty, memorization and the trace-only scores.

Every score is higher the more a sample is taken to be memorized, and null where it is not defined.
All read nothing but the trace and cost no model run. Each is computed a block of samples at a time,
so none needs the trace in memory.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

Columns = Sequence[str]
# Losses of a block of samples at each checkpoint, NaN: not seen; a number for each sample.
Curves = Sequence[NDArray[np.float32]]
Values = NDArray[np.float64]

# Weight of the early losses in ``online_late_contrast``, and the loss, in nats per token, below
# which the concave scale no longer rises: that of a text known by heart.
_EARLY_FACTOR: Final = 2.5
_SMALLEST_LOSS: Final = 1e-4

# Samples of a block: with ten checkpoints its losses stay in the cache of a core.
_BLOCK: Final = 8192


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
    num_seen = _num_seen(columns)
    return pl.when(num_seen > 0).then(
        _tree_sum([loss.fill_null(0.0) for loss in losses(columns)]) / num_seen
    )


def memorization(columns: Columns, epsilon: float) -> pl.Expr:
    """Share of checkpoint steps, in [0, 1], that forget: below ``epsilon`` before, above it after.

    A loss equal to ``epsilon`` is neither, so no event touches it. With T checkpoints there are at
    most floor(T / 2) events. Needs: the trace. Cost: none.

    Source: arXiv:2509.00083; forget events: Toneva et al. 2019, arXiv:1812.05159.
    """
    events = [
        _is_below(pl.col(before), epsilon) & _is_above(pl.col(after), epsilon)
        for before, after in pairwise(columns)
    ]
    steps = _is_step(columns)
    return pl.when(pl.any_horizontal(steps)).then(_count(events) / _count(steps))


def first_learned(columns: Columns, epsilon: float) -> pl.Expr:
    """Ordinal of the first checkpoint with a loss below ``epsilon``; null: there is none."""
    return pl.coalesce(
        pl.when(_is_below(pl.col(name), epsilon)).then(pl.lit(float(t)))
        for t, name in enumerate(columns)
    )


def never_learned(columns: Columns, epsilon: float) -> pl.Expr:
    """Whether no checkpoint has a loss below ``epsilon``."""
    return ~_is_below(pl.min_horizontal(columns), epsilon).fill_null(value=False)


def forget_hysteresis(columns: Columns, epsilon: float, band: float) -> pl.Expr:
    """Share of the steps between seen checkpoints, in [0, 1], that forget across a band.

    A sample is learned once its loss is below ``epsilon - band`` and stays so until it is above
    ``epsilon + band``; that is the event, at most floor(T / 2) of them. What lies in the band or
    was not seen changes nothing, so noise of less than ``band`` nats per token makes no event.
    Null: seen less than twice. Needs: the trace. Cost: none.

    Source: ``memorization`` with a Schmitt trigger for its threshold.
    """
    low, high = _toward(epsilon - band, math.inf), _toward(epsilon + band, -math.inf)

    def block_values(curves: Curves) -> Values:
        is_learned = np.zeros(len(curves[0]), np.bool_)
        num_events = np.zeros(len(curves[0]), np.uint32)
        for curve in curves:
            is_event = is_learned & (curve > high)
            num_events += is_event
            is_learned = (is_learned ^ is_event) | (curve < low)
        num_seen = _times_seen(curves)
        return np.where(num_seen > 1, num_events / np.maximum(num_seen - 1.0, 1), np.nan)

    return _by_block(columns, block_values)


def forget_adaptive(columns: Columns) -> pl.Expr:
    """``memorization``, in [0, 1], with the middle of the sample's own range for epsilon.

    Each sample forgets at its own level, so an easy and a hard one are told apart only by how often
    they swing. Needs: the trace. Cost: none.

    Source: ``memorization`` without its threshold, which otherwise measures closeness to epsilon.
    """
    loss, middle = [pl.field(name) for name in columns], pl.field("middle")
    events = [(before < middle) & (after > middle) for before, after in pairwise(loss)]
    highest, lowest = pl.max_horizontal(columns), pl.min_horizontal(columns)
    known = pl.struct(
        *losses(columns),
        middle=(highest.cast(pl.Float64) + lowest) / 2,
        num_steps=_count(_is_step(columns)),
    )
    num_steps = pl.field("num_steps")
    return _value_of(known, pl.when(num_steps > 0).then(_count(events) / num_steps))


def forget_magnitude(columns: Columns) -> pl.Expr:
    """Sum of the rises of the loss from one checkpoint to the next, nats per token, at least 0.

    Steps with both losses count; null: there is none. Needs: the trace. Cost: none.

    Source: ``memorization`` without a threshold, each event with its size.
    """
    rises = [after - before for before, after in pairwise(losses(columns))]
    total = _tree_sum([pl.max_horizontal(rise, 0.0) for rise in rises])
    return pl.when(pl.any_horizontal(_is_step(columns))).then(total)


def iqr(columns: Columns) -> pl.Expr:
    """Third minus first quartile of the losses, nats per token, at least 0.

    Quartiles interpolate linearly. Null: seen less than twice. Needs: the trace. Cost: a sort of
    each curve.

    Source: Pollock et al. 2024, arXiv:2411.05743.
    """

    def block_values(curves: Curves) -> Values:
        num_seen = _times_seen(curves)
        ordered = np.sort(np.stack(curves, axis=1), axis=1).T  # NaN comes last
        spread = np.full(len(num_seen), np.nan)
        for count in np.flatnonzero(np.bincount(num_seen)):
            if count > 1:
                quartiles = (_quantile(ordered[:count], share) for share in (0.75, 0.25))
                np.copyto(spread, np.subtract(*quartiles), where=num_seen == count)
        return spread

    return _by_block(columns, block_values)


def std(columns: Columns) -> pl.Expr:
    """Standard deviation of the losses (divisor: their number), nats per token, at least 0.

    Null: seen less than twice, or infinite. Needs: the trace. Cost: none.

    Source: as ``iqr``, which is not moved by a single odd checkpoint; here every loss counts.
    """
    num_seen = pl.field("num_seen")
    known = pl.struct(*losses(columns), mean=mean(columns), num_seen=_num_seen(columns))
    known = known.struct.with_fields(
        (pl.field(name) - pl.field("mean")).fill_null(0.0) for name in columns
    )
    squares = _tree_sum([pl.field(name) * pl.field(name) for name in columns])
    return _value_of(known, pl.when(num_seen > 1).then((squares / num_seen).sqrt().fill_nan(None)))


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

    An online loss is measured a whole pass after the sample was last trained on, a frozen one
    sooner: the difference is what the sample's own updates gain and the others undo, plus the drop
    from early to late. The first pass is left out, as the loss of all text falls there, memorized
    or not; so samples that are repeated and learned within the first pass are missed.
    Any sign. Null: a sample was not trained on. Needs: a trace of both modes, its online and its
    probe columns. Cost: none.

    Source: our own, found on CPython's documentation with the LSTM of preset `leaderboard`.
    """
    online, probes = both_modes
    late = probes[len(probes) // 2 :]
    return mean(online[1:]) - mean(late)


def online_late_contrast(both_modes: tuple[Columns, Columns]) -> pl.Expr:
    """late^(-1/4) - 2.5 early^(-1/4): low at the end, high while it was being learned.

    ``early`` is the mean online loss of passes 2 to 3/4 of all, ``late`` the mean frozen loss of
    the last quarter of the probes, both in nats per token and at least 1e-4; so the score has no
    unit, and any sign. The online loss of the middle passes stands for the loss under models that
    did not see the text. On the concave scale a text that is repeated, whose online loss falls with
    its frozen one, keeps a high score. Null: not trained on in those passes.

    Needs: a trace of both modes, its online and its probe columns. Cost: none.

    Source: our own; the factor and the exponent were chosen on paragraphs of an encyclopedia.
    """
    middle, late = middle_and_late(both_modes)
    return contrast(mean(middle), mean(late))


def middle_and_late(both_modes: tuple[Columns, Columns]) -> tuple[Columns, Columns]:
    """Online columns of passes 2 to 3/4 of all, and the last quarter of the probes."""
    online, probes = both_modes
    return online[1 : max(2, 3 * len(online) // 4)], probes[3 * len(probes) // 4 :]


def contrast(unseen: pl.Expr, late: pl.Expr, factor: float = _EARLY_FACTOR) -> pl.Expr:
    """late^(-1/4) - factor unseen^(-1/4) of two losses, nats per token and at least 1e-4."""
    return _inverse_root(late) - factor * _inverse_root(unseen)


def _inverse_root(loss: pl.Expr) -> pl.Expr:
    """loss^(-1/4) by square roots, whose rounding is the same on every processor."""
    return 1 / loss.clip(lower_bound=_SMALLEST_LOSS).sqrt().sqrt()


def _num_seen(columns: Columns) -> pl.Expr:
    return _count([pl.col(name).is_not_null() for name in columns])


def _is_step(columns: Columns) -> list[pl.Expr]:
    """From one checkpoint to the next, with both losses."""
    seen = [pl.col(name).is_not_null() for name in columns]
    return [before & after for before, after in pairwise(seen)]


def _count(conditions: Sequence[pl.Expr]) -> pl.Expr:
    """How many hold; null does not.

    In the smallest type, as polars' own sum of flags takes longer. A number is chosen by each flag,
    which takes a tenth of the time of its cast.
    """
    dtype = pl.UInt8 if len(conditions) < 2**8 else pl.UInt32
    one, zero = pl.lit(1, dtype), pl.lit(0, dtype)
    return _tree_sum([pl.when(condition).then(one).otherwise(zero) for condition in conditions])


def _value_of(known: pl.Expr, value: pl.Expr) -> pl.Expr:
    """``value`` of the fields of a struct.

    What is used more than once is a field: a part of several expressions is computed in each.
    """
    return known.struct.with_fields(value.alias("value")).struct.field("value")


def _by_block(columns: Columns, block_values: Callable[[Curves], Values]) -> pl.Expr:
    """A number for each sample, NaN becoming null, computed by numpy.

    For what polars has no expression for, or a long one: planning takes more than its length.
    """

    def table_values(table: pl.Series) -> pl.Series:
        curves = [column.to_numpy() for column in table.struct.unnest()]
        values = np.empty(len(table))
        for start in range(0, len(values), _BLOCK):
            block = slice(start, start + _BLOCK)
            values[block] = block_values([curve[block] for curve in curves])
        return pl.Series(values, nan_to_null=True)

    return pl.struct(columns).map_batches(table_values, pl.Float64, is_elementwise=True)


def _times_seen(curves: Curves) -> NDArray[np.uint32]:
    num_seen = np.zeros(len(curves[0]), np.uint32)
    for curve in curves:
        num_seen += ~np.isnan(curve)
    return num_seen


def _quantile(ordered: NDArray[np.float32], share: float) -> Values:
    """Quantile of the rows, with linear interpolation."""
    index = (len(ordered) - 1) * share
    low, high = (ordered[i].astype(np.float64) for i in (math.floor(index), math.ceil(index)))
    between: Values = (index % 1) * (high - low) + low
    return np.where(low == high, low, between)


def _is_below(loss: pl.Expr, bound: float) -> pl.Expr:
    return loss < pl.lit(_toward(bound, math.inf), pl.Float32)


def _is_above(loss: pl.Expr, bound: float) -> pl.Expr:
    return loss > pl.lit(_toward(bound, -math.inf), pl.Float32)


def _toward(bound: float, side: float) -> np.float32:
    """The nearest float32 to ``bound``, or the next one, that does not lie on its other side.

    A float32 is below it, or above it, just where it is so of ``bound`` itself, and the losses,
    which are of that type, need no cast.
    """
    nearest = np.float32(bound)
    # As Python floats: numpy would compare in single precision.
    is_on_side = float(nearest) >= bound if side > 0 else float(nearest) <= bound
    return nearest if is_on_side else np.nextafter(nearest, np.float32(side))


def _tree_sum(terms: Sequence[pl.Expr]) -> pl.Expr:
    """The sum of halves, each the sum of its halves: in an order that depends on nothing else."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return _tree_sum(terms[:middle]) + _tree_sum(terms[middle:])

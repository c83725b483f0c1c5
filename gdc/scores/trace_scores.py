"""Loss columns of one sample -> expressions: difficulty, memorization and the trace-only scores.

Every score is higher the more a sample is taken to be memorized, and null where it is not defined.
All read nothing but the trace and cost no model run.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import add

import polars as pl

Columns = Sequence[str]


def losses(columns: Columns) -> list[pl.Expr]:
    """The losses in double precision, in checkpoint order."""
    return [pl.col(name).cast(pl.Float64) for name in columns]


def difficulty(columns: Columns, num_early: int) -> pl.Expr:
    """Mean loss over the first checkpoints, nats per token; high: hard to learn.

    Source: arXiv:2509.00083, with ``num_early`` for T_e.
    """
    return pl.mean_horizontal(*losses(columns[:num_early]))


def memorization(columns: Columns, epsilon: float | pl.Expr) -> pl.Expr:
    """Share of checkpoint steps, in [0, 1], that forget: below ``epsilon`` before, above it after.

    A loss equal to ``epsilon`` is neither, so no event touches it. With T checkpoints there are at
    most floor(T / 2) events. Needs: the trace. Cost: none.

    Source: arXiv:2509.00083; forget events: Toneva et al. 2019, arXiv:1812.05159.
    """
    steps = list(pairwise(losses(columns)))
    # Kleene logic: `null & False` is False, so the steps that exist are counted by themselves.
    events = _count([(before < epsilon) & (after > epsilon) for before, after in steps])
    existing = _count([before.is_not_null() & after.is_not_null() for before, after in steps])
    return pl.when(existing > 0).then(events / existing)


def first_learned(columns: Columns, epsilon: float) -> pl.Expr:
    """Ordinal of the first checkpoint with a loss below ``epsilon``; null: there is none."""
    return pl.coalesce(
        pl.when(loss < epsilon).then(pl.lit(float(t))) for t, loss in enumerate(losses(columns))
    )


def forget_hysteresis(columns: Columns, epsilon: float, band: float) -> pl.Expr:
    """Share of the steps between seen checkpoints, in [0, 1], that forget across a band.

    A sample is learned once its loss is below ``epsilon - band`` and stays so until it is above
    ``epsilon + band``; that is the event, at most floor(T / 2) of them. What lies in the band or
    was not seen changes nothing, so noise of less than ``band`` nats per token makes no event.
    Null: seen less than twice. Needs: the trace. Cost: none.

    Source: ``memorization`` with a Schmitt trigger for its threshold.
    """

    def step(code: pl.Series, loss: pl.Series) -> pl.Series:
        learned = code % 2 == 1
        is_low = (loss < epsilon - band).fill_null(value=False)
        is_high = (loss > epsilon + band).fill_null(value=False)
        num_events = code // 2 + (learned & is_high).cast(pl.Int64)
        return num_events * 2 + (is_low | (learned & ~is_high)).cast(pl.Int64)

    # Twice the number of events, plus one while learned; nested `when`s plan in T squared.
    code = pl.fold(acc=pl.lit(0, pl.Int64), function=step, exprs=losses(columns))
    return (code // 2) / _seen_steps(columns)


def forget_adaptive(columns: Columns) -> pl.Expr:
    """``memorization``, in [0, 1], with the middle of the sample's own range for epsilon.

    Each sample forgets at its own level, so an easy and a hard one are told apart only by how often
    they swing. Needs: the trace. Cost: none.

    Source: ``memorization`` without its threshold, which otherwise measures closeness to epsilon.
    """
    highest, lowest = pl.max_horizontal(*losses(columns)), pl.min_horizontal(*losses(columns))
    return memorization(columns, (highest + lowest) / 2)


def forget_magnitude(columns: Columns) -> pl.Expr:
    """Sum of the rises of the loss from one checkpoint to the next, nats per token, at least 0.

    Steps with both losses count; null: there is none. Needs: the trace. Cost: none.

    Source: ``memorization`` without a threshold, each event with its size.
    """
    rises = [(after - before).clip(lower_bound=0) for before, after in pairwise(losses(columns))]
    return pl.when(pl.any_horizontal(*[rise.is_not_null() for rise in rises])).then(
        pl.sum_horizontal(*rises)
    )


def iqr(columns: Columns) -> pl.Expr:
    """Third minus first quartile of the losses, nats per token, at least 0.

    Quartiles interpolate linearly. Null: seen less than twice. Needs: the trace. Cost: a sort of
    each curve, more than all the other trace-only scores together.

    Source: Pollock et al. 2024, arXiv:2411.05743.
    """
    quartiles = [pl.element().quantile(share, interpolation="linear") for share in (0.75, 0.25)]
    spread = pl.concat_list(losses(columns)).list.eval(quartiles[0] - quartiles[1]).list.first()
    return pl.when(_seen_steps(columns).is_not_null()).then(spread)


def std(columns: Columns) -> pl.Expr:
    """Standard deviation of the losses (divisor: their number), nats per token, at least 0.

    Null: seen less than twice. Needs: the trace. Cost: none.

    Source: as ``iqr``, which is not moved by a single odd checkpoint; here every loss counts.
    """
    mean = pl.mean_horizontal(*losses(columns))
    variance = pl.mean_horizontal(*[(loss - mean) ** 2 for loss in losses(columns)])
    return pl.when(_seen_steps(columns).is_not_null()).then(variance.sqrt())


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
    return pl.mean_horizontal(*losses(online[1:])) - pl.mean_horizontal(*losses(late))


def _seen_steps(columns: Columns) -> pl.Expr:
    """Steps from one seen checkpoint to the next seen one; null: none."""
    num_seen = _count([loss.is_not_null() for loss in losses(columns)])
    return pl.when(num_seen > 1).then(num_seen - 1)


def _count(conditions: Sequence[pl.Expr]) -> pl.Expr:
    return reduce(add, [c.fill_null(value=False).cast(pl.Int64) for c in conditions])

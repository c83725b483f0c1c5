"""The scores that every other must beat, as expressions; higher: more memorized."""

import polars as pl

from gdc.scores.trace_scores import Columns, losses, mean


def final_loss(columns: Columns) -> pl.Expr:
    """Minus the last loss, nats per token, at most 0. Needs: the trace. Cost: none.

    Source: Yeom et al. 2018, arXiv:1709.01604.
    """
    return -losses(columns)[-1]


def initial_loss(columns: Columns) -> pl.Expr:
    """The first loss, nats per token, at least 0. Needs: the trace. Cost: none.

    Rare text is memorized first. Online losses of the first pass predate the sample's first update.

    Source: our own; it alone tells planted canaries from ordinary text.
    """
    return losses(columns)[0]


def mean_loss(columns: Columns) -> pl.Expr:
    """Minus the mean loss of all checkpoints, nats per token, at most 0.

    Needs: the trace. Cost: none.

    Source: confidence of Swayamdipta et al. 2020, arXiv:2009.10795, with the loss for probability.
    """
    return -mean(columns)


def min_loss(columns: Columns) -> pl.Expr:
    """Minus the smallest loss, nats per token, at most 0. Needs: the trace. Cost: none.

    Source: our own; what ``memorization`` measures when epsilon is below ordinary text.
    """
    return -pl.min_horizontal(*losses(columns))


def ever_below_eps(columns: Columns, epsilon: float) -> pl.Expr:
    """1 if a loss was below ``epsilon``, else 0; null: never seen. Needs: the trace. Cost: none.

    Source: our own; the event without which none is forgotten.
    """
    return (pl.min_horizontal(*losses(columns)) < epsilon).cast(pl.Float64)


def num_copies(num_copies: pl.Expr) -> pl.Expr:
    """Exact copies of the text in the training split, at least 1.

    Needs: the corpus column ``num_copies``. Cost: none.

    Source: Lee et al. 2022, arXiv:2107.06499.
    """
    return num_copies.cast(pl.Float64)


def zlib(columns: Columns, num_tokens: pl.Expr, zlib_size: pl.Expr) -> pl.Expr:
    """Minus the last nats of the whole text for each byte of its compressed form, at most 0.

    Needs: the trace and the corpus column ``text``. Cost: compressing the texts.

    Source: Carlini et al. 2021, arXiv:2012.07805.
    """
    return final_loss(columns) * num_tokens / zlib_size


def random(draw: pl.Expr) -> pl.Expr:
    """A uniform number in [0, 1), a hash of the sample's id and the seed: the null score.

    Needs: nothing. Cost: a hash of each id.

    Source: our own; its spread is what chance looks like.
    """
    return draw

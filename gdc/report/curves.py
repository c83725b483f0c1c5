"""Traces of tracked runs -> how losses fell, of single samples and on average."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from gdc.recording.trace import Trace

_MAX_POINTS: Final = 40


def sample_curves(ids: pl.Series, runs: Sequence[Trace], mode: str) -> pl.DataFrame:
    """``sample_id`` and ``curve``: losses of these samples over checkpoints, mean over the runs."""
    asked = pl.LazyFrame({"sample_id": ids})
    found = []
    for trace in runs:
        columns = trace.columns(mode)
        step = -(-len(columns) // _MAX_POINTS)
        chosen = sorted({*columns[::step], columns[-1]})
        index = trace.index.lazy().select("sample_id")
        losses = pl.concat([index, trace.losses.select(chosen)], how="horizontal")
        found.append(losses.join(asked, on="sample_id", how="semi").collect())
    means = pl.concat(found).group_by("sample_id", maintain_order=True).mean()
    return means.select("sample_id", curve=pl.concat_list(pl.exclude("sample_id").round(3)))


def mean_curves(trace: Trace, mode: str) -> pl.DataFrame:
    """``step``, ``train`` and ``heldout``: mean loss over samples at each checkpoint of a mode."""
    columns = list(trace.columns(mode))
    of_mode = trace.checkpoints.filter(pl.col("mode") == mode).sort("checkpoint")
    means = {
        split: losses.select(pl.col(columns).cast(pl.Float64).mean()).collect().row(0)
        for split, losses in (("train", trace.losses), ("heldout", trace.heldout_losses))
    }
    return of_mode.select("step").with_columns(
        pl.Series(split, values, dtype=pl.Float64) for split, values in means.items()
    )

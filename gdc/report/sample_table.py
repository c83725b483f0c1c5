"""All tables of a workspace -> data/samples.parquet: one flat row a sample, for other programs."""

from collections.abc import Sequence

import polars as pl

from gdc.schema import MASKED, SAMPLES
from gdc.workspace import paths, tables


def write_samples(arms: Sequence[str]) -> None:
    """Write the table of all samples of the current folder; texts pass through and stay on disk.

    Args:
        arms: Those whose plans lie in the folder.
    """
    tables.sink_table(paths.SAMPLES, sample_table(arms), SAMPLES)


def sample_table(arms: Sequence[str]) -> pl.LazyFrame:
    """Join what is known of every row of the corpus, in its order.

    Returns:
        ``SAMPLES`` table, followed by every enabled score and by the action of each arm. What is
        known of training samples alone is null for the others.
    """
    canary = pl.col("family") + "/" + pl.col("num_repeats").cast(pl.String)
    spans = (
        tables.scan("spans")
        .group_by("sample_id", maintain_order=True)
        .agg(spans=pl.struct("start", "end"))
    )
    table = (
        tables.scan("corpus")
        .join(
            tables.scan("canaries").select("canary_id", canary=canary),
            on="canary_id",
            how="left",
            maintain_order="left",
        )
        .join(tables.scan("scores"), on="sample_id", how="left", maintain_order="left")
        .join(tables.scan("quadrants"), on="sample_id", how="left", maintain_order="left")
        .join(spans, on="sample_id", how="left", maintain_order="left")
        .with_columns(pl.col("spans").fill_null(pl.lit([], MASKED)))
    )
    for arm in arms:
        actions = tables.scan_plan(arm).select("sample_id", pl.col("action").alias(action_of(arm)))
        table = table.join(actions, on="sample_id", how="left", maintain_order="left")
    return table.select(*SAMPLES.names(), pl.exclude(*SAMPLES.names(), *_LEFT_OUT))


def action_of(arm: str) -> str:
    """The column with the action of an arm; a name that needs no quotes in SQL."""
    return f"action_{arm.replace('-', '_')}"


_LEFT_OUT = ("canary_id", "num_chars")

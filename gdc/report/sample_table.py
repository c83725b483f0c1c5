"""All tables of a workspace -> data/samples.parquet: one flat row a sample, for other programs."""

from collections.abc import Iterable, Mapping
from typing import Final

import polars as pl

from gdc.schema import MASKED, SAMPLES
from gdc.workspace import paths, tables

JOINED: Final = ("corpus", "canaries", "scores", "quadrants", "spans")
_LEFT_OUT: Final = ("canary_id", "num_chars")
_NO_SCORES: Final = ("stability", "first_learned")
_ACTION: Final = "action_"


def write_samples(arms: Iterable[str]) -> None:
    """Write the table of all samples of the current folder; texts pass through and stay on disk.

    Args:
        arms: Those whose plans lie in the folder.
    """
    joined = {name: tables.scan(name) for name in JOINED}
    table = sample_table(joined, {arm: tables.scan_plan(arm) for arm in arms})
    tables.sink_table(paths.SAMPLES, table, SAMPLES, group_rows=tables.group_rows("corpus"))


def sample_table(
    joined: Mapping[str, pl.LazyFrame], plans: Mapping[str, pl.LazyFrame]
) -> pl.LazyFrame:
    """Join what is known of every row of the corpus, in its order.

    Args:
        joined: The tables that ``JOINED`` names.
        plans: ``PLAN`` tables by arm.

    Returns:
        ``SAMPLES`` table, followed by every enabled score and by the action of each arm. What is
        known of training samples alone is null for the others.
    """
    label = pl.col("family") + "/" + pl.col("num_repeats").cast(pl.String)
    spans = (
        joined["spans"]
        .group_by("sample_id", maintain_order=True)
        .agg(spans=pl.struct("start", "end"))
    )
    canaries = joined["canaries"].select("canary_id", canary=label)
    table = joined["corpus"].join(canaries, on="canary_id", how="left", maintain_order="left")
    # One of the scores is the number of copies, which the corpus knows.
    scores = joined["scores"].drop("num_copies", strict=False)
    for more in (scores, joined["quadrants"], spans):
        table = table.join(more, on="sample_id", how="left", maintain_order="left")
    for arm, plan in plans.items():
        actions = plan.select("sample_id", pl.col("action").alias(action_of(arm)))
        table = table.join(actions, on="sample_id", how="left", maintain_order="left")
    known = table.with_columns(pl.col("spans").fill_null(pl.lit([], MASKED)))
    return known.select(*SAMPLES.names(), pl.exclude(*SAMPLES.names(), *_LEFT_OUT))


def action_of(arm: str) -> str:
    """The column with the action of an arm; a name that needs no quotes in SQL."""
    return f"{_ACTION}{arm.replace('-', '_')}"


def scores_of(samples: pl.LazyFrame) -> list[str]:
    """The scores in a table of samples."""
    numbers = [name for name, dtype in samples.collect_schema().items() if dtype.is_float()]
    return [*(name for name in numbers if name not in _NO_SCORES), "num_copies"]

"""A plan and the near copies of its samples -> for each dropped sample the kept one it repeats."""

import polars as pl

from gdc.schema import PLAN


def with_kept_copies(plan: pl.DataFrame, copies: pl.DataFrame) -> pl.DataFrame:
    """Name, for each dropped sample, the kept sample of the same group of near copies.

    Args:
        plan: ``PLAN`` table.
        copies: ``NEAR_DUPLICATES`` table of its samples.

    Returns:
        ``plan`` with ``duplicate_of``: null for kept samples, and for those of which no copy is
        kept. Of several kept copies it is the one with the smallest id.
    """
    group = pl.coalesce("copy_of", "sample_id")
    grouped = (
        plan.select(PLAN.names())
        .join(
            copies.select("sample_id", copy_of="duplicate_of"),
            on="sample_id",
            how="left",
            maintain_order="left",
        )
        .with_columns(group=group)
    )
    kept = (
        grouped.filter(pl.col("copies") > 0)
        .group_by("group")
        .agg(duplicate_of=pl.col("sample_id").min())
    )
    named = grouped.join(kept, on="group", how="left", maintain_order="left")
    is_dropped = pl.col("action") == "drop"
    return named.select(
        *PLAN.names(), duplicate_of=pl.when(is_dropped).then(pl.col("duplicate_of"))
    )

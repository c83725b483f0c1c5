"""A trace folder, whoever wrote it -> scores and quadrants of its samples, which stay on disk."""

from pathlib import Path
from typing import Any

import polars as pl

from gdc import quadrants, scores, store
from gdc.config import PartitionConfig, ScoreConfig
from gdc.schema import QUADRANT_TABLE, SCORES


def map_trace(
    trace: Path, out: Path, score: ScoreConfig, partition: PartitionConfig
) -> dict[str, Any]:
    """Write ``scores`` and ``quadrants`` of a trace, each as Parquet with a summary in JSON.

    Memory holds a block of samples at a time; a quantile threshold adds about a fiftieth of the
    values that it is a quantile of, a conformal one all of them.

    Args:
        trace: Folder with ``checkpoints.parquet``, ``train/index.parquet`` and a loss file for each
            checkpoint.
        out: Where the files are written, with a row for each row of the index, in its order.
        score: Its enabled scores are of ``scores.STREAMED``.
        partition: An axis among the scores, and both thresholds.

    Returns:
        What stands in ``quadrants.json``.

    Raises:
        ConfigError: A score or the axis cannot be computed from the losses alone.
        DataError: A file is damaged, there are too few losses, or a sample has none to be mapped.
        SchemaError: A file is missing or has other columns or rows.
    """
    with store.naming_damage(trace):
        scan = store.scan_trace(trace)
        table, epsilon = scores.scan_scores(scan, score)
        quadrants.require_axis(table, partition)
        store.sink_table(out / "scores.parquet", table, SCORES)
    written = pl.scan_parquet(out / "scores.parquet")
    num_checkpoints = len(scan.columns(score.mode))
    store.write_json(
        out / "scores.json", scores.summarize(written, score, epsilon, num_checkpoints)
    )
    mapped, summary = quadrants.scan_partition(written, partition)
    store.sink_table(out / "quadrants.parquet", mapped, QUADRANT_TABLE)
    store.write_json(out / "quadrants.json", summary)
    return summary

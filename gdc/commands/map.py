"""A trace folder, whoever wrote it -> scores and quadrants of its samples, which stay on disk."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from gdc import scores
from gdc.config import PartitionConfig, ScoreConfig, Threshold
from gdc.filesystem import durable, table_files
from gdc.mapping import quadrants
from gdc.recording.trace import TraceScan
from gdc.schema import QUADRANT_TABLE, SCORES
from gdc.workspace import files, outputs, ray_cluster, tables, trace_checks, traces

_TABLES: Final = ("scores", "quadrants")


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
        DataError: A file is damaged, there are too few losses, a sample has none to be mapped, an
            id stands in two rows, or a number cannot be.
        SchemaError: A file is missing or has other columns or rows.
    """
    names = (f"{table}.{ending}" for table in _TABLES for ending in ("parquet", "json"))
    outputs.require_free(out, names, {"the trace": trace})
    with tables.naming_damage(trace, remedy=traces.ANEW):
        scan = _open(trace, score, partition)
        for shard in traces.shard_folders(trace):
            trace_checks.require_losses(shard, scan, score.mode)
        table, epsilon = scores.scan_scores(scan, score)
        tables.sink_table(out / "scores.parquet", table, SCORES)
    written = table_files.scan_parquet(out / "scores.parquet")
    num_checkpoints = len(scan.columns(score.mode))
    files.write_json(
        out / "scores.json", scores.summarize(written, score, epsilon, num_checkpoints).to_json()
    )
    name = str(out / "scores.parquet")
    mapped, summary = quadrants.scan_partition(written, partition, name)
    tables.sink_table(out / "quadrants.parquet", mapped, QUADRANT_TABLE)
    files.write_json(out / "quadrants.json", summary.to_json())
    return summary.to_json()


def map_on_cluster(
    trace: Path, out: Path, score: ScoreConfig, partition: PartitionConfig
) -> dict[str, Any]:
    """``map_trace`` on the Ray cluster that is connected, a worker for each shard of the trace.

    All of them see both folders under these names. ``scores/`` and ``quadrants/`` hold one file a
    shard, of its name. What needs all losses, a quantile of them, is read here.
    """
    names = (f"{table}{ending}" for table in _TABLES for ending in ("", ".json"))
    outputs.require_free(out, names, {"the trace": trace})
    trace, out = trace.absolute(), out.absolute()
    with tables.naming_damage(trace, remedy=traces.ANEW):
        scan = _open(trace, score, partition)
        epsilon = scores.epsilon_of([scan], score.mode, score.epsilon)
    given = score.model_copy(update={"epsilon": Threshold(kind="absolute", value=epsilon)})
    shards = traces.shard_folders(trace)
    with durable.new_folder(out / "scores") as folder:
        ray_cluster.for_each(partial(_score_shard, trace, folder, given), shards)
    scored = [out / "scores" / f"{shard.name}.parquet" for shard in shards]
    written = table_files.scan_parquet(*scored)
    num_checkpoints = len(scan.columns(score.mode))
    files.write_json(
        out / "scores.json", scores.summarize(written, score, epsilon, num_checkpoints).to_json()
    )
    _, summary = quadrants.scan_partition(written, partition, str(out / "scores"))
    with durable.new_folder(out / "quadrants") as folder:
        ray_cluster.for_each(
            partial(_map_shard, folder, partition.axis, summary.thresholds), scored
        )
    files.write_json(out / "quadrants.json", summary.to_json())
    return summary.to_json()


def _open(trace: Path, score: ScoreConfig, partition: PartitionConfig) -> TraceScan:
    """Open a trace; what can be refused without a look at its losses is refused."""
    scan = traces.scan(trace, score.mode)
    # Any epsilon will do, to see which scores come of it.
    absolute = score.model_copy(update={"epsilon": Threshold(kind="absolute", value=1.0)})
    table, _ = scores.scan_scores(scan, absolute)
    quadrants.require_axis(table, partition)
    trace_checks.require_samples(trace)
    return scan


def _score_shard(trace: Path, out: Path, score: ScoreConfig, shard: Path) -> None:
    with tables.naming_damage(shard, remedy=traces.ANEW):
        scan = traces.scan(trace, score.mode, [shard])
        trace_checks.require_losses(shard, scan, score.mode)
        table, _ = scores.scan_scores(scan, score)
        tables.sink_table(out / f"{shard.name}.parquet", table, SCORES)


def _map_shard(out: Path, axis: str, cuts: tuple[float, float], file: Path) -> None:
    table = quadrants.mapped(table_files.scan_parquet(file), axis, cuts)
    tables.sink_table(out / file.name, table, QUADRANT_TABLE)

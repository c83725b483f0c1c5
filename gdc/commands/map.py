"""A trace folder, whoever wrote it -> scores and quadrants of its samples, which stay on disk."""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from gdc import scores
from gdc.config import AUTO, Params, PartitionConfig, ScoreConfig, Threshold
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.filesystem import durable, table_files
from gdc.mapping import quadrants
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.recording.trace import Trace, TraceScan
from gdc.schema import MAP
from gdc.statistics.streaming_quantile import Table
from gdc.workspace import files, outputs, project, ray_cluster, tables, trace_checks, traces

# Of the scores that one run gives, the one with the best precision for the most memorized texts
# (docs/results/leaderboard.md): taken where no canary can say which score is right.
UNTESTED_AXIS: Final = "total_drop"
# Besides the scores of the registry.
AXES: Final = ("difficulty", "memorization", "first_learned")
WRITTEN_OF_ALL: Final = ("scores.parquet", "scores.json", "quadrants.json")
OF_TEXTS: Final = (
    "samples.parquet", "spans.parquet", "turns.parquet", "report.json", "report.html",
)  # fmt: skip
"""What is written beside these where the texts are given."""

# Of a trace here and on a cluster, and where former versions wrote the quadrants.
_TABLES: Final = ("scores.parquet", "scores", "quadrants.parquet", "quadrants")
# Of large tables: what more compression saves is a tenth at most.
_ZSTD_LEVEL: Final = 1
# As polars has it; said, so that it does not depend on the parts in which the scores were computed.
_GROUP_ROWS: Final = 2**18
# Scores are held where they are no more numbers than this, 4 GB; else they wait in a file.
_MAX_HELD_NUMBERS: Final = 2**29
_SHARD: Final = re.compile(r"(train|shard_\d+)\.parquet")


@dataclass(frozen=True)
class Request:
    """What to map: a trace folder, and where to.

    ``axis`` None is that of the parameters. ``mode`` None is that of the parameters or, where the
    trace has no such checkpoints, the other one.
    """

    trace: Path
    out: Path
    axis: str | None = None
    mode: str | None = None
    scores: tuple[str, ...] = ()


def run(request: Request, ray: str | None = None) -> QuadrantsSummary:
    """Map a trace by the rules of params.yaml or, where there is none, of preset docs.

    Args:
        request: The trace.
        ray: Address of a Ray cluster that maps its shards; None: they are mapped here.

    Returns:
        What stands in ``quadrants.json``: how many samples lie where, and by which thresholds.

    Raises:
        GdcError: As for ``map_trace``.
    """
    score, partition = rules_of(request, project.params_or_preset("docs"))
    if ray is None:
        return map_trace(request.trace, request.out, score, partition)
    with ray_cluster.connected(ray):
        return map_on_cluster(request.trace, request.out, score, partition)


def rules_of(request: Request, params: Params) -> tuple[ScoreConfig, PartitionConfig]:
    """The rules of the parameters with what the request says of scores, axis and mode.

    The axis ``auto`` is ``UNTESTED_AXIS``, as there are no canaries.

    Raises:
        ConfigError: A score is asked for twice, the axis is none that the losses alone can give, or
            there are too few checkpoints of the mode.
        SchemaError: A file of the trace is missing.
    """
    require_scores(request.scores, (*scores.FORGETTING, *scores.STREAMED))
    axis = request.axis or params.partition.axis
    axis = UNTESTED_AXIS if axis == AUTO else axis
    option = "--axis" if request.axis is not None else "partition.axis"
    require_axis(axis, (*AXES, *scores.STREAMED), option)
    is_more = axis not in {"difficulty", *request.scores}
    enabled = (*request.scores, *([axis] if is_more else []))
    with tables.naming_damage(request.trace, remedy=traces.ANEW):
        checkpoints = traces.scan(request.trace)
    mode = choose_mode(checkpoints, request.mode, params.score.mode)
    score = params.score.model_copy(update={"enabled": enabled, "mode": mode})
    return score, params.partition.model_copy(update={"axis": axis})


def require_axis(axis: str, known: Sequence[str], option: str = "--axis") -> None:
    """Refuse a value of ``--axis`` that is neither ``auto`` nor a known score.

    Raises:
        ConfigError: It is.
    """
    if axis != AUTO and axis not in known:
        raise _unknown(f"{option} {axis}", f"{AUTO} or one of {', '.join(known)}", axis)


def require_scores(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse values of ``--score`` that are no known score, or stand there twice.

    Raises:
        ConfigError: They are.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"--score: expected every name once, got {', '.join(names)}.")
    for name in names:
        if name not in known:
            raise _unknown(f"--score {name}", f"one of {', '.join(known)}", name)


def _unknown(place: str, expected: str, name: str) -> ConfigError:
    if name in scores.REGISTRY:
        return ConfigError(
            f"{place}: expected {expected}, got a score that reads more than the losses. Choose "
            "one of them, or give the texts: --corpus."
        )
    return ConfigError(f"{place}: expected {expected}, got another name. Choose one of them.")


def choose_mode(trace: Trace | TraceScan, asked: str | None, usual: str) -> str:
    """The checkpoints to read: as asked for, else the usual ones or, without them, the others.

    Raises:
        ConfigError: Fewer than two are of the mode that is asked for.
        DataError: A checkpoint has an unknown mode, or fewer than two are of either.
    """
    known = trace.checkpoints["mode"].unique(maintain_order=True).to_list()
    odd = [mode for mode in known if mode not in {"online", "probe"}]
    if odd:
        raise DataError(
            f"checkpoints.parquet: expected mode online or probe, got {odd[0]!r}. {traces.ANEW}"
        )
    counts = ", ".join(f"{len(trace.columns(mode))} {mode}" for mode in known) or "none"
    if asked is None:
        other = "online" if usual == "probe" else "probe"
        for mode in (usual, other):
            if len(trace.columns(mode)) > 1:
                return mode
        raise DataError(
            f"{trace.name}: expected at least 2 checkpoints of one mode, got {counts}. Record more."
        )
    if len(trace.columns(asked)) < 2:
        raise ConfigError(
            f"--mode {asked}: expected at least 2 such checkpoints, got {counts}. "
            "Choose the other mode, or record more."
        )
    return asked


def require_none(options: Mapping[str, object]) -> None:
    """Refuse options, with values of any type, that need the texts.

    Raises:
        ConfigError: One of them is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"{given[0]}: expected --corpus beside it, as it is about texts. Add --corpus."
        )


def table_of(folder: Path) -> Path:
    """Where a map has its table: in one file or, from a cluster, in a folder with one a shard."""
    # A folder of this name may be the user's.
    return folder / "scores" if _shards(folder / "scores") else folder / "scores.parquet"


def _shards(folder: Path) -> list[Path]:
    """The files of a map from a cluster, in the order of the trace."""
    return sorted(part for part in folder.glob("*.parquet") if _SHARD.fullmatch(part.name))


def read_mapped(path: Path, schema: pl.Schema) -> pl.DataFrame:
    """Read a table with a column ``quadrant``: what ``gdc map`` or stage partition wrote.

    Args:
        path: Of the file, or of a folder as ``table_of`` has it.
        schema: The columns that it begins with.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged.
    """
    remedy = "Make it: gdc map."
    parts = _shards(path) or [path]
    table = pl.concat([tables.read_table(part, schema, remedy) for part in parts])
    dtype = table.schema.get("quadrant")
    if dtype != pl.String:
        got = "none, as in maps of former versions" if dtype is None else dtype
        raise SchemaError(f"{path}: expected a column quadrant of strings, got {got}. {remedy}")
    return table


def map_trace(
    trace: Path, out: Path, score: ScoreConfig, partition: PartitionConfig
) -> QuadrantsSummary:
    """Write ``scores.parquet`` of a trace, with the quadrant in its last column, and two summaries.

    No more is read, computed and written than difficulty and the enabled scores take. Memory holds
    a block of samples at a time, about a fiftieth of the losses that epsilon is a quantile of, and
    the scores: up to 4 GB, and of more difficulty and the axis alone, up to 2 GB.

    Args:
        trace: Folder with ``checkpoints.parquet``, ``train/index.parquet`` and a loss file for each
            checkpoint.
        out: Where the files are written, with a row for each row of the index, in its order.
        score: Its enabled scores are of ``scores.STREAMED``.
        partition: An axis among the scores, and both thresholds.

    Returns:
        What stands in ``quadrants.json``: how many samples lie where, and by which thresholds.

    Raises:
        ConfigError: A score or the axis cannot be computed from the losses alone.
        DataError: A file is damaged, there are too few losses, a sample has none to be mapped, an
            id stands in two rows, or a number cannot be.
        SchemaError: A file is missing or has other columns or rows.
    """
    outputs.require_free(out, WRITTEN_OF_ALL, {"the trace": trace})
    with tables.naming_damage(trace, remedy=traces.ANEW):
        scan = _open(trace, score, partition)
        shards = traces.shard_folders(trace)
        for shard in shards:
            trace_checks.require_losses(shard, scan, score.mode)
        given, epsilon = _with_epsilon(scan, score)
        table = _scan_needed(scan, shards, given)
        with _folder_of_parts(out) as parts:
            kept = _kept(table, scan.num_samples, parts / "all.parquet")
            summary = quadrants.summarize(kept, partition, _ids(shards), str(trace))
            outputs.claim(out, WRITTEN_OF_ALL)
            _sink(out / "scores.parquet", shards, kept, summary)
            _write_summaries(out, kept, (score, epsilon, scan), summary)
    drop_former(out, WRITTEN_OF_ALL)
    return summary


def map_on_cluster(
    trace: Path, out: Path, score: ScoreConfig, partition: PartitionConfig
) -> QuadrantsSummary:
    """``map_trace`` on the Ray cluster that is connected, a worker for each shard of the trace.

    All of them see both folders under these names. ``scores/`` holds one file a shard, of its name.
    What needs all losses, a quantile of them, is read here.

    Raises:
        ConfigError: As for ``map_trace``; or a worker does not see one of the folders.
    """
    names = ["scores", *WRITTEN_OF_ALL[1:]]
    outputs.require_free(out, names, {"the trace": trace})
    trace, out = trace.absolute(), out.absolute()
    _require_former_map(out / "scores")
    with tables.naming_damage(trace, remedy=traces.ANEW):
        scan = _open(trace, score, partition)
        given, epsilon = _with_epsilon(scan, score)
    shards = traces.shard_folders(trace)
    with _folder_of_parts(out) as parts:
        ray_cluster.for_each(partial(_score_shard, trace, parts, given), shards, [trace, parts])
        kept = table_files.scan_parquet(*(_named(parts, shard) for shard in shards))
        summary = quadrants.summarize(kept, partition, _ids(shards), str(trace))
        outputs.claim(out, names)
        with durable.new_folder(out / "scores") as folder:
            ray_cluster.for_each(
                partial(_map_shard, parts, folder, summary), shards, [parts, folder]
            )
        _write_summaries(out, kept, (score, epsilon, scan), summary)
    drop_former(out, names)
    return summary


def drop_former(out: Path, written: Collection[str]) -> None:
    """Remove what a former map has left beside what was written."""
    outputs.drop_former(out, {*_TABLES, *OF_TEXTS} - {*written}, _SHARD)


@contextmanager
def _folder_of_parts(out: Path) -> Iterator[Path]:
    """A folder for what is read again by and by; what a kill has left there goes."""
    folder = out.absolute() / ".scores.parts.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    durable.make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kept(table: pl.LazyFrame, num_samples: int, path: Path) -> Table:
    """The rows of a table, computed once: in memory or, where they are too many, in a file."""
    if num_samples * len(table.collect_schema()) <= _MAX_HELD_NUMBERS:
        return table.collect(engine="streaming")
    return table_files.sink_part(path, table)


def _ids(shards: Sequence[Path]) -> pl.LazyFrame:
    return table_files.scan_parquet(*(shard / "index.parquet" for shard in shards)).select(
        "sample_id"
    )


def _sink(path: Path, shards: Sequence[Path], kept: Table, summary: QuadrantsSummary) -> None:
    """Write the scores of the samples of some shards, with ids and quadrants."""
    table = pl.concat([_ids(shards), kept.lazy()], how="horizontal").with_columns(
        quadrant=quadrants.quadrant(summary.axis, summary.thresholds)
    )
    tables.sink_table(path, table, MAP, _ZSTD_LEVEL, _GROUP_ROWS)


def _write_summaries(
    out: Path,
    kept: Table,
    of: tuple[ScoreConfig, float | None, TraceScan],
    summary: QuadrantsSummary,
) -> None:
    """Write both summaries."""
    score, epsilon, scan = of
    found = scores.summarize_map(kept.lazy(), score, epsilon, len(scan.columns(score.mode)))
    files.write_json(out / "scores.json", found)
    files.write_json(out / "quadrants.json", summary.to_json())


def _require_former_map(folder: Path) -> None:
    """Refuse to replace a folder in which anything but a former map of a trace lies."""
    if not folder.exists():
        return
    inside = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
    foreign = [name for name in inside if not _SHARD.fullmatch(name)]
    if foreign or folder.is_symlink():
        raise ConfigError(
            f"--out {folder.parent}: expected no folder {folder.name}, or one that gdc map wrote, "
            f"got one with {foreign[0] if foreign else 'a link in its place'}. Name another --out."
        )


def _open(trace: Path, score: ScoreConfig, partition: PartitionConfig) -> TraceScan:
    """Open a trace; what can be refused without a look at its losses is refused."""
    scan = traces.scan(trace, score.mode)
    # Any epsilon will do, to see which scores come of it.
    absolute = score.model_copy(update={"epsilon": Threshold(kind="absolute", value=1.0)})
    table, _ = scores.scan_scores(scan, absolute)
    quadrants.require_axis(table, partition)
    trace_checks.require_samples(trace)
    return scan


def _with_epsilon(scan: TraceScan, score: ScoreConfig) -> tuple[ScoreConfig, float | None]:
    """The rules with the value of epsilon, and that value; None: no score reads it."""
    if not scores.reads_epsilon(score.enabled):
        return score, None
    epsilon = scores.epsilon_of([scan], score.mode, score.epsilon)
    given = Threshold(kind="absolute", value=epsilon)
    return score.model_copy(update={"epsilon": given}), epsilon


def _scan_needed(scan: TraceScan, shards: Sequence[Path], score: ScoreConfig) -> pl.LazyFrame:
    """The scores of some shards without their ids, of those files alone that they read."""
    columns = scores.columns_read(scan.columns(score.mode), score)
    needed = traces.scan(Path(scan.name), score.mode, shards, columns)
    return scores.scan_scores(needed, score)[0].drop("sample_id")


def _score_shard(trace: Path, parts: Path, score: ScoreConfig, shard: Path) -> None:
    with tables.naming_damage(shard, remedy=traces.ANEW):
        scan = traces.scan(trace, score.mode, [shard])
        trace_checks.require_losses(shard, scan, score.mode)
        table_files.sink_part(_named(parts, shard), _scan_needed(scan, [shard], score))


def _map_shard(parts: Path, out: Path, summary: QuadrantsSummary, shard: Path) -> None:
    kept = table_files.scan_parquet(_named(parts, shard))
    _sink(_named(out, shard), [shard], kept, summary)


def _named(folder: Path, shard: Path) -> Path:
    return folder / f"{shard.name}.parquet"

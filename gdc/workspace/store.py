"""Our own tables and files on disk: the only reader and writer of them.

Every file appears under its name complete or not at all: it is written beside its place and moved.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gdc.config import Params, parse_params
from gdc.durable import put_in_place
from gdc.errors import ConfigError, DataError, SchemaError
from gdc.paths import odd_kind, require_file
from gdc.recording.trace import Trace, TraceScan, loss_column
from gdc.schema import (
    AUDIT,
    CANARIES,
    CHECKPOINTS,
    CORPUS,
    CURATED,
    HALVES,
    MEMBERSHIP,
    PLAN,
    PROBES,
    QUADRANT_TABLE,
    QUARANTINE,
    REFERENCE_LOSS,
    REMOVED,
    SCORES,
    SCORES_BY_RUN,
    SELF_INFLUENCE,
    SPANS,
    TOKEN_LOSSES,
    TRACE_INDEX,
    require,
    to_arrow,
)
from gdc.table_files import read_parquet, scan_parquet

PARAMS: Final = Path("params.yaml")
CODE: Final = Path("data/code.json")
MANIFEST: Final = Path("data/manifest.json")
PRETRAINED: Final = Path("data/pretrained.json")
TOKENIZER: Final = Path("data/tokenizer")
CORPUS_SUMMARY: Final = Path("data/corpus.json")
SCORES_SUMMARY: Final = Path("data/scores.json")
CALIBRATION: Final = Path("data/calibration.json")
QUADRANTS_SUMMARY: Final = Path("data/quadrants.json")
SPANS_SUMMARY: Final = Path("data/spans.json")
CURATED_FOLDER: Final = Path("data/curated")
REPORT: Final = Path("reports/report.json")
PAGE: Final = Path("reports/report.html")
PICTURE: Final = Path("reports/data_map.png")
ROC: Final = Path("reports/roc.png")
GROUPS: Final = Path("reports/leakage.png")
FRONT: Final = Path("reports/front.png")
REFERENCE_FOLDER: Final = Path("data/reference")
TABLES: Final[Mapping[str, tuple[Path, pl.Schema]]] = {
    "corpus": (Path("data/corpus.parquet"), CORPUS),
    "quarantine": (Path("data/quarantine.parquet"), QUARANTINE),
    "canaries": (Path("data/canaries.parquet"), CANARIES),
    "halves": (REFERENCE_FOLDER / "halves.parquet", HALVES),
    "scores": (Path("data/scores.parquet"), SCORES),
    "scores_by_run": (Path("data/scores_by_run.parquet"), SCORES_BY_RUN),
    "probes": (Path("data/probes.parquet"), PROBES),
    "quadrants": (Path("data/quadrants.parquet"), QUADRANT_TABLE),
    "spans": (Path("data/spans.parquet"), SPANS),
    "curated/train": (CURATED_FOLDER / "train.parquet", CURATED),
    "curated/validation": (CURATED_FOLDER / "validation.parquet", CURATED),
    "curated/reserved": (CURATED_FOLDER / "reserved.parquet", CURATED),
    "curated/removed": (CURATED_FOLDER / "removed.parquet", REMOVED),
}
# What makes a damaged file again: a table, a trace of the pipeline, a trace of whatever program.
RUN: Final = "Make it again: gdc run."
_TRAIN: Final = "Make it again: gdc stage train."
ANEW: Final = "Write the trace again, with the program that recorded it."
# What polars and Arrow raise for a damaged file.
_DAMAGE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)
# Of each part of a trace.
TOKEN_FILES: Final = {"train": "tokens.parquet", "heldout": "heldout_tokens.parquet"}
GAINS: Final = "self_influence.parquet"
# Beside the files of a folder of a trace: BLAKE2b of each.
CHECKSUMS: Final = "checksums.json"


def load_params() -> Params:
    """Read and validate ``params.yaml`` of the current folder.

    Raises:
        ConfigError: The file is missing, is not YAML, or has a wrong value.
    """
    return parse_params(parse_yaml(read_text(PARAMS), PARAMS), name=str(PARAMS))


def read_text(path: Path) -> str:
    """Read a text of the workspace that a person may edit.

    Raises:
        ConfigError: There is none, or it is not UTF-8.
    """
    try:
        found = odd_kind(path)
        if found is not None:
            raise ConfigError(
                f"{path}: expected a file, got {found}. Move it away, then write one: gdc init docs"
            )
        # As bytes: the ends of its lines stay as they are.
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: not found in {Path.cwd()}. Run this in the project folder, "
            "or write one: gdc init docs"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, got another encoding: {error}") from None


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping in ``text``, which stands in ``path``."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(
            f"{path}: not YAML that can be read: a number too long, or too many levels"
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {type(value).__name__}")
    return value


def read(name: str) -> pl.DataFrame:
    """Read and check the table ``name``, a key of ``TABLES``."""
    path, schema = TABLES[name]
    return _read_table(path, schema)


def scan(name: str) -> pl.LazyFrame:
    """Open the table ``name``, a key of ``TABLES``; its rows stay on disk until they are asked for.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged where it describes itself.
    """
    return _scan_table(*TABLES[name])


def _scan_table(path: Path, schema: pl.Schema) -> pl.LazyFrame:
    with _refusing(path, RUN):
        table = scan_parquet(path)
        require(pl.DataFrame(schema=table.collect_schema()), schema, name=str(path))
    return table


@dataclass(frozen=True)
class TableBatches:
    """Rows of a table on disk, a row group at a time; every iteration reads them again."""

    path: Path
    columns: Sequence[str]
    where: pl.Expr

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Tables with some rows each, in order.

        Raises:
            DataError: The file is damaged.
        """
        needed = list(dict.fromkeys([*self.columns, *self.where.meta.root_names()]))
        with _refusing(self.path, RUN), pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                table = pl.DataFrame(file.read_row_group(group, needed))
                yield table.filter(self.where).select(self.columns)


def batches(name: str, columns: Sequence[str], where: pl.Expr | None = None) -> TableBatches:
    """Some columns of the table ``name``, of the rows where a condition holds or of all.

    A batch holds what ``write_batches`` was given at a time.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged where it describes itself.
    """
    scan(name)
    return TableBatches(TABLES[name][0], columns, pl.lit(value=True) if where is None else where)


def write_batches(name: str, tables: Iterable[pl.DataFrame]) -> None:
    """Write the table ``name``, whole or not at all, from tables with some of its rows each."""
    path, schema = TABLES[name]
    columns = to_arrow(pl.DataFrame(schema=schema)).schema
    with new_file(path) as new, pq.ParquetWriter(new, columns, compression="zstd") as file:
        for table in tables:
            require(table, schema, name=str(path))
            file.write_table(to_arrow(table), row_group_size=max(1, table.height))


def sink(name: str, table: pl.LazyFrame) -> None:
    """Check and write the table ``name``, a key of ``TABLES``, without holding it."""
    path, schema = TABLES[name]
    sink_table(path, table, schema)


def texts_of(sample_ids: pl.Series) -> list[str]:
    """The texts of some samples of the corpus, in the order of their ids."""
    asked = pl.LazyFrame({"sample_id": sample_ids})
    texts = scan("corpus").select("sample_id", "text").join(asked, on="sample_id", how="semi")
    found = asked.join(texts, on="sample_id", how="left", maintain_order="left")
    return found.collect(engine="streaming")["text"].to_list()


def write(name: str, table: pl.DataFrame) -> None:
    """Check and write the table ``name``, a key of ``TABLES``."""
    path, schema = TABLES[name]
    write_table(path, table, schema)


def plan_path(arm: str) -> Path:
    """Where an arm's plan lies."""
    return Path(f"data/plans/{arm}.parquet")


def model_path(arm: str, seed: int) -> Path:
    """Where a trained model lies; the tracked run's arm is ``tracked``.

    Tracked models lie apart: the stage that reads all of them must not wait for retrained ones.
    """
    folder = "data/tracked" if arm == "tracked" else "data/models"
    return Path(folder) / f"{arm}-{seed}"


def trace_path(seed: int) -> Path:
    """Where the trace of a tracked run lies."""
    return Path(f"data/trace/{seed}")


def audit_path(arm: str, seed: int) -> Path:
    """Where the audit of one model lies."""
    return Path(f"data/audits/{arm}-{seed}.parquet")


def membership_path(arm: str, seed: int) -> Path:
    """Where the membership table of one model lies."""
    return Path(f"data/membership/{arm}-{seed}.parquet")


def metrics_path(arm: str, seed: int) -> Path:
    """Where the metrics of one model lie."""
    return Path(f"metrics/{arm}-{seed}.json")


def lineage_path(stage: str, cell: str | None) -> Path:
    """Where a stage says which MLflow run and model it made."""
    return Path(f"lineage/{stage}-{cell}.json" if cell else f"lineage/{stage}.json")


def read_plan(arm: str) -> pl.DataFrame:
    """Read an arm's plan."""
    return _read_table(plan_path(arm), PLAN)


def scan_plan(arm: str) -> pl.LazyFrame:
    """Open an arm's plan; its rows stay on disk until they are asked for."""
    return _scan_table(plan_path(arm), PLAN)


def write_plans(plans: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> None:
    """Write the plans of all arms; those of former arms disappear."""
    with new_folder(plan_path("any").parent) as folder:
        for arm, plan in plans.items():
            sink_table(folder / plan_path(arm).name, plan.lazy(), PLAN)


def read_audit(arm: str, seed: int) -> pl.DataFrame:
    """Read the audit of one model."""
    return _read_table(audit_path(arm, seed), AUDIT)


def write_audit(arm: str, seed: int, audit: pl.DataFrame) -> None:
    """Write the audit of one model."""
    write_table(audit_path(arm, seed), audit, AUDIT)


def read_membership(arm: str, seed: int) -> pl.DataFrame:
    """Read the membership table of one model."""
    return _read_table(membership_path(arm, seed), MEMBERSHIP)


def write_membership(arm: str, seed: int, table: pl.DataFrame) -> None:
    """Write the membership table of one model."""
    write_table(membership_path(arm, seed), table, MEMBERSHIP)


def write_reference(number: int, table: pl.DataFrame) -> None:
    """Write the losses under one reference model."""
    write_table(REFERENCE_FOLDER / f"{number}.parquet", table, REFERENCE_LOSS)


def read_references(numbers: Sequence[int]) -> pl.DataFrame | None:
    """The ``REFERENCES`` table of these models, sorted by ``sample_id``; None without models."""
    if not numbers:
        return None
    paths = [REFERENCE_FOLDER / f"{number}.parquet" for number in numbers]
    losses = [
        _read_table(path, REFERENCE_LOSS, "Make it again: gdc stage reference.") for path in paths
    ]
    table, num_missing = with_losses(read("halves"), losses)
    if num_missing:
        raise SchemaError(
            f"{REFERENCE_FOLDER}: expected the samples of halves.parquet in every model's losses, "
            "got fewer. Re-run: gdc stage reference."
        )
    return table


def with_losses(table: pl.DataFrame, losses: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, int]:
    """Put the losses under all models beside the halves.

    Args:
        table: ``HALVES`` table.
        losses: A ``REFERENCE_LOSS`` table for each model, in the order of ``seen``.

    Returns:
        ``REFERENCES`` table sorted by ``sample_id``, and the number of its samples that a model
        has no loss of.
    """
    table = table.sort("sample_id")
    columns = [f"loss_{number}" for number in range(len(losses))]
    for name, of_model in zip(columns, losses, strict=True):
        table = table.join(
            of_model.rename({"loss": name}), on="sample_id", how="left", maintain_order="left"
        )
    num_missing = table.select(pl.any_horizontal(pl.col(columns).is_null()).sum()).item()
    return table.select("sample_id", pl.concat_list(columns).alias("loss"), "seen"), num_missing


def read_trace(seed: int) -> Trace:
    """Open the trace of a tracked run; its losses stay on disk until they are collected.

    What else was recorded has readers of its own.
    A damaged page is found only then: see ``naming_damage``.

    Raises:
        SchemaError: A checkpoint's file is missing or has another number of rows than the index.
        DataError: A file is damaged where it describes itself.
    """
    folder = trace_path(seed)
    checkpoints = _read_table(folder / "checkpoints.parquet", CHECKPOINTS, _TRAIN)
    shards = trace_shards(folder)
    index = _read_index(*shards)
    losses = pl.concat(
        pl.concat(_scan_losses(shard, checkpoints), how="horizontal") for shard in shards
    )
    heldout_index = _read_index(folder / "heldout")
    heldout_losses = pl.concat(_scan_losses(folder / "heldout", checkpoints), how="horizontal")
    return Trace(index, checkpoints, losses, heldout_index, heldout_losses)


def trace_shards(folder: Path) -> list[Path]:
    """The folders with the training samples of a trace, in row order.

    One, ``train``; or in it one for each process that wrote the trace.

    Raises:
        DataError: Something else is called as shards are, or one is missing.
    """
    train = folder / "train"
    found = sorted(train.glob("shard_*"))
    for path in found:
        if not (re.fullmatch(r"shard_\d+", path.name) and path.is_dir()):
            raise DataError(
                f"{path}: expected no more than folders shard_00000, shard_00001, ... under such "
                "names, got another. Move it out of the trace."
            )
    numbers = [int(path.name.partition("_")[2]) for path in found]
    if numbers != list(range(len(found))):
        raise DataError(
            f"{train}: expected shards 0 to {len(found) - 1}, one of each, got "
            f"{', '.join(path.name for path in found)}. Put back what is missing."
        )
    return found or [train]


def scan_trace(
    folder: Path, mode: str | None = None, shards: Sequence[Path] | None = None
) -> TraceScan:
    """Open the training samples of a trace folder, whoever wrote it; nothing of them is read.

    Args:
        folder: With ``checkpoints.parquet``, ``train/index.parquet`` and a file a checkpoint.
        mode: The checkpoints whose losses are asked for; None: all of them.
        shards: Those asked for, whose rows then stand one after the other; None: all of them.

    Raises:
        SchemaError: A file is missing, or has other columns or another number of rows.
        DataError: A file is damaged where it describes itself, or checkpoints are not numbered.
    """
    path = folder / "checkpoints.parquet"
    checkpoints = _read_table(path, CHECKPOINTS, ANEW)
    _require_rising(checkpoints["checkpoint"], path)
    samples, num_samples = [], 0
    for shard in trace_shards(folder) if shards is None else shards:
        index = shard / "index.parquet"
        num_samples += _num_rows(index, TRACE_INDEX, ANEW)
        known = scan_parquet(index).select(TRACE_INDEX.names())
        losses = _scan_losses(shard, checkpoints, mode, ANEW)
        samples.append(pl.concat([known, *losses], how="horizontal"))
    return TraceScan(pl.concat(samples), checkpoints, num_samples, str(folder))


def verify_trace(folder: Path) -> int:
    """Compare every file of a trace with the checksum that was taken when it was written.

    Returns:
        The number of files.

    Raises:
        SchemaError: A file, or the list of checksums of a folder, is missing.
        DataError: A file is not as it was written, or no checksum of it was.
    """
    num_files = 0
    for part in (folder, *trace_shards(folder), *folder.glob("heldout")):
        found = dict.fromkeys(path.name for path in part.glob("*.parquet"))
        known = {**found, **read_json(part / CHECKSUMS)}
        verify_files(part, known, ANEW)
        num_files += len(known)
    return num_files


@contextmanager
def naming_damage(*folders: Path, remedy: str = _TRAIN) -> Iterator[None]:
    """Find the damaged file where folders of Parquet files are read.

    Args:
        folders: The folders read inside.
        remedy: What makes the file again, a sentence.

    Raises:
        DataError: A file of them cannot be read.
    """
    try:
        yield
    except _DAMAGE:
        for path in sorted(path for folder in folders for path in folder.rglob("*.parquet")):
            with _refusing(path, remedy):
                # collect_batches would end without a word where polars panics.
                scan_parquet(path).select(pl.all().null_count()).collect(engine="streaming")
        raise


def read_token_losses(seed: int) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The losses of every token of the training and of the held-out samples of a tracked run.

    Returns:
        Two ``TOKEN_LOSSES`` tables in the row order of the trace; None: they were not recorded.

    Raises:
        SchemaError: One of them is missing, or does not hold the samples and tokens of the trace.
        DataError: A file is damaged, or a loss is not finite.
    """
    folder = trace_path(seed)
    if not any((folder / name).exists() for name in TOKEN_FILES.values()):
        return None
    train, heldout = (_read_tokens(folder, part) for part in TOKEN_FILES)
    return train, heldout


def read_self_influence(seed: int) -> pl.DataFrame | None:
    """The ``SELF_INFLUENCE`` table of a tracked run, as its trace; None: it was not recorded.

    Raises:
        SchemaError: It does not hold the samples of the trace.
        DataError: The file is damaged, or a gain is not finite.
    """
    folder = trace_path(seed)
    path = folder / GAINS
    if not path.exists():
        return None
    table = _read_table(path, SELF_INFLUENCE, _TRAIN)
    _require_samples(table, _read_index(*trace_shards(folder)), path)
    _require_finite(table["gain"], path)
    return table


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a stage wrote.

    Raises:
        SchemaError: There is no such file.
        DataError: It holds something else.
    """
    try:
        require_file(path)
        content = path.read_bytes()
    except FileNotFoundError:
        raise SchemaError(f"{path}: not found. Run the stage that writes it: gdc run.") from None
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}. Make it again: gdc run.") from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: expected an object, got {type(value).__name__}. Make it again: gdc run."
        )
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys; equal content gives equal bytes.

    Raises:
        DataError: A number is not finite, of which JSON has none.
    """
    odd = next(_not_finite(value), None)
    if odd is not None:
        raise DataError(
            f"{path}: expected finite numbers, got {odd[1]} for {odd[0]}: the model or the losses "
            "behind it have diverged. Lower training.learning_rate, or mend the losses."
        )
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _not_finite(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """The names of the numbers in nested objects and lists that are not finite, and these."""
    if isinstance(value, float) and not math.isfinite(value):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{name}[{i}]")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there on success."""
    temporary = _temporary(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` and put it in its place on success."""
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        DataError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: expected a folder, or a place to make one, got: {error.strerror}. "
            "Name another, or make room for it."
        ) from None


def _temporary(path: Path) -> Path:
    """A free path beside ``path``, of a form that .dvcignore knows.

    Always the same for a path, and what a kill has left there goes.
    """
    make_folder(path.parent)
    # Absolute: polars takes a relative ~ for the home folder.
    temporary = path.absolute().with_name(f".{path.name}.tmp")
    if temporary.is_dir():
        shutil.rmtree(temporary)
    temporary.unlink(missing_ok=True)
    return temporary


def _read_table(path: Path, schema: pl.Schema, remedy: str = RUN) -> pl.DataFrame:
    with _refusing(path, remedy):
        table = read_parquet(path)
    require(table, schema, name=str(path), remedy=remedy)
    return table


@contextmanager
def _refusing(path: Path, remedy: str) -> Iterator[None]:
    """Word what polars raises where it reads ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise SchemaError(f"{path}: not found. {remedy}") from None
    except (*_DAMAGE, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}). {remedy}") from None


def write_table(path: Path, table: pl.DataFrame, schema: pl.Schema) -> None:
    """Write a table, whole or not at all.

    Raises:
        SchemaError: It has other columns.
    """
    require(table, schema, name=str(path))
    with new_file(path) as temporary:
        table.write_parquet(temporary, compression="zstd", statistics=True)


def sink_table(path: Path, table: pl.LazyFrame, schema: pl.Schema) -> None:
    """Write a table that need not fit into memory, whole or not at all.

    Raises:
        SchemaError: It has other columns.
    """
    require(pl.DataFrame(schema=table.collect_schema()), schema, name=str(path))
    with new_file(path) as temporary:
        table.sink_parquet(temporary, compression="zstd", statistics=True)


def _read_index(*folders: Path) -> pl.DataFrame:
    """``TRACE_INDEX`` of parts of a trace, one after the other."""
    return pl.concat(
        _read_table(folder / "index.parquet", TRACE_INDEX, _TRAIN) for folder in folders
    )


def _scan_losses(
    folder: Path, checkpoints: pl.DataFrame, mode: str | None = None, remedy: str = _TRAIN
) -> list[pl.LazyFrame]:
    """A column for each checkpoint of the mode; NaN, as others may write, is not seen either.

    Of files side by side polars reads all, even where one column is asked for.
    """
    expected = _num_rows(folder / "index.parquet", TRACE_INDEX, remedy)
    columns = []
    for checkpoint, of_mode in checkpoints.select("checkpoint", "mode").iter_rows():
        name = loss_column(checkpoint)
        path = folder / f"{name}.parquet"
        num_rows = _num_rows(path, pl.Schema({name: pl.Float32()}), remedy)
        if num_rows != expected:
            raise SchemaError(
                f"{path}: expected {expected} rows as in index, got {num_rows}. {remedy}"
            )
        if mode in (None, of_mode):
            columns.append(scan_parquet(path).select(pl.col(name).fill_nan(None)))
    return columns


def verify_files(folder: Path, checksums: Mapping[str, Any], remedy: str = _TRAIN) -> None:
    """Refuse what is not as its checksum says; see ``verify_trace``."""
    for name, expected in checksums.items():
        path = folder / name
        with _refusing(path, remedy):
            found = checksum(path)
        if found != expected:
            raise DataError(f"{path}: expected BLAKE2b {expected}, got {found}. {remedy}")


def checksum(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits."""
    require_file(path)
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()


def _read_tokens(folder: Path, part: str) -> pl.DataFrame:
    path = folder / TOKEN_FILES[part]
    table = _read_table(path, TOKEN_LOSSES, _TRAIN)
    index = _read_index(*(trace_shards(folder) if part == "train" else [folder / part]))
    _require_samples(table, index, path)
    for name in ("early", "late"):
        lengths = table[name].list.len().cast(pl.Int64)
        num_odd = int((lengths.ne_missing(index["num_tokens"])).sum())
        if num_odd:
            raise SchemaError(
                f"{path}: expected num_tokens losses in {name} of every sample, got other numbers "
                f"in {num_odd}. {_TRAIN}"
            )
        losses = table[name].explode()
        _require_finite(losses.fill_null(float("nan")), path)
    return table


def _require_samples(table: pl.DataFrame, index: pl.DataFrame, path: Path) -> None:
    if not table["sample_id"].equals(index["sample_id"]):
        raise SchemaError(
            f"{path}: expected the {index.height} samples of index in its order, got "
            f"{table.height} rows that are not. {_TRAIN}"
        )


def _require_rising(numbers: pl.Series, path: Path) -> None:
    if numbers.null_count() or not (numbers[1:] > numbers[:-1]).all():
        shown = ", ".join(map(str, numbers[:10].to_list()))
        raise DataError(
            f"{path}: expected checkpoints whose numbers rise from row to row, got {shown}"
            f"{', ...' if len(numbers) > 10 else ''}. {ANEW}"
        )


def _require_finite(values: pl.Series, path: Path) -> None:
    num_odd = int((~values.is_finite()).sum())
    if num_odd:
        raise DataError(f"{path}: expected finite numbers, got {num_odd} that are not. {_TRAIN}")


def _num_rows(path: Path, schema: pl.Schema, remedy: str) -> int:
    """Rows of a Parquet file of a trace, from what it says of itself."""
    with _refusing(path, remedy):
        table = scan_parquet(path)
        found = pl.DataFrame(schema=table.collect_schema())
        require(found, schema, name=str(path), remedy=remedy)
        num_rows: int = table.select(pl.len()).collect().item()
    return num_rows

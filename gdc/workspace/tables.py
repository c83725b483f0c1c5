"""Tables of our schemas -> Parquet files of a workspace, and back."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from polars.io.plugins import register_io_source

from gdc.errors import DataError, SchemaError
from gdc.filesystem import scratch
from gdc.filesystem.durable import new_file, new_folder
from gdc.filesystem.table_files import read_parquet, scan_parquet, whole_batches, write_parquet
from gdc.schema import (
    AUDIT,
    CANARIES,
    CANARY_MEMORIZATION,
    CORPUS,
    CURATED,
    HALVES,
    KEYS,
    MEMBERSHIP,
    PLAN,
    QUADRANT_TABLE,
    QUARANTINE,
    REMOVED,
    REVISED_WEIGHTS,
    SCORES,
    SCORES_BY_RUN,
    SPANS,
    TURN_LOSSES,
    TURNS,
    UNSEEN_SCORES,
    require,
    to_arrow,
)
from gdc.workspace.paths import (
    CURATED_FOLDER,
    REFERENCE_FOLDER,
    audit_path,
    membership_path,
    plan_path,
    weights_path,
)

TABLES: Final[Mapping[str, tuple[Path, pl.Schema]]] = {
    "corpus": (Path("data/corpus.parquet"), CORPUS),
    "quarantine": (Path("data/quarantine.parquet"), QUARANTINE),
    "keys": (Path("data/keys.parquet"), KEYS),
    "canaries": (Path("data/canaries.parquet"), CANARIES),
    "turns": (Path("data/turns.parquet"), TURNS),
    "halves": (REFERENCE_FOLDER / "halves.parquet", HALVES),
    "scores": (Path("data/scores.parquet"), SCORES),
    "unseen_scores": (Path("data/unseen_scores.parquet"), UNSEEN_SCORES),
    "scores_by_run": (Path("data/scores_by_run.parquet"), SCORES_BY_RUN),
    "canary_memorization": (Path("data/canary_memorization.parquet"), CANARY_MEMORIZATION),
    "quadrants": (Path("data/quadrants.parquet"), QUADRANT_TABLE),
    "spans": (Path("data/spans.parquet"), SPANS),
    "turn_losses": (Path("data/turn_losses.parquet"), TURN_LOSSES),
    "curated/train": (CURATED_FOLDER / "train.parquet", CURATED),
    "curated/validation": (CURATED_FOLDER / "validation.parquet", CURATED),
    "curated/reserved": (CURATED_FOLDER / "reserved.parquet", CURATED),
    "curated/removed": (CURATED_FOLDER / "removed.parquet", REMOVED),
}
# What makes a damaged file again: a table, a trace of the pipeline, a trace of whatever program.
RUN: Final = "Make it again: gdc run."
TRAIN: Final = "Make it again: gdc stage train."
# Read at a time, not compressed.
_CHUNK_BYTES: Final = 2**22
# Of the rows of a group, all of which are in memory while it is written.
_GROUP_BYTES: Final = 2**24
# What polars and Arrow raise for a damaged file.
_DAMAGE: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)


def read(name: str) -> pl.DataFrame:
    """Read and check the table ``name``, a key of ``TABLES``."""
    path, schema = TABLES[name]
    return read_table(path, schema)


def scan(name: str) -> pl.LazyFrame:
    """Open the table ``name``, a key of ``TABLES``; its rows stay on disk until they are asked for.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged where it describes itself.
    """
    return scan_table(*TABLES[name])


def scan_table(path: Path, schema: pl.Schema, remedy: str = RUN) -> pl.LazyFrame:
    """Open a table that lies at a path; see ``scan``, and ``read_table`` for the remedy."""
    with naming_file(path, remedy):
        table = scan_parquet(path)
        require(pl.DataFrame(schema=table.collect_schema()), schema, name=str(path), remedy=remedy)
    return table


@dataclass(frozen=True)
class TableChunks:
    """Rows of a table on disk, a few MB at a time; every iteration reads them again."""

    path: Path
    columns: Sequence[str]
    where: pl.Expr | None = None
    remedy: str = RUN

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Tables with some rows each, in order.

        Raises:
            DataError: The file is damaged.
        """
        asked = [] if self.where is None else self.where.meta.root_names()
        needed = list(dict.fromkeys([*self.columns, *asked]))
        with naming_file(self.path, self.remedy), pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                num_rows = _rows_of_chunk(file.metadata.row_group(group))
                for batch in file.iter_batches(num_rows, row_groups=[group], columns=needed):
                    table = pa.Table.from_batches([batch])
                    if self.where is not None:
                        # What polars filters keeps the texts that it leaves out in memory.
                        is_kept = pl.DataFrame(table).select(self.where).to_series()
                        table = table.filter(is_kept.to_arrow())
                    yield pl.DataFrame(table.select(self.columns))
                # Arrow would keep it for its next table, and polars takes none of it.
                pa.default_memory_pool().release_unused()


def _rows_of_chunk(group: pq.RowGroupMetaData) -> int:
    """As many rows of a row group as take ``_CHUNK_BYTES``, or one."""
    return max(1, int(group.num_rows * _CHUNK_BYTES / max(1, group.total_byte_size)))


def chunks(name: str, columns: Sequence[str], where: pl.Expr | None = None) -> TableChunks:
    """Some columns of the table ``name``, of the rows where a condition holds or of all.

    A chunk takes about ``_CHUNK_BYTES``; its rows are of one table that ``write_chunks`` was given.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged where it describes itself.
    """
    scan(name)
    path, _ = TABLES[name]
    return TableChunks(path, columns, where)


def scan_chunks(name: str) -> pl.LazyFrame:
    """As ``scan``, a chunk at a time: polars' own reader decodes several row groups ahead."""
    path, schema = TABLES[name]
    scan(name)

    def read(
        columns: list[str] | None, where: pl.Expr | None, num_rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        assert num_rows is None, num_rows  # noqa: S101 - nobody asks for the first rows
        return iter(TableChunks(path, columns or schema.names(), where))

    return register_io_source(read, schema=schema)


def write_chunks(name: str, tables: Iterable[pl.DataFrame]) -> None:
    """Write the table ``name``, whole or not at all, from tables with some of its rows each."""
    path, schema = TABLES[name]
    columns = to_arrow(pl.DataFrame(schema=schema)).schema
    with new_file(path) as new, pq.ParquetWriter(new, columns, compression="zstd") as file:
        for table in tables:
            require(table, schema, name=str(path))
            file.write_table(to_arrow(table), row_group_size=max(1, table.height))


def sink(name: str, table: pl.LazyFrame, group_rows: int | None = None) -> None:
    """Check and write the table ``name``, a key of ``TABLES``; see ``sink_table``."""
    path, schema = TABLES[name]
    sink_table(path, table, schema, group_rows=group_rows)


def group_rows(name: str) -> int | None:
    """How many rows of the table ``name`` take about 16 MB; None: it takes no more."""
    path, _ = TABLES[name]
    with naming_file(path, RUN), pq.ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        num_bytes = sum(group.total_byte_size for group in groups)
        share = _GROUP_BYTES / max(1, num_bytes)
        return None if share >= 1 else max(1, int(file.metadata.num_rows * share))


def texts_of(sample_ids: pl.Series) -> list[str]:
    """The texts of some samples of the corpus, in the order of their ids."""
    asked = pl.LazyFrame({"sample_id": sample_ids})
    texts = scan("corpus").select("sample_id", "text").join(asked, on="sample_id", how="semi")
    found = asked.join(texts, on="sample_id", how="left", maintain_order="left")
    return found.collect(engine="streaming")["text"].to_list()


def stored_texts(sample_ids: pl.Series) -> scratch.Texts:
    """The same texts as ``texts_of``, in a file.

    Raises:
        SchemaError: The corpus is missing or has other columns.
        DataError: It is damaged.
    """
    asked = pl.DataFrame({"sample_id": sample_ids}).with_row_index("row")
    found = (
        chunk.join(asked, on="sample_id", maintain_order="left")
        for chunk in chunks("corpus", ["sample_id", "text"])
    )
    parts = ((chosen["row"].to_numpy(), chosen["text"]) for chosen in found)
    return scratch.Texts.written(parts, asked.height)


def write(name: str, table: pl.DataFrame) -> None:
    """Check and write the table ``name``, a key of ``TABLES``."""
    path, schema = TABLES[name]
    write_table(path, table, schema)


def read_plan(arm: str) -> pl.DataFrame:
    """Read an arm's plan."""
    return read_table(plan_path(arm), PLAN)


def scan_plan(arm: str) -> pl.LazyFrame:
    """Open an arm's plan; its rows stay on disk until they are asked for."""
    return scan_table(plan_path(arm), PLAN)


def scan_revised_weights(arm: str, seed: int) -> pl.LazyFrame:
    """Open the weights that the run of an arm chose itself."""
    return scan_table(weights_path(arm, seed), REVISED_WEIGHTS)


def write_plans(plans: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> None:
    """Write the plans of all arms; those of former arms disappear."""
    with new_folder(plan_path("any").parent) as folder:
        for arm, plan in plans.items():
            sink_table(folder / plan_path(arm).name, plan.lazy(), PLAN)


def read_audit(arm: str, seed: int) -> pl.DataFrame:
    """Read the audit of one model."""
    return read_table(audit_path(arm, seed), AUDIT)


def write_audit(arm: str, seed: int, audit: pl.DataFrame) -> None:
    """Write the audit of one model."""
    write_table(audit_path(arm, seed), audit, AUDIT)


def read_membership(arm: str, seed: int) -> pl.DataFrame:
    """Read the membership table of one model."""
    return read_table(membership_path(arm, seed), MEMBERSHIP)


def write_membership(arm: str, seed: int, table: pl.DataFrame) -> None:
    """Write the membership table of one model."""
    write_table(membership_path(arm, seed), table, MEMBERSHIP)


@contextmanager
def naming_damage(*folders: Path, remedy: str = TRAIN) -> Iterator[None]:
    """Find the damaged file where folders of Parquet files are read.

    Args:
        folders: The folders read inside.
        remedy: What makes the file again, a sentence.

    Raises:
        DataError: A file of them cannot be read.
    """
    try:
        yield
    except MemoryError:  # some of Arrow's are both
        raise
    except _DAMAGE:
        for path in sorted(path for folder in folders for path in folder.rglob("*.parquet")):
            with naming_file(path, remedy):
                _decode(path)
        raise


def _decode(path: Path) -> None:
    """Read all of a file and keep nothing; what can be counted from its metadata tells little."""
    for _ in whole_batches(scan_parquet(path)):
        pass


def read_table(path: Path, schema: pl.Schema, remedy: str = RUN) -> pl.DataFrame:
    """Read and check a table that lies at a path.

    Args:
        path: Where it lies.
        schema: The columns it has to have.
        remedy: What makes the file again, a sentence.

    Raises:
        SchemaError: It is missing or has other columns.
        DataError: It is damaged.
    """
    with naming_file(path, remedy):
        table = read_parquet(path)
    require(table, schema, name=str(path), remedy=remedy)
    return table


@contextmanager
def naming_file(path: Path, remedy: str) -> Iterator[None]:
    """Word what polars raises where it reads ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise SchemaError(f"{path}: not found. {remedy}") from None
    except MemoryError:
        raise
    except (*_DAMAGE, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({error}). {remedy}") from None


def write_table(path: Path, table: pl.DataFrame, schema: pl.Schema) -> None:
    """Write a table, whole or not at all.

    Raises:
        SchemaError: It has other columns.
    """
    require(table, schema, name=str(path))
    write_parquet(path, table)


def sink_table(
    path: Path,
    table: pl.LazyFrame,
    schema: pl.Schema,
    zstd_level: int | None = None,
    group_rows: int | None = None,
) -> None:
    """Write a table that need not fit into memory, whole or not at all.

    Args:
        path: Of the file.
        table: What it is to hold. An Enum is written, and read again, as strings, of which each
            is looked at once in place of in every row.
        schema: Its columns; others may follow.
        zstd_level: Of the compression; None: polars' own, which is smaller and slower than 1.
        group_rows: Rows in memory at a time; None: polars' own 262,144, many for rows with texts.

    Raises:
        SchemaError: It has other columns.
    """
    found = pl.DataFrame(schema=table.collect_schema())
    read = found.cast({pl.Enum: pl.String})
    require(read, schema, name=str(path))
    with new_file(path) as temporary:
        table.sink_parquet(
            temporary,
            metadata=None if found.schema == read.schema else _arrow_schema(read),
            compression="zstd",
            compression_level=zstd_level,
            statistics=True,
            row_group_size=group_rows,
        )


def _arrow_schema(table: pl.DataFrame) -> dict[str, str]:
    """What a Parquet file says of the types of its columns besides what Parquet has a word for."""
    schema = base64.b64encode(to_arrow(table).schema.serialize().to_pybytes()).decode()
    return {"ARROW:schema": schema}

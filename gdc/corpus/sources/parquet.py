"""Parquet -> rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetFile

from gdc.config import ParquetSource
from gdc.corpus.sources.fields import advice, require_whole
from gdc.corpus.sources.files import opened
from gdc.corpus.sources.folders import find_files
from gdc.corpus.sources.rows import NO_KEY, Fields, Row, listed
from gdc.errors import DataError


def read_rows(source: ParquetSource) -> Iterator[Row]:
    """Read file by file; rows are numbered from 1 in each.

    Raises:
        DataError: A file is not Parquet, or has not the configured columns.
    """
    for name, path in find_files(source.path, "parquet").files:
        for number, (text, key) in enumerate(_texts_and_keys(path, source), start=1):
            yield Row(f"{name}:{number}", text, key)


def read_records(source: ParquetSource) -> Iterator[tuple[str, Fields]]:
    """Where each row stands, and all of its columns.

    Raises:
        DataError: A file is not Parquet.
    """
    for name, path in find_files(source.path, "parquet").files:
        with opened(path) as file, _explained(path):
            batches = ParquetFile(file, page_checksum_verification=True).iter_batches()
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"{name}:{number}", row) for number, row in enumerate(rows, start=1))


def first_fields(source: ParquetSource) -> list[str]:
    """Names of the columns of the first file; none where it cannot be read."""
    for _, path in find_files(source.path, "parquet").files:
        with opened(path) as file:
            try:
                return list(ParquetFile(file).schema_arrow.names)
            except (pa.ArrowException, OSError):
                return []
    return []


def _texts_and_keys(path: Path, source: ParquetSource) -> Iterator[tuple[object, object]]:
    # Not polars: it panics on some damaged files.
    with opened(path) as file, _explained(path):
        parquet = ParquetFile(file, page_checksum_verification=True)
        for batch in _batches(parquet, path, source):
            texts = batch.column(source.text_field).to_pylist()
            keys = [NO_KEY] * len(texts)
            if source.key_field is not None:
                keys = batch.column(source.key_field).to_pylist()
            yield from zip(texts, keys, strict=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        raise DataError(
            f"{path}: expected a Parquet file, got one that is damaged or of "
            f"another format ({type(error).__name__}). Write it anew, or remove it."
        ) from None


def _batches(parquet: ParquetFile, path: Path, source: ParquetSource) -> Iterator[pa.RecordBatch]:
    columns = [c for c in (source.text_field, source.key_field) if c is not None]
    schema = parquet.schema_arrow
    for column in columns:
        if (num := schema.names.count(column)) != 1:
            got = f"{num} of this name among" if num else "columns"
            raise DataError(
                f"{path}: expected column {column!r}, got {got} {listed(schema.names)}. Set "
                "ingest.source.text_field and key_field to columns that every file has once."
                f"{advice(schema.names)}"
            )
    require_whole(source.text_field, schema.names, source.path)
    form = schema.field(source.text_field).type
    # Binary columns have four types, and one more in a dictionary.
    if pa.types.is_nested(form) or "binary" in str(form):
        raise DataError(
            f"{path}: expected strings in column {source.text_field!r}, got {str(form)[:50]}. Set "
            "ingest.source.text_field to one of strings, or write the file anew with strings."
            f"{advice(schema.names)}"
        )
    yield from parquet.iter_batches(columns=columns)

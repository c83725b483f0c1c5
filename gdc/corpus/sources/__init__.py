"""Sources of every kind -> ``SOURCE_ROWS`` and the rows that cannot be used."""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal

import polars as pl

from gdc.config import (
    JsonlSource,
    ParquetSource,
    PretrainedTokenizer,
    Source,
    TextSource,
    Tokenizer,
)
from gdc.corpus.sources import huggingface, jsonl, parquet, pretrained, python_docs, synthetic, text
from gdc.corpus.sources.endings import ENDINGS
from gdc.corpus.sources.files import hash_files, opened
from gdc.corpus.sources.folders import find_files
from gdc.corpus.sources.rows import NO_KEY, Row, SourceRows, collect, in_chunks
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject

__all__ = [
    "SourceRows",
    "check_bad_rows",
    "find_unread",
    "fingerprint",
    "fingerprint_pretrained",
    "first_fields",
    "read_chunks",
    "read_keyed",
    "read_source",
    "require_readable",
]

_NUM_SHOWN: Final = 5
_NUM_OPENED: Final = 1000


def fingerprint(source: Source) -> JsonObject:  # each kind has its own fields
    """What identifies the content of a source: hashes of its files, never their times.

    Returns:
        JSON-able object with ``kind``, ``source`` (its parameters), what the kind is made of
        (``files``: hash by name, for most) and ``digest``, one hash over all of it.

    Raises:
        DataError: The source is not there.
        TransientError: The Hub did not answer.
    """
    content: dict[str, object] = {"kind": source.kind, "source": source.model_dump(mode="json")}
    content |= _CONTENTS[source.kind](source)
    canonical = json.dumps(content, sort_keys=True).encode()
    return {**content, "digest": blake2b(canonical, digest_size=16).hexdigest()}


def fingerprint_pretrained(tokenizer: Tokenizer) -> JsonObject:  # as pretrained.content
    """What identifies a pretrained tokenizer, and the model that comes with it.

    Returns:
        JSON-able object with ``name`` and ``files`` (hash by name) or, from the Hub, ``commit``;
        empty for a tokenizer that is trained here.

    Raises:
        ConfigError: There is no such folder and nothing of that name on the Hub.
        TransientError: The Hub did not answer.
    """
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {}
    return {"name": tokenizer.name, **pretrained.content(tokenizer.name, tokenizer.revision)}


def find_unread(source: Source) -> dict[str, list[str]]:
    """Names of the files of a folder that the source does not read, by reason.

    Raises:
        DataError: The source is not there.
    """
    if isinstance(source, JsonlSource | ParquetSource | TextSource):
        return find_files(source.path, source.kind).unread
    return {}


def require_readable(source: Source) -> None:
    """Refuse a source of files that is not there or cannot be opened, before anything starts.

    Of a folder with very many files only the first are opened.

    Raises:
        DataError: The source is not there, or a file cannot be read.
    """
    if isinstance(source, JsonlSource | ParquetSource | TextSource):
        for file in find_files(source.path, source.kind).files[:_NUM_OPENED]:
            with opened(file.path):
                pass


def read_source(source: Source, *, max_chars: int, seed: int) -> SourceRows:
    """Read every row of a source in source order, usable or bad.

    Args:
        source: What to read.
        max_chars: A text with more characters is a bad row.
        seed: Seed of a synthetic source.

    Raises:
        DataError: The source is not there, or all of it has another form than configured.
        TransientError: The Hub did not answer.
    """
    return collect(_READERS[source.kind](source, max_chars, seed), max_chars=max_chars)


def read_chunks(source: Source, *, max_chars: int, seed: int) -> Iterator[SourceRows]:
    """``read_source`` in chunks of rows, at least one."""
    return in_chunks(_READERS[source.kind](source, max_chars, seed), max_chars=max_chars)


def read_keyed(source: Source, *, max_chars: int) -> pl.DataFrame:
    """Read the rows of a source with the name that each has there.

    Args:
        source: What to read.
        max_chars: A text with more characters is a bad row.

    Returns:
        Rows in source order: ``sample_id``, the value of the source's ``key_field`` as a string, or
        without one the number of the row, from 0; ``text``, as it stands there, the turns and
        halves of fine-tuning data in JSON lines joined; and ``source``, its file and line.

    Raises:
        DataError: The source is not there, or a row cannot be used.
        TransientError: The Hub did not answer.
    """
    names: list[str] = []

    def named(rows: Iterator[Row]) -> Iterator[Row]:
        for number, row in enumerate(rows):
            names.append(str(number if row.key is NO_KEY else row.key))
            yield row

    if isinstance(source, JsonlSource):
        rows = jsonl.read_rows(source, max_chars=max_chars, joined=True)
    else:
        rows = _READERS[source.kind](source, max_chars, 0)
    found = collect(named(rows), max_chars=max_chars)
    check_bad_rows(found.bad_rows, found.rows.height, on_bad_row="fail")
    return found.rows.select(pl.Series("sample_id", names, dtype=pl.String), "text", "source")


def first_fields(source: JsonlSource | ParquetSource) -> list[str]:
    """Names of the fields of the first row; none where it cannot be read.

    Raises:
        DataError: The source is not there.
    """
    return _FIELDS[source.kind](source)


def check_bad_rows(
    bad_rows: pl.DataFrame, num_usable: int, *, on_bad_row: Literal["fail", "quarantine"]
) -> None:
    """Refuse bad rows under ``fail``, and a source without a usable row always.

    Raises:
        DataError: The first bad rows with their reasons, and their number; never their text.
    """
    num_bad = bad_rows.height
    if num_bad and on_bad_row == "fail":
        raise DataError(
            f"ingest.source: expected usable rows, got {num_bad} bad of {num_usable + num_bad}: "
            f"{_first(bad_rows)}. Mend them, or set ingest.on_bad_row: quarantine."
        )
    if num_usable == 0:
        found = f"{num_bad} bad rows: {_first(bad_rows)}" if num_bad else "an empty source"
        raise DataError(
            f"ingest.source: expected at least one usable row, got {found}. Add text, or mend it."
        )


def _first(bad_rows: pl.DataFrame) -> str:
    shown = [f"{where} ({reason})" for where, reason in bad_rows.head(_NUM_SHOWN).iter_rows()]
    return ", ".join(shown) + (", ..." if bad_rows.height > _NUM_SHOWN else "")


_READERS: Final[Mapping[str, Callable[[Any, int, int], Iterator[Row]]]] = {
    "python-docs": lambda _source, _max_chars, _seed: python_docs.read_rows(),
    "python-library": lambda _source, _max_chars, _seed: python_docs.read_paragraphs(),
    "jsonl": lambda source, max_chars, _seed: jsonl.read_rows(source, max_chars=max_chars),
    "parquet": lambda source, _max_chars, _seed: parquet.read_rows(source),
    "text": lambda source, max_chars, _seed: text.read_rows(source, max_chars=max_chars),
    "huggingface": lambda source, _max_chars, _seed: huggingface.read_rows(source),
    "synthetic": lambda source, _max_chars, seed: synthetic.read_rows(source, seed=seed),
}
_FIELDS: Final[Mapping[str, Callable[[Any], list[str]]]] = {
    "jsonl": jsonl.first_fields,
    "parquet": parquet.first_fields,
}
_CONTENTS: Final[Mapping[str, Callable[[Any], dict[str, object]]]] = {
    "python-docs": lambda _source: python_docs.content(),
    "python-library": lambda _source: python_docs.content(),
    **dict.fromkeys(
        ENDINGS,
        lambda source: {"files": hash_files(find_files(source.path, source.kind).files)},
    ),
    "huggingface": huggingface.content,
    "synthetic": lambda _source: {},  # its parameters say all
}

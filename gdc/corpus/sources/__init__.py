"""Sources of every kind -> ``SOURCE_ROWS`` and the rows that cannot be used."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from gdc.config import (
    ChatSource,
    IngestConfig,
    JsonlSource,
    ParquetSource,
    PretrainedTokenizer,
    Source,
    TextSource,
    Tokenizer,
    TokensSource,
)
from gdc.corpus.chat import TURN_LIST, ChatFormat
from gdc.corpus.sources import (
    conversations,
    huggingface,
    jsonl,
    parquet,
    pretrained,
    python_docs,
    synthetic,
    text,
    tokens,
)
from gdc.corpus.sources.endings import ENDINGS
from gdc.corpus.sources.files import SourceFile, hash_files, opened, visible_files
from gdc.corpus.sources.folders import Found, find_files
from gdc.corpus.sources.rows import Row, SourceRows, collect, in_chunks
from gdc.corpus.tokenizer import TextTokenizer
from gdc.errors import DataError
from gdc.filesystem.json_values import JsonObject
from gdc.schema import SOURCE_ROWS

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
    "require_usable",
]

_NUM_SHOWN: Final = 5
_NUM_OPENED: Final = 1000
_NUM_LOOKED_AT: Final = 100


def fingerprint(source: Source) -> JsonObject:  # each kind has its own fields
    """What identifies the content of a source: hashes of its files, never their times.

    Returns:
        JSON-able object with ``kind``, ``source`` (its parameters), what the kind is made of
        (``files``: hash by name, for most) and ``digest``, one hash over all of it.

    Raises:
        DataError: The source is not there.
        TransientError: The Hub did not answer.
    """
    content: JsonObject = {"kind": source.kind, "source": source.model_dump(mode="json")}
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
    found = _files_of(source)
    return {} if found is None else found.unread


def _require_readable(source: Source) -> None:
    """Refuse a source of files that is not there or cannot be opened, before anything starts.

    Of a folder with very many files only the first are opened.

    Raises:
        DataError: The source is not there, or a file cannot be read.
    """
    found = _files_of(source)
    for file in [] if found is None else found.files[:_NUM_OPENED]:
        with opened(file.path):
            pass


def require_usable(ingest: IngestConfig, *, seed: int) -> None:
    """Refuse a source that a run would refuse for its first rows, before anything starts.

    Conversations and token ids, which a tokenizer has a part in, are only opened, and the Hub is
    not asked.

    Raises:
        DataError: The source is not there, cannot be read, or has bad rows among the first.
    """
    source = ingest.source
    _require_readable(source)
    if not isinstance(source, JsonlSource | ParquetSource | TextSource):
        return
    rows = _rows(source, ingest.max_chars, seed, _Formats(None, None))
    first = collect(
        islice(rows, _NUM_LOOKED_AT), max_chars=ingest.max_chars, schema=_schema(source)
    )
    if next(rows, None) is None:
        check_bad_rows(first.bad_rows, first.rows.height, on_bad_row=ingest.on_bad_row)
    elif ingest.on_bad_row == "fail" and first.bad_rows.height:
        raise _bad_rows(first.bad_rows, f"the first {_NUM_LOOKED_AT}")


def read_source(
    source: Source,
    *,
    max_chars: int,
    seed: int,
    chat: ChatFormat | None = None,
    tokenizer: TextTokenizer | None = None,
) -> SourceRows:
    """Read every row of a source in source order, usable or bad.

    Args:
        source: What to read.
        max_chars: A text with more characters is a bad row.
        seed: Seed of a synthetic source.
        chat: The format of conversations, whose rows get a column ``turns``; None: plain.
        tokenizer: That which made the ids of a source of token ids; others need none.

    Returns:
        Usable rows with a column ``key`` where the source has a ``key_field``, and the bad ones.

    Raises:
        ConfigError: Token ids have no tokenizer.
        DataError: The source is not there, or all of it has another form than configured.
        TransientError: The Hub did not answer.
    """
    rows = _rows(source, max_chars, seed, _Formats(chat, tokenizer))
    return collect(rows, max_chars=max_chars, schema=_schema(source))


def read_chunks(
    source: Source,
    *,
    max_chars: int,
    seed: int,
    chat: ChatFormat | None = None,
    tokenizer: TextTokenizer | None = None,
) -> Iterator[SourceRows]:
    """``read_source`` in chunks of rows, at least one."""
    rows = _rows(source, max_chars, seed, _Formats(chat, tokenizer))
    return in_chunks(rows, max_chars=max_chars, schema=_schema(source))


def read_keyed(
    source: Source,
    *,
    max_chars: int,
    chat: ChatFormat | None = None,
    tokenizer: TextTokenizer | None = None,
) -> pl.DataFrame:
    """Read the rows of a source with the name that each has there.

    Args:
        source: What to read.
        max_chars: A text with more characters is a bad row.
        chat: The format of conversations; None: plain.
        tokenizer: As in ``read_source``; ids are only shown, so none must come out the same again.

    Returns:
        Rows in source order: ``sample_id``, the value of the source's ``key_field`` as a string, or
        without one the number of the row, from 0; ``text``, as it stands there or as the format
        makes it; ``source``, its file and line; and of conversations ``turns``.

    Raises:
        DataError: The source is not there, or a row cannot be used.
        TransientError: The Hub did not answer.
    """
    rows = _rows(source, max_chars, 0, _Formats(chat, tokenizer, is_encoded_again=False))
    found = collect(rows, max_chars=max_chars, schema=_schema(source))
    check_bad_rows(found.bad_rows, found.rows.height, on_bad_row="fail")
    usable = found.rows
    if "key" not in usable.columns:
        usable = usable.with_columns(key=pl.int_range(pl.len()).cast(pl.String))
    turns = ["turns"] if "turns" in usable.columns else []
    return usable.select(pl.col("key").alias("sample_id"), "text", "source", *turns)


def first_fields(source: JsonlSource | ParquetSource | ChatSource) -> list[str]:
    """Names of the fields of the first row; none where it cannot be read.

    Raises:
        DataError: The source is not there.
    """
    if isinstance(source, ChatSource):
        first = next(conversations.read_records(source, 1), None)
        return [] if first is None or first.fields is None else [*first.fields]
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
        raise _bad_rows(bad_rows, str(num_usable + num_bad))
    if num_usable == 0:
        found = f"{num_bad} bad rows: {_first(bad_rows)}" if num_bad else "an empty source"
        raise DataError(
            f"ingest.source: expected at least one usable row, got {found}. Add text, or mend it."
        )


@dataclass(frozen=True)
class _Formats:
    """How conversations and token ids become text."""

    chat: ChatFormat | None
    tokenizer: TextTokenizer | None
    is_encoded_again: bool = True


def _rows(source: Source, max_chars: int, seed: int, formats: _Formats) -> Iterator[Row]:
    if isinstance(source, TokensSource):
        return tokens.read_rows(
            source, formats.tokenizer, is_encoded_again=formats.is_encoded_again
        )
    if isinstance(source, ChatSource):
        chat = formats.chat or ChatFormat.of(None, source.chat_template)
        return conversations.read_rows(source, max_chars=max_chars, chat=chat)
    return _READERS[source.kind](source, max_chars, seed)


def _schema(source: Source) -> pl.Schema:
    key = {} if getattr(source, "key_field", None) is None else {"key": pl.String()}
    turns = {"turns": TURN_LIST} if isinstance(source, ChatSource) else {}
    return pl.Schema({**SOURCE_ROWS, **key, **turns})


def _files_of(source: Source) -> Found | None:
    """The files that a source reads; None: it is not made of files."""
    if isinstance(source, JsonlSource | ParquetSource | TextSource):
        return find_files(source.path, source.kind)
    if isinstance(source, TokensSource):
        return tokens.find(source)
    if not isinstance(source, ChatSource):
        return None
    kind = conversations.kind_at(source.path)
    if kind == huggingface.KIND:
        return Found(visible_files(Path(source.path)), {})
    return find_files(source.path, kind)


def _hashes(source: Source) -> JsonObject:
    found = _files_of(source)
    files: list[SourceFile] = [] if found is None else found.files
    return {"files": hash_files(files)}


def _bad_rows(bad_rows: pl.DataFrame, of: str) -> DataError:
    return DataError(
        f"ingest.source: expected usable rows, got {bad_rows.height} bad of {of}: "
        f"{_first(bad_rows)}. Mend them, or set ingest.on_bad_row: quarantine."
    )


def _first(bad_rows: pl.DataFrame) -> str:
    shown = [f"{where} ({reason})" for where, reason in bad_rows.head(_NUM_SHOWN).iter_rows()]
    return ", ".join(shown) + (", ..." if bad_rows.height > _NUM_SHOWN else "")


# Each takes the source of its kind, of a type of its own: ``Any`` in these three tables.
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
_CONTENTS: Final[Mapping[str, Callable[[Any], JsonObject]]] = {
    "python-docs": lambda _source: python_docs.content(),
    "python-library": lambda _source: python_docs.content(),
    **dict.fromkeys([*ENDINGS, "chat"], _hashes),
    "huggingface": huggingface.content,
    "synthetic": lambda _source: {},  # its parameters say all
}

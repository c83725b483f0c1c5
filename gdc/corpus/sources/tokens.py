"""Files of token ids -> rows, each the text of a document."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gdc.config import TokensSource
from gdc.corpus.sources.files import SourceFile
from gdc.corpus.sources.folders import Found, find_files
from gdc.corpus.sources.rows import Row
from gdc.corpus.token_files import IDS, TokenFile, index_of, read_indexed, read_stream
from gdc.corpus.tokenizer import TextTokenizer
from gdc.errors import ConfigError, DataError


def find(source: TokensSource) -> Found:
    """The files of ids and their indices, sorted by name.

    Raises:
        DataError: Nothing of the kind is there, or an index without ids.
    """
    found = find_files(source.path, "tokens")
    files = {*found.files}
    for name, path in found.files:
        index = index_of(path)
        if path.suffix.lower() == IDS and source.dtype is None and index.exists():
            files.add(SourceFile(str(Path(name).with_suffix(index.suffix)), index))
        if path.suffix.lower() != IDS and not path.with_suffix(IDS).exists():
            raise DataError(
                f"{path}: expected the file of its ids beside it, {path.with_suffix(IDS).name}, "
                "got none. Copy it there, or name the .bin file."
            )
    return Found(sorted(files), found.unread)


def open_file(path: Path, source: TokensSource, end_of_text: int) -> TokenFile:
    """Open a file of ids as the source says.

    Raises:
        DataError: It cannot be read so.
    """
    if source.dtype is None:
        if not index_of(path).exists():
            raise DataError(
                f"{path}: expected {index_of(path).name} beside it, as Megatron writes it, got "
                "none. Copy it there; of ids without an index name ingest.source.dtype."
            )
        return read_indexed(path)
    separator = end_of_text if source.separator is None else source.separator
    return read_stream(path, source.dtype, separator)


def read_rows(
    source: TokensSource, tokenizer: TextTokenizer | None, *, is_encoded_again: bool
) -> Iterator[Row]:
    """Read file by file; documents are numbered from 1 in each.

    Args:
        source: The files.
        tokenizer: That which made the ids.
        is_encoded_again: Whether the text is to be made to ids again: a document whose ids come out
            different is a bad row.

    Raises:
        ConfigError: There is no tokenizer.
        DataError: A file cannot be read, or has ids that the tokenizer does not know.
    """
    if tokenizer is None:
        raise ConfigError(
            f"ingest.tokenizer.name: expected the tokenizer that made the ids of {source.path}, "
            "got none. Name it, a folder or a Hub name."
        )
    for name, path in find(source).files:
        if path.suffix.lower() == IDS:
            file = open_file(path, source, tokenizer.end_of_text)
            for number, ids in enumerate(file, start=1):
                where = f"{name}:{number}"
                yield _row(where, ids, tokenizer, file.separator, is_encoded_again)


def _row(
    where: str,
    document: NDArray[np.int64],
    tokenizer: TextTokenizer,
    separator: int | None,
    is_encoded_again: bool,
) -> Row:
    size = tokenizer.vocab_size
    if len(document) and not 0 <= document.min() <= document.max() < size:
        odd = document[(document < 0) | (document >= size)][0]
        raise DataError(
            f"{where}: expected ids below {size:,}, which the tokenizer has, got {odd:,}. Name the "
            "tokenizer that made the ids, and the type that they are written in."
        )
    ids = _inner(document, tokenizer, separator)
    text = tokenizer.decode(ids)
    if is_encoded_again and ids and tokenizer.encode([text])[0] != ids:
        return Row(where, reason="the tokenizer makes other ids of its text")
    return Row(where, text)


def _inner(
    document: NDArray[np.int64], tokenizer: TextTokenizer, separator: int | None
) -> list[int]:
    """The ids without what marks the beginning and the end of a document."""
    named = tokenizer.special_tokens.get("bos_token")
    begin = None if named is None else tokenizer.tokenizer.token_to_id(named)
    marks = {tokenizer.end_of_text, separator, begin}
    ids: list[int] = document.tolist()
    start = 0
    while start < len(ids) and ids[start] in marks:
        start += 1
    end = len(ids)
    while end > start and ids[end - 1] in marks:
        end -= 1
    return ids[start:end]

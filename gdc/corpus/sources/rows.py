"""Rows of a reader -> usable rows, and bad rows with the reason."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from unicodedata import category

import polars as pl

from gdc.schema import QUARANTINE, SOURCE_ROWS

_UNSEEN: Final = ("Cc", "Cf")
NO_KEY: Final = object()
# Characters of the texts of a chunk of rows, of which memory holds one.
CHUNK_CHARS: Final = 2**25
# What stands in a row of a user's: fields of any names and types, checked where one is read.
Fields = Mapping[str, Any]


class Row(NamedTuple):
    """One row of a source, usable or not.

    ``text`` and ``key`` are unchecked values. A reader that cannot read them gives the ``reason``.
    """

    source: str
    text: object = None
    key: object = NO_KEY
    reason: str | None = None
    turns: Sequence[NamedTuple] | None = None  # of a conversation, as in ``chat.TURN_LIST``


@dataclass(frozen=True)
class SourceRows:
    """A source's ``SOURCE_ROWS`` and ``QUARANTINE`` tables, both in source order."""

    rows: pl.DataFrame
    bad_rows: pl.DataFrame


def in_chunks(
    rows: Iterable[Row], *, max_chars: int, schema: pl.Schema = SOURCE_ROWS
) -> Iterator[SourceRows]:
    """Part usable rows from bad ones; each chunk but the last holds about ``CHUNK_CHARS`` of text.

    ``schema`` is that of usable rows: behind ``SOURCE_ROWS`` a column ``key`` where rows have keys,
    and ``turns`` where they are conversations.

    Only the keys of usable rows are taken, so a bad row never makes a usable one a duplicate.
    """
    usable, bad, num_chars = _new_chunk()
    first_with: dict[str, str] = {}
    for row in rows:
        reason = (
            row.reason or _text_problem(row.text, max_chars) or _key_problem(row.key, first_with)
        )
        if reason is None:
            key = () if row.key is NO_KEY else (str(row.key),)
            usable.append((row.text, row.source, *key, *_turns(row)))
            num_chars += len(str(row.text))
            first_with |= dict.fromkeys(key, row.source)
        else:
            bad.append((row.source, reason))
        if num_chars >= CHUNK_CHARS:
            yield _tables(usable, bad, schema)
            usable, bad, num_chars = _new_chunk()
    yield _tables(usable, bad, schema)


def collect(rows: Iterable[Row], *, max_chars: int, schema: pl.Schema = SOURCE_ROWS) -> SourceRows:
    """All usable rows and all bad ones."""
    chunks = list(in_chunks(rows, max_chars=max_chars, schema=schema))
    return SourceRows(
        pl.concat(chunk.rows for chunk in chunks), pl.concat(chunk.bad_rows for chunk in chunks)
    )


def too_long(num_chars: int, max_chars: int) -> str:
    """The reason of a row with too many characters."""
    return f"{num_chars} characters, at most {max_chars}"


def listed(names: Sequence[str]) -> str:
    """Names in one line, the first of very many."""
    shown = ", ".join(repr(name[:50]) for name in names[:20])
    return f"[{shown}{', ...' if len(names) > 20 else ''}]"


def is_empty(text: str) -> bool:
    """Whether a text has nothing but blanks, control characters and marks without a width."""
    return all(character.isspace() or category(character) in _UNSEEN for character in text)


def _new_chunk() -> tuple[list[tuple[object, ...]], list[tuple[str, str]], int]:
    return [], [], 0


def _turns(row: Row) -> tuple[object, ...]:
    return () if row.turns is None else ([turn._asdict() for turn in row.turns],)


def _tables(
    usable: list[tuple[object, ...]], bad: list[tuple[str, str]], schema: pl.Schema
) -> SourceRows:
    return SourceRows(
        pl.DataFrame(usable, schema=schema, orient="row"),
        pl.DataFrame(bad, schema=QUARANTINE, orient="row"),
    )


def _text_problem(text: object, max_chars: int) -> str | None:
    if text is None:
        return "text is null"
    if not isinstance(text, str):
        return f"expected a string, got {type(text).__name__}"
    if len(text) > max_chars:
        return too_long(len(text), max_chars)
    if is_empty(text):
        return "empty text"
    return None if _is_unicode(text) else "not valid Unicode: a lone surrogate"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key_problem(key: object, first_with: dict[str, str]) -> str | None:
    if key is NO_KEY:
        return None
    if key is None:
        return "key is null"
    if isinstance(key, bool) or not isinstance(key, str | int):
        return f"expected a string or an integer as key, got {type(key).__name__}"
    if not _is_unicode(str(key)):
        return "key is not valid Unicode: a lone surrogate"
    first = first_with.get(str(key))
    return None if first is None else f"duplicate key, first at {first}"

"""JSON Lines -> rows: one object per line."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from gdc.config import JsonlSource
from gdc.corpus.sources.fields import advice, require_whole
from gdc.corpus.sources.files import read_lines, unpacked
from gdc.corpus.sources.folders import find_files
from gdc.corpus.sources.rows import NO_KEY, Fields, Row, listed
from gdc.corpus.sources.wrong_formats import problem_of
from gdc.errors import DataError

# A character takes at most 12 bytes of JSON: an escaped surrogate pair.
_BYTES_PER_CHAR: Final = 12
_OTHER_FIELDS: Final = 2**20
_FIELDS_SHOWN: Final = 20


class _LineError(ValueError):
    """Why a line is no row."""


def read_rows(source: JsonlSource, *, max_chars: int) -> Iterator[Row]:
    """Read line by line; blank lines are no rows.

    Raises:
        DataError: No object has the text field, or it holds one half of a text.
    """
    has_text, fields = False, dict[str, None]()
    for where, record, reason in read_records(source, max_chars):
        if record is None:
            yield Row(where, reason=reason)
            continue
        require_whole(source.text_field, record, source.path)
        has_text |= not isinstance(record.get(source.text_field, []), list | dict)
        if not has_text and len(fields) < _FIELDS_SHOWN:
            fields |= dict.fromkeys(list(record)[:_FIELDS_SHOWN])
        yield _row(where, record, source)
    if fields and not has_text:
        raise _wrong_field(source, list(fields))


def read_records(
    source: JsonlSource, max_chars: int
) -> Iterator[tuple[str, Fields | None, str | None]]:
    """Where each line stands and its object, or the reason why it is none."""
    for where, line in _numbered_lines(source, _BYTES_PER_CHAR * max_chars + _OTHER_FIELDS):
        try:
            yield where, _parse(line), None
        except _LineError as problem:
            yield where, None, str(problem)


def first_fields(source: JsonlSource) -> list[str]:
    """Names of the fields of the first object; none where the first line is none."""
    for _, line in _numbered_lines(source, _OTHER_FIELDS):
        try:
            return list(_parse(line))
        except _LineError:
            return []
    return []


def _wrong_field(source: JsonlSource, fields: list[str]) -> DataError:
    if source.text_field in fields:
        return DataError(
            f"ingest.source.text_field: expected strings in field {source.text_field!r} of "
            f"{source.path}, got lists or objects, beside fields {listed(fields)}. Set text_field "
            f"to one with strings.{advice(fields)}"
        )
    return DataError(
        f"ingest.source.text_field: expected field {source.text_field!r} in {source.path}, "
        f"got fields {listed(fields)}. Set text_field to one of them.{advice(fields)}"
    )


def _numbered_lines(
    source: JsonlSource, max_bytes: int
) -> Iterator[tuple[str, bytes | _LineError]]:
    for name, path in find_files(source.path, "jsonl").files:
        if problem := problem_of(path, is_json=True, has_lines=True):
            yield name, _LineError(problem)
            continue
        with unpacked(path) as file:
            for number, line in enumerate(read_lines(file, max_bytes), start=1):
                if line is None:
                    yield f"{name}:{number}", _LineError(f"line longer than {max_bytes} bytes")
                elif line.strip():
                    yield f"{name}:{number}", line


def _parse(line: bytes | _LineError) -> Fields:
    if isinstance(line, _LineError):
        raise line
    try:
        record = json.loads(line.decode().rstrip("\r\n"), object_pairs_hook=_object)
    except _LineError:
        raise
    except UnicodeDecodeError as error:
        raise _LineError(f"not UTF-8: byte {error.start + 1} of the line") from None
    except json.JSONDecodeError as error:
        raise _LineError(
            f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        ) from None
    except (ValueError, RecursionError):
        raise _LineError(
            "not JSON that can be read: a number too long, or too many levels"
        ) from None
    if not isinstance(record, dict):
        raise _LineError(f"expected an object, got {type(record).__name__}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> Fields:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = Counter(name for name, _ in pairs)
        twice = [name for name, num in names.items() if num > 1]
        raise _LineError(f"fields that stand twice in an object: {listed(twice)}")
    return record


def _row(where: str, record: Fields, source: JsonlSource) -> Row:
    for field in (source.text_field, source.key_field):
        if field is not None and field not in record:
            return Row(where, reason=f"no field {field!r}, only {listed(list(record))}")
    key = NO_KEY if source.key_field is None else record[source.key_field]
    return Row(where, record[source.text_field], key)

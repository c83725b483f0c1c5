"""The first bytes of a file -> why it cannot be read as its kind, and the command that helps."""

import codecs
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gdc.corpus.sources.files import unpacked

_HEAD_BYTES: Final = 2**16
# Those of UTF-32 first: the mark of UTF-16 starts one of them.
_MARKS: Final[Mapping[bytes, str]] = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_FORMATS: Final[Mapping[bytes, str]] = {
    b"\x1f\x8b": "compressed by gzip: end its name in .gz",
    b"BZh": "compressed by bzip2: end its name in .bz2",
    b"\xfd7zXZ\x00": "compressed by xz: end its name in .xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: end its name in .zst",
    b"PK\x03\x04": "a zip archive: unzip it",
    b"PAR1": "a Parquet file: end its name in .parquet and read it as kind parquet",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself: git lfs pull",
}
# Of the bytes of such a text; ordinary text with some NULs has fewer.
_MIN_CONTROLS: Final = 0.3
_LINE_ENDS: Final = b"\t\n\r"


_UNMARKED: Final[Mapping[str, Callable[[Sequence[bool], Sequence[bool]], bool]]] = {
    "UTF-32LE": lambda always, never: always[2] and always[3] and never[0],
    "UTF-32BE": lambda always, never: always[0] and always[1] and never[3],
    "UTF-16LE": lambda _, never: never[0] and never[2],
    "UTF-16BE": lambda _, never: never[1] and never[3],
}


def problem_of(path: Path, *, is_json: bool, has_lines: bool) -> str | None:
    """Why a file of JSON lines or text cannot be read at all; None: nothing speaks against it.

    Args:
        path: The file; compressed if its name says so.
        is_json: It should hold one JSON object in each line.
        has_lines: Its lines matter.

    Raises:
        DataError: The file cannot be opened.
    """
    head = _head(path)
    for start, other in _FORMATS.items():
        if head.startswith(start):
            return other
    if (encoding := _encoding(head)) is not None:
        return f"not UTF-8 but {encoding}: iconv -f {encoding} -t UTF-8 FILE > NEW"
    if is_json and (problem := _json_problem(head)):
        return problem
    if has_lines and head.rstrip(b"\r").count(b"\r") and b"\n" not in head:
        return r"lines that end in CR alone: tr '\r' '\n' < FILE > NEW"
    return None


def is_array(path: Path) -> bool:
    """Whether a file starts as a JSON array."""
    return _head(path).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _head(path: Path) -> bytes:
    with unpacked(path) as file:
        return file.read(_HEAD_BYTES)


def _encoding(head: bytes) -> str | None:
    """A Unicode encoding of two or four bytes for a character; None: another encoding."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    num_controls = sum(head.count(byte) for byte in range(32) if byte not in _LINE_ENDS)
    if b"\0" not in head or num_controls < _MIN_CONTROLS * len(head):
        return None
    # Without a mark: whether every fourth byte, from each of four offsets, is always or never NUL.
    columns = [head[offset::4] for offset in range(4)]
    always, never = ([f(byte == 0 for byte in column) for column in columns] for f in (all, _none))
    return next((name for name, fits in _UNMARKED.items() if fits(always, never)), None)


def _none(values: Iterable[bool]) -> bool:
    return not any(values)


def _json_problem(head: bytes) -> str | None:
    content = head.removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, rest = content.partition(b"\n")
    if first.strip() == b"{":
        return "JSON objects over several lines: jq -c . FILE > NEW.jsonl"
    # An array that fills one line among others is a bad row like any other.
    if first.startswith(b"[") and (not _is_json(first) or not rest.strip()):
        return "one JSON array and not one object per line: jq -c '.[]' FILE > NEW.jsonl"
    return None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True

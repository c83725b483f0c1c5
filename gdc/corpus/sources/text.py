"""Plain UTF-8 text -> rows: files, paragraphs or lines."""

from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from itertools import groupby
from typing import Final, NamedTuple

from gdc.config import TextSource
from gdc.corpus.sources.files import BYTE_ORDER_MARK, read_lines, unpacked
from gdc.corpus.sources.folders import find_files
from gdc.corpus.sources.rows import Row, is_empty, too_long
from gdc.corpus.sources.wrong_formats import problem_of

# A character takes at most 4 bytes of UTF-8.
_BYTES_PER_CHAR: Final = 4


class _Line(NamedTuple):
    """A line without its end, or the reason why it cannot be had."""

    number: int
    text: str
    reason: str | None = None

    @property
    def is_blank(self) -> bool:
        return self.reason is None and is_empty(self.text)


def read_rows(source: TextSource, *, max_chars: int) -> Iterator[Row]:
    """Read file by file; blank lines part paragraphs and are no rows of their own."""
    for name, path in find_files(source.path, "text").files:
        if problem := problem_of(path, is_json=False, has_lines=source.unit != "file"):
            yield Row(name, reason=problem)
            continue
        with unpacked(path) as file:
            yield from _UNITS[source.unit](name, file, max_chars)


def _whole_file(name: str, file: BufferedReader, max_chars: int) -> Iterator[Row]:
    max_bytes = _BYTES_PER_CHAR * max_chars + len(BYTE_ORDER_MARK)
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        yield Row(name, reason=f"more than {max_chars} characters")
        return
    try:
        yield Row(name, content.removeprefix(BYTE_ORDER_MARK).decode())
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        yield Row(name, reason=f"not UTF-8: line {line}")


def _lines(name: str, file: BufferedReader, max_chars: int) -> Iterator[Row]:
    for line in _decoded(file, max_chars):
        if not line.is_blank:
            yield Row(f"{name}:{line.number}", line.text, reason=line.reason)


def _paragraphs(name: str, file: BufferedReader, max_chars: int) -> Iterator[Row]:
    for is_blank, lines in groupby(_decoded(file, max_chars), key=lambda line: line.is_blank):
        if not is_blank:
            yield _paragraph(name, lines, max_chars)


def _paragraph(name: str, lines: Iterator[_Line], max_chars: int) -> Row:
    first = next(lines)
    kept, num_chars, reason = [first.text], len(first.text), first.reason
    for line in lines:
        num_chars += 1 + len(line.text)
        reason = reason or line.reason
        # A paragraph may be a whole file: what is too long is counted, not kept.
        if num_chars <= max_chars:
            kept.append(line.text)
    if reason is None and num_chars > max_chars:
        reason = too_long(num_chars, max_chars)
    return Row(f"{name}:{first.number}", "\n".join(kept), reason=reason)


def _decoded(file: BufferedReader, max_chars: int) -> Iterator[_Line]:
    max_bytes = _BYTES_PER_CHAR * max_chars + len(b"\r\n")
    for number, line in enumerate(read_lines(file, max_bytes), start=1):
        if line is None:
            yield _Line(number, "", f"line {number} has more than {max_chars} characters")
            continue
        try:
            yield _Line(number, line.decode().rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield _Line(number, "", f"not UTF-8: line {number}, byte {error.start + 1}")


_UNITS: Final[Mapping[str, Callable[[str, BufferedReader, int], Iterator[Row]]]] = {
    "file": _whole_file,
    "paragraph": _paragraphs,
    "line": _lines,
}

"""Files -> their hashes, their bytes without compression, and their lines."""

import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from gzip import GzipFile
from hashlib import blake2b, file_digest
from io import BufferedReader
from lzma import LZMAError, LZMAFile
from os import fsencode
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa

from gdc.corpus.sources.endings import compression_of
from gdc.errors import DataError
from gdc.filesystem.path_checks import require_file

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class SourceFile(NamedTuple):
    """A file and the name that rows and the manifest know it by, the same on every machine."""

    name: str
    path: Path


def name_of(path: Path, root: Path) -> str:
    """What rows and the manifest call a file below ``root``."""
    relative = path.relative_to(root.parent).as_posix()
    # A name that is not UTF-8 could stand in no table.
    return fsencode(relative).decode(errors="backslashreplace")


def visible_files(root: Path) -> list[SourceFile]:
    """Every file of a folder but hidden ones: neither Git's own files nor caches are read."""
    return sorted(
        SourceFile(name_of(path, root), path)
        for path in root.rglob("*")
        # A broken link is no folder either: it is kept, so that opening it tells of it.
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def hash_files(files: Sequence[SourceFile]) -> dict[str, str]:
    """Hash of the bytes of each file, by name."""
    return {name: _hash(path) for name, path in files}


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read; what the system refuses becomes a ``DataError``."""
    try:
        require_file(path)
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable file, got: {error.strerror}. Mend or remove it."
        ) from None


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read without its compression, if its name ends in one.

    Raises:
        DataError: The file cannot be read, or is no whole file of this compression.
    """
    compression = compression_of(path.name)
    with opened(path) as file:
        if compression is None:
            yield file
            return
        try:
            with BufferedReader(_UNPACKERS[compression](file)) as content:
                yield content
        except (OSError, EOFError, zlib.error, LZMAError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"{path}: expected a whole {compression} file, got one that is cut off, damaged or "
                "of another format. Write it anew, or remove it."
            ) from None


def read_lines(file: BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """The lines of a file, without a byte order mark; None for a line longer than ``max_bytes``.

    No more than ``max_bytes`` and a mark are held in memory.
    """
    mark = BYTE_ORDER_MARK
    while line := file.readline(max_bytes + 1 + len(mark)):
        line, mark = line.removeprefix(mark), b""
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
        else:
            _skip_line(file)
            yield None


def _skip_line(file: BufferedReader) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
        pass


def _hash(path: Path) -> str:
    with opened(path) as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()


# Each gives a file of another library, all of which read bytes.
_UNPACKERS: Final[Mapping[str, Callable[[BufferedReader], Any]]] = {
    ".gz": lambda file: GzipFile(fileobj=file),
    ".bz2": BZ2File,
    ".xz": LZMAFile,
    # Python has zstd from 3.14 on.
    ".zst": lambda file: pa.input_stream(file, compression="zstd"),
}

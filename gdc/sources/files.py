"""A configured path -> its files in one order, their hashes and their lines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b, file_digest
from io import BufferedReader
from os import fsencode
from pathlib import Path
from typing import Final, NamedTuple

from gdc.errors import DataError

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class SourceFile(NamedTuple):
    """A file and the name that rows and the manifest know it by, the same on every machine."""

    name: str
    path: Path


def find_files(path: str, pattern: str) -> list[SourceFile]:
    """The file ``path``, or every file of the folder that matches, at any depth, by name.

    Raises:
        DataError: Nothing is there, or nothing that matches.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(
            f"ingest.source.path: expected a file or folder, got {path!r} (not found). Mend the "
            "path; it counts from the project folder."
        )
    files = files_below(root, pattern) if root.is_dir() else [SourceFile(_name(root, root), root)]
    if not files:
        raise DataError(
            f"ingest.source.path: expected {pattern} files, got a folder without any: {path!r}. "
            "Add some, or choose another ingest.source.kind."
        )
    return files


def files_below(root: Path, pattern: str) -> list[SourceFile]:
    """Every file of a folder that matches, sorted by name."""
    # A broken link is no folder either: it is kept, so that opening it tells of it.
    found = [path for path in root.rglob(pattern) if not path.is_dir()]
    return sorted(SourceFile(_name(path, root), path) for path in found)


def visible_files(root: Path) -> list[SourceFile]:
    """Every file of a folder but hidden ones: neither Git's own files nor caches are read."""
    return [
        file
        for file in files_below(root, "*")
        if not any(part.startswith(".") for part in file.path.relative_to(root).parts)
    ]


def hash_files(files: Sequence[SourceFile]) -> dict[str, str]:
    """Hash of the bytes of each file, by name."""
    return {name: _hash(path) for name, path in files}


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to read; what the system refuses becomes a ``DataError``."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable file, got: {error.strerror}. Mend or remove it."
        ) from None


def read_lines(file: BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """The lines of a file, without a byte order mark; None for a line longer than ``max_bytes``.

    No more than ``max_bytes`` are held in memory.
    """
    if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
        file.seek(0)
    while line := file.readline(max_bytes + 1):
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line
        else:
            _skip_line(file)
            yield None


def _skip_line(file: BufferedReader) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
        pass


def _name(path: Path, root: Path) -> str:
    relative = path.relative_to(root.parent).as_posix()
    # A name that is not UTF-8 could stand in no table.
    return fsencode(relative).decode(errors="backslashreplace")


def _hash(path: Path) -> str:
    with opened(path) as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()

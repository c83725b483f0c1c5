"""Moves a finished file or folder to its name, complete even after a power failure."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gdc.errors import DataError

# No file of this name can lie there, whatever the disk has room for.
_NO_PLACE: Final = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL,
        errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY,
    }
)  # fmt: skip


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there on success.

    Raises:
        DataError: No such file can be made.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` and put it in its place on success.

    Raises:
        DataError: No such folder can be made.
    """
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        put_in_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there.

    Raises:
        DataError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: expected a folder, or a place to make one, got: {error.strerror}. "
            "Name another, or make room for it."
        ) from None


def require_place(path: Path) -> None:
    """Make the folder of a file, and refuse a name that no file can have there.

    Raises:
        DataError: No such file can be made.
    """
    _temporary(path)


def _temporary(path: Path) -> Path:
    """A free path beside ``path``, of a form that .dvcignore knows.

    Always the same for a path, and what a kill has left there goes.
    """
    make_folder(path.parent)
    # Absolute: polars takes a relative ~ for the home folder.
    temporary = path.absolute().with_name(f".{path.name}.tmp")
    with _naming_place(path):
        if temporary.is_dir():
            shutil.rmtree(temporary)
        # Whether a file can be made is known before the work that fills it.
        temporary.touch()
        temporary.unlink()
    return temporary


@contextmanager
def _naming_place(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise DataError(
            f"{path.parent}: expected a folder in which {path.name} can be written, got: "
            f"{error.strerror}. Name another."
        ) from None


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to disk, then rename it to ``path``.

    Raises:
        DataError: ``path`` cannot be its name, as where a folder has it.
    """
    inside = sorted(temporary.rglob("*")) if temporary.is_dir() else []
    for part in (*inside, temporary):
        _sync(part)
    with _naming_place(path):
        temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    # Not every file system can flush folders, or files that are open for reading only.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Checks of paths: is it a regular file, do two overlap? Links are followed, no file is opened."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gdc.errors import ConfigError, DataError

_KINDS: Final[Mapping[str, Callable[[int], bool]]] = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a socket": stat.S_ISSOCK,
}


def require_file(path: Path, where: str = "") -> None:
    """Refuse a path that is no regular file, as a read from a pipe or device may never end.

    Args:
        path: The path that is about to be opened.
        where: Name for the error message, if not the path.

    Raises:
        DataError: It is a folder, a named pipe, a device or a socket.
        OSError: It does not exist, or this user may not look at it.
    """
    found = irregular_kind(path)
    if found is not None:
        raise DataError(
            f"{where or path}: expected a regular file, got {found}. Save its content to a file, "
            "and name that."
        )


def irregular_kind(path: Path) -> str | None:
    """Return what a path is, in words, unless it is a regular file; None: it is one.

    Raises:
        OSError: It does not exist, or this user may not look at it.
    """
    try:
        mode = path.stat().st_mode
    except NotADirectoryError as error:
        # Below a file or a device there is nothing.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    return next((kind for kind, is_kind in _KINDS.items() if is_kind(mode)), None)


def overlapping(path: Path, others: Iterable[Path]) -> Path | None:
    """Return the first of ``others`` that equals, contains or lies inside ``path``, or None.

    Paths are compared both as given and with their links resolved.
    """
    named = _names(path)
    for other in others:
        if any(a == b or a in b.parents or b in a.parents for a in named for b in _names(other)):
            return other
    return None


def require_other_file(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        ConfigError: ``out`` is one of the inputs, lies in one, or holds one.
    """
    if found := overlapping(out, inputs):
        raise ConfigError(f"--out {out}: expected another file than {found}. Name another.")


def links_below(folder: Path) -> Iterator[Path]:
    """Yield every link inside a folder at any depth, also in folders that links lead to."""
    todo, seen = [folder], set[str]()
    while todo:
        root = todo.pop()
        if (place := os.path.realpath(root)) in seen:
            continue
        seen.add(place)
        for parent, folders, names in os.walk(root):
            paths = (Path(parent, name) for name in (*folders, *names))
            links = [path for path in paths if path.is_symlink()]
            yield from links
            todo += [link for link in links if link.is_dir()]


def _names(path: Path) -> set[Path]:
    # abspath and realpath, as Path.resolve raises for a link to itself.
    return {Path(os.path.abspath(path)), Path(os.path.realpath(path))}  # noqa: PTH100

"""A path -> what lies there, and whether it lies in another: links resolved, nothing opened."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gdc.errors import DataError

_KINDS: Final[Mapping[str, Callable[[int], bool]]] = {
    "a folder": stat.S_ISDIR,
    "a named pipe": stat.S_ISFIFO,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a socket": stat.S_ISSOCK,
}


def require_file(path: Path, where: str = "") -> None:
    """Refuse what is no regular file: a pipe or a device may never end.

    Args:
        path: What is about to be opened.
        where: What the message names in place of the path.

    Raises:
        DataError: It is a folder, a named pipe, a device or a socket.
        OSError: It is not there, or may not be looked at.
    """
    found = odd_kind(path)
    if found is not None:
        raise DataError(
            f"{where or path}: expected a regular file, got {found}. Save its content to a file, "
            "and name that."
        )


def odd_kind(path: Path) -> str | None:
    """What lies there, in words, where it is no regular file; None: it is one.

    Raises:
        OSError: It is not there, or may not be looked at.
    """
    mode = path.stat().st_mode
    return next((kind for kind, is_kind in _KINDS.items() if is_kind(mode)), None)


def overlapping(path: Path, others: Iterable[Path]) -> Path | None:
    """The first of the other paths that lies at, above or below a path; None: none does.

    Each is taken as it is named and as its links lead.
    """
    named = _names(path)
    for other in others:
        if any(a == b or a in b.parents or b in a.parents for a in named for b in _names(other)):
            return other
    return None


def links_below(folder: Path) -> Iterator[Path]:
    """Every link inside a folder, at any depth; those to folders are entered, each once."""
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
    # abspath and realpath, as Path.resolve raises at a link that leads to itself.
    return {Path(os.path.abspath(path)), Path(os.path.realpath(path))}  # noqa: PTH100

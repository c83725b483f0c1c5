"""A configured path -> the files that its source reads, in one order, and those it does not."""

import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from os.path import realpath
from pathlib import Path
from typing import Final, NamedTuple

from gdc.corpus.sources.endings import is_document, kind_of, listed_endings
from gdc.corpus.sources.files import SourceFile, name_of
from gdc.errors import DataError

# What editors, notebooks, file systems and writers of tables leave beside data.
_SKIPPED: Final = (
    ".*", "*~", "~$*", "#*#", "*.tmp", "*.part", "*.crdownload",
    "_temporary", "_SUCCESS", "_committed_*", "_started_*", "_metadata", "_common_metadata",
    "_delta_log", "__pycache__", "__MACOSX", "Thumbs.db", "desktop.ini",
)  # fmt: skip
SKIPPED: Final = "hidden or temporary"
NO_FILE: Final = "no ordinary file"
SAME_FILE: Final = "a second name of a file that is read"
OTHER_ENDING: Final = "of another ending"


class Found(NamedTuple):
    """Files of a path, sorted by name, and names of what is not read, by reason."""

    files: list[SourceFile]
    unread: dict[str, list[str]]


def find_files(path: str, kind: str) -> Found:
    """The file ``path`` whatever its ending, or every file of the folder that the kind reads.

    Raises:
        DataError: Nothing is there, or nothing of this kind, or a folder cannot be entered.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(
            f"ingest.source.path: expected a file or folder, got {path!r} (not found). Mend the "
            "path; it counts from the project folder."
        )
    if not root.is_dir():
        return Found([SourceFile(name_of(root, root), root)], {})
    found = _of_kind(walk(root), kind)
    if not found.files:
        others = "; ".join(f"{len(names)} {why}" for why, names in sorted(found.unread.items()))
        raise DataError(
            f"ingest.source.path: expected {kind} files ({listed_endings(kind)}), got a folder "
            f"without any: {path!r} ({others or 'it is empty'}). Add some, or choose another "
            "ingest.source.kind."
        )
    return found


def kinds_at(path: Path) -> Counter[str]:
    """How many files of each kind there are; what documents data of another kind is left out.

    Raises:
        DataError: A folder cannot be entered.
    """
    names = [file.path.name for file in walk(path).files] if path.is_dir() else [path.name]
    kinds, data = (
        Counter(kind for name in some if (kind := kind_of(name)))
        for some in (names, [name for name in names if not is_document(name)])
    )
    if len(data) > 1:
        # Files of other kinds end in .bin too.
        del data["tokens"]
    return data or kinds


def walk(root: Path) -> Found:
    """Every file of a folder, to any depth; links are followed, and no file is read twice.

    Of several names of one file that which leads over no link is taken, else the first.

    Raises:
        DataError: A folder cannot be entered.
    """
    unread: dict[str, list[str]] = defaultdict(list)
    files: dict[str, SourceFile] = {}
    real_root = Path(realpath(root))
    found = [SourceFile(name_of(path, root), path) for path in _paths(root, unread)]
    for file in sorted(found, key=lambda file: (_is_linked(file.path, root, real_root), file.name)):
        target = realpath(file.path)
        if file.path.exists() and not file.path.is_file():
            unread[NO_FILE].append(file.name)
        elif target in files:
            unread[SAME_FILE].append(file.name)
        else:
            # A broken link is kept, so that opening it tells of it.
            files[target] = file
    return Found(sorted(files.values()), dict(unread))


def _paths(root: Path, unread: dict[str, list[str]]) -> Iterator[Path]:
    """Paths of what is no folder; a folder is entered once, whatever links lead to it."""
    entered: set[str] = set()
    waiting = deque([root])
    while waiting:
        folder = waiting.popleft()
        if realpath(folder) in entered:
            continue
        entered.add(realpath(folder))
        for path in _entries(folder):
            is_folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises where it may not look
            if _is_skipped(path.name):
                unread[SKIPPED].append(name_of(path, root) + "/" * is_folder)
            elif not is_folder:
                yield path
            elif path.is_symlink():
                # Last, so that what needs no link keeps its own name.
                waiting.append(path)
            else:
                waiting.appendleft(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be read, got: {error.strerror}. Mend or move it."
        ) from None


def _is_skipped(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _SKIPPED)


def _is_linked(path: Path, root: Path, real_root: Path) -> bool:
    return Path(realpath(path)) != real_root / path.relative_to(root)


def _of_kind(found: Found, kind: str) -> Found:
    unread = defaultdict(list, {why: list(names) for why, names in found.unread.items()})
    files = []
    for file in found.files:
        other = kind_of(file.path.name)
        if other == kind:
            files.append(file)
        else:
            unread[OTHER_ENDING if other is None else f"of kind {other}"].append(file.name)
    return Found(files, dict(unread))

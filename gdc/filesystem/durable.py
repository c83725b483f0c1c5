"""A finished file or folder -> under its own name, whole even where the power fails."""

import os
from contextlib import suppress
from pathlib import Path


def put_in_place(temporary: Path, path: Path) -> None:
    """Move to ``path`` what is finished, once the disk has it."""
    inside = sorted(temporary.rglob("*")) if temporary.is_dir() else []
    for part in (*inside, temporary):
        _sync(part)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    # Not every file system knows this of folders, or of files that are open for reading.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

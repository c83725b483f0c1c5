"""Arrays in files without a name, whose pages the kernel takes back when memory is short.

They lie below the folder ``work``: the folder for temporary files is often in memory. The files
disappear with the process, however it ends.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

_FOLDER: Final = Path("work/scratch")
# Entries of an array that are looked at together.
PIECE: Final = 2**22


def new_file() -> IO[bytes]:
    """A file to write to, without a name."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    return TemporaryFile(dir=_FOLDER)


def mapped(file: IO[bytes], dtype: type[np.generic]) -> NDArray[Any]:
    """What a file holds, as an array that can be written to; the file may be closed."""
    file.flush()
    # An empty file cannot be mapped.
    is_empty = os.fstat(file.fileno()).st_size == 0
    return np.zeros(0, dtype) if is_empty else np.memmap(file, dtype, mode="r+")


def zeros(size: int, dtype: type[np.generic], *, like: NDArray[Any]) -> NDArray[Any]:
    """Zeros in memory, or in a file where another array lies in one."""
    if not isinstance(like, np.memmap) or size == 0:
        return np.zeros(size, dtype)
    with new_file() as file:
        # A full disk is an error now; while a page is written it would end the process.
        os.posix_fallocate(file.fileno(), 0, size * np.dtype(dtype).itemsize)
        return mapped(file, dtype)


def copied(array: NDArray[Any], *, like: NDArray[Any]) -> NDArray[Any]:
    """An array in a file where another one lies in one; else the array itself."""
    if not isinstance(like, np.memmap):
        return array
    copy = zeros(len(array), array.dtype.type, like=like)
    copy[:] = array
    forget(copy)
    return copy


def forget(*arrays: NDArray[Any] | None) -> None:
    """No longer count the pages of these arrays as the process's own; they stay in their files."""
    for array in arrays:
        mapping = getattr(array, "_mmap", None)
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def pieces(size: int) -> Iterator[slice]:
    """Neighbouring slices of at most ``PIECE`` entries."""
    for start in range(0, size, PIECE):
        yield slice(start, min(start + PIECE, size))


def read(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in parts, of which memory holds one at a time."""
    for piece in pieces(len(array)):
        yield array[piece]
        forget(array)

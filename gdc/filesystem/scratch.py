"""Arrays in files without a name, whose pages the kernel takes back when memory is short.

They lie below the folder ``work``: the folder for temporary files is often in memory. The files
disappear with the process, however it ends.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

_FOLDER: Final = Path("work/scratch")
# Entries of an array that are looked at together.
PIECE: Final = 2**22
# Rows of places that are looked up together: for each, the kernel may map the 2 MB around it.
_ROWS: Final = 8


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


def take(array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """``array[places]``; of an array in a file few pages are in memory at a time.

    Args:
        array: Entries, in memory or in a file.
        places: Rows of places of entries, those of a row close to each other.
    """
    if not isinstance(array, np.memmap):
        return np.asarray(array[places])
    taken = np.empty(places.shape, array.dtype)
    for start in range(0, len(places), _ROWS):
        rows = slice(start, start + _ROWS)
        taken[rows] = array[places[rows]]
        forget(array)
    return taken


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


@dataclass(frozen=True)
class Texts:
    """Texts in a file: text i is ``content[starts[i]:ends[i]]``, as UTF-8.

    Memory holds 16 bytes for each.
    """

    content: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def written(
        cls, parts: Iterable[tuple[NDArray[np.integer], Iterable[str]]], num: int
    ) -> "Texts":
        """Write ``num`` texts.

        Args:
            parts: Numbers of some texts, and these texts; all parts together have each once.
            num: Of all texts.
        """
        bounds, end = np.zeros((2, num), np.int64), 0
        with new_file() as file:
            for rows, texts in parts:
                for row, text in zip(rows.tolist(), texts, strict=True):
                    bounds[:, row] = end, end + file.write(text.encode())
                    end = bounds[1, row]
            return cls(mapped(file, np.uint8), *bounds)

    @property
    def num_bytes(self) -> NDArray[np.int64]:
        """Of each text."""
        return self.ends - self.starts

    def __getitem__(self, row: int) -> str:
        text = self.content[self.starts[row] : self.ends[row]].tobytes().decode()
        forget(self.content)
        return text

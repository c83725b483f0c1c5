"""Files of token ids, of Megatron (``.bin`` beside ``.idx``) or nanoGPT -> documents, and back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gdc.errors import DataError

Dtype = Literal["uint16", "uint32"]
IDS: Final = ".bin"
INDEX: Final = ".idx"
_MAGIC: Final = b"MMIDIDX\x00\x00"
_VERSION: Final = 1
# Magic, version, code of the ids' type, numbers of sequences and of document bounds.
_HEADER: Final = np.dtype(
    [("magic", "S9"), ("version", "<u8"), ("code", "u1"), ("sequences", "<u8"), ("bounds", "<u8")]
)
# Those of floats are left out.
_CODES: Final[Mapping[int, str]] = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_STREAMS: Final[Mapping[str, str]] = {"uint16": "<u2", "uint32": "<u4"}
_SCANNED: Final = 2**22
# The upper half of a uint32 id of a vocabulary of at most 2**20.
_MAX_HIGH: Final = 2**4


@dataclass(frozen=True)
class TokenFile:
    """Documents of a file, which stays on disk: document i is ``ids[bounds[i]:bounds[i + 1]]``.

    Attributes:
        ids: All ids, memory-mapped, of the file's own type.
        bounds: int64, one more than there are documents.
        separator: The id that parts documents; None: an index does.
    """

    ids: NDArray[Any]
    bounds: NDArray[np.int64]
    separator: int | None

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        """The ids of a document as they stand in the file, a separator among them."""
        start, end = self.bounds[index : index + 2]
        return self.ids[start:end].astype(np.int64)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """The documents in order."""
        return (self[index] for index in range(len(self)))


def index_of(path: Path) -> Path:
    """The index that Megatron writes beside a file of ids."""
    return path.with_suffix(INDEX)


def read_indexed(path: Path) -> TokenFile:
    """Open the ids and the index of Megatron's ``IndexedDataset``, which GPT-NeoX writes too.

    Args:
        path: The file of ids; its index has the same name and the ending ``.idx``.

    Raises:
        DataError: A file is not there, cut off, or of another format.
    """
    index = index_of(path)
    content = _mapped(index, np.dtype("u1"))
    if len(content) < _HEADER.itemsize or content[:9].tobytes() != _MAGIC:
        raise DataError(
            f"{index}: expected an index of Megatron's IndexedDataset, which starts with MMIDIDX, "
            f"got {len(content)} bytes that start with {content[:9].tobytes()!r}. Give the .idx "
            "that belongs to the .bin."
        )
    header = content[: _HEADER.itemsize].view(_HEADER)[0]
    dtype = _dtype_of(index, header)
    lengths, pointers, documents = _parts(index, content[_HEADER.itemsize :], header)
    ids = _mapped(path, dtype)
    ends = np.concatenate([[0], lengths.cumsum(dtype=np.int64)])
    if len(ids) != ends[-1]:
        raise DataError(
            f"{path}: expected {ends[-1]:,} ids of {dtype.itemsize} bytes as {index.name} says, "
            f"got {len(ids):,}. It is cut off or belongs to another index: copy both again."
        )
    is_sound = (pointers == ends[:-1] * dtype.itemsize).all() and (lengths >= 0).all()
    is_sound &= len(documents) > 0 and documents[0] == 0 and documents[-1] == len(lengths)
    if not is_sound or (np.diff(documents) < 0).any():
        raise DataError(
            f"{index}: expected sequences end to end, and documents from the first to the last of "
            "them, got others. It is damaged: copy it again, or make it anew."
        )
    return TokenFile(ids, ends[documents], separator=None)


def read_stream(path: Path, dtype: Dtype, separator: int) -> TokenFile:
    """Open nanoGPT's ids: one after the other, documents parted by one id.

    That id ends a document or, where the file starts with it, begins one.

    Raises:
        DataError: The file is not there, cut off, or has no separator.
    """
    ids = _mapped(path, np.dtype(_STREAMS[dtype]))
    found = [
        start + np.flatnonzero(ids[start : start + _SCANNED] == separator)
        for start in range(0, len(ids), _SCANNED)
    ]
    at = np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)
    if not len(at):
        raise DataError(
            f"{path}: expected documents parted by id {separator}, got {len(ids):,} ids without "
            "it. Name the id in ingest.source.separator, or the type in ingest.source.dtype."
        )
    inner = at[1:] if at[0] == 0 else at + 1
    bounds = np.unique(np.concatenate([[0], inner, [len(ids)]]))
    return TokenFile(ids, bounds, separator)


def guess_dtype(path: Path) -> Dtype:
    """Type of the ids of nanoGPT's file: uint32 where every other half of them is nearly 0.

    Raises:
        DataError: The file is not there or cut off.
    """
    halves = _mapped(path, np.dtype("<u2"))
    high = halves[1:_SCANNED:2]
    is_wide = len(halves) % 2 == 0 and len(high) > 0 and high.max() < _MAX_HIGH
    return "uint32" if is_wide else "uint16"


def write_like(file: TokenFile, rows: Iterable[int], path: Path, index: Path | None) -> int:
    """Write documents of a file in the same format, in the order given.

    Args:
        file: Where they stand.
        rows: Their numbers, from 0; one may stand there more than once.
        path: Of the ids.
        index: Of the index; None: ``file`` has none.

    Returns:
        Number of documents written.
    """
    lengths, last = [], None
    with path.open("wb") as written:
        for row in rows:
            document = file.ids[file.bounds[row] : file.bounds[row + 1]]
            if last is not None and _run_together(last, document, file.separator):
                written.write(np.array([file.separator], file.ids.dtype).tobytes())
            written.write(document.tobytes())
            lengths.append(len(document))
            last = document if len(document) else last
    if index is not None:
        index.write_bytes(_index_bytes(np.array(lengths, np.int32), file.ids.dtype))
    return len(lengths)


def _run_together(before: NDArray[Any], after: NDArray[Any], separator: int | None) -> bool:
    """Whether two documents would be one: the last of a stream may end without a separator."""
    is_parted = separator in {before[-1], after[0] if len(after) else separator}
    return separator is not None and not is_parted


def _index_bytes(lengths: NDArray[np.int32], dtype: np.dtype[Any]) -> bytes:
    code = next(code for code, name in _CODES.items() if np.dtype(name) == dtype)
    header = np.array([(_MAGIC, _VERSION, code, len(lengths), len(lengths) + 1)], _HEADER)
    ends = np.concatenate([[0], lengths.cumsum(dtype=np.int64)])
    pointers = (ends[:-1] * dtype.itemsize).astype("<i8")
    documents = np.arange(len(lengths) + 1, dtype="<i8")
    return b"".join(part.tobytes() for part in (header, lengths.astype("<i4"), pointers, documents))


def _dtype_of(index: Path, header: Any) -> np.dtype[Any]:  # noqa: ANN401 - a row of _HEADER
    version, code = int(header["version"]), int(header["code"])
    if version != _VERSION or code not in _CODES:
        raise DataError(
            f"{index}: expected version {_VERSION} and ids of a type of {sorted(_CODES)}, got "
            f"version {version} and type {code}. Write it with Megatron-LM or GPT-NeoX again."
        )
    return np.dtype(_CODES[code])


def _parts(
    index: Path,
    content: NDArray[np.uint8],
    header: Any,  # noqa: ANN401 - a row of _HEADER
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Length and place, in bytes, of each sequence, and the first sequence of each document."""
    num, num_bounds = int(header["sequences"]), int(header["bounds"])
    expected = 12 * num + 8 * num_bounds
    if len(content) != expected:
        raise DataError(
            f"{index}: expected {expected + _HEADER.itemsize:,} bytes for {num:,} sequences and "
            f"{num_bounds:,} bounds of documents, got {len(content) + _HEADER.itemsize:,}. It is "
            "cut off, or of several modalities, which are not read: copy it again."
        )
    return (
        content[: 4 * num].view("<i4"),
        content[4 * num : 12 * num].view("<i8"),
        content[12 * num :].view("<i8"),
    )


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise DataError(
                f"{path}: expected whole ids of {dtype.itemsize} bytes, got {size:,} bytes. It is "
                "cut off or of another type: copy it again, or name the type."
            )
        # An empty file cannot be mapped.
        return np.memmap(path, dtype, mode="r") if size else np.zeros(0, dtype)
    except OSError as error:
        raise DataError(
            f"{path}: expected a readable file, got: {error.strerror}. Mend the path."
        ) from None

"""Files of token ids, byte by byte as Megatron-LM and nanoGPT write them; no code of gdc."""

import struct
from collections.abc import Sequence
from pathlib import Path

MEGATRON_CODES = {"i": 4, "H": 8}
END = 256


def write_indexed(
    path: Path, documents: Sequence[Sequence[Sequence[int]]], letter: str = "H"
) -> None:
    """Write ``path`` and its index: documents of sequences of ids.

    The header of an ``IndexedDataset``: magic, version and code of the type, then numbers of
    sequences and of document bounds, lengths, places in bytes, and bounds.
    """
    sequences = [ids for document in documents for ids in document]
    places, place = [], 0
    for ids in sequences:
        places.append(place)
        place += len(ids) * struct.calcsize(letter)
    bounds = [0]
    for document in documents:
        bounds.append(bounds[-1] + len(document))
    path.write_bytes(b"".join(struct.pack(f"<{len(ids)}{letter}", *ids) for ids in sequences))
    path.with_suffix(".idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, MEGATRON_CODES[letter], len(sequences), len(bounds))
        + struct.pack(f"<{len(sequences)}i", *(len(ids) for ids in sequences))
        + struct.pack(f"<{len(sequences)}q", *places)
        + struct.pack(f"<{len(bounds)}q", *bounds)
    )


def write_stream(path: Path, ids: Sequence[int], letter: str = "H") -> None:
    path.write_bytes(struct.pack(f"<{len(ids)}{letter}", *ids))

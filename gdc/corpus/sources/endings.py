"""The ending of a file's name -> the kind of source that reads it; the only table of endings."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

# In any case: a.JSONL is JSON lines too.
ENDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "jsonl": (".jsonl", ".ndjson", ".jsonlines"),
    "parquet": (".parquet", ".parq", ".pq"),
    "tokens": (".bin", ".idx"),
    "text": (".txt", ".text", ".md", ".markdown", ".rst"),
}
# JSON lines and text may be compressed; Parquet compresses by itself.
COMPRESSIONS: Final = (".gz", ".bz2", ".xz", ".zst")
_COMPRESSIBLE: Final = ("jsonl", "text")
_KINDS: Final = {ending: kind for kind, endings in ENDINGS.items() for ending in endings}
# What tells of the data beside it: no text of a folder of JSON lines.
_DOCUMENTS: Final = ("readme", "license", "licence", "notice", "changelog")


def kind_of(name: str) -> str | None:
    """The kind of source that reads a file of this name; None: none does."""
    kind = _KINDS.get(ending_of(name))
    return None if compression_of(name) and kind not in _COMPRESSIBLE else kind


def ending_of(name: str) -> str:
    """The last ending in lower case, without that of a compression."""
    compression = compression_of(name)
    path = PurePath(name)
    return (path.with_suffix("") if compression else path).suffix.lower()


def compression_of(name: str) -> str | None:
    """The ending of a compression in lower case; None: the file is not compressed."""
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in COMPRESSIONS else None


def is_document(name: str) -> bool:
    """Whether a file tells of the data beside it, such as a README."""
    return PurePath(name).name.lower().split(".")[0] in _DOCUMENTS


def listed_endings(kind: str) -> str:
    """The endings of a kind in words."""
    compressed = f", also with {', '.join(COMPRESSIONS)}" if kind in _COMPRESSIBLE else ""
    return ", ".join(ENDINGS[kind]) + compressed

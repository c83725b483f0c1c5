"""Sources by their parameters, files, and what is read of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gdc.config import (
    HuggingFaceSource,
    JsonlSource,
    ParquetSource,
    PythonDocsSource,
    Source,
    SyntheticSource,
    TextSource,
)
from gdc.corpus.sources import SourceRows, check_bad_rows, read_source

MAX_CHARS = 20
PYTHON_DOCS = PythonDocsSource(kind="python-docs")
SYNTHETIC = SyntheticSource(
    kind="synthetic", num_samples=50, num_words=30, words_per_sample=7, branching=3
)


def jsonl(path: str = "a.jsonl", key: str | None = None) -> JsonlSource:
    return JsonlSource(kind="jsonl", path=path, text_field="text", key_field=key)


def parquet(path: str = "a.parquet", key: str | None = None) -> ParquetSource:
    return ParquetSource(kind="parquet", path=path, text_field="text", key_field=key)


def text(unit: Literal["file", "paragraph", "line"], path: str = "a.txt") -> TextSource:
    return TextSource(kind="text", path=path, unit=unit)


def hub(path: str, split: str = "train", **values: str) -> HuggingFaceSource:
    optional = {"name": None, "revision": None, "text_field": "text", **values}
    return HuggingFaceSource.model_validate(
        {"kind": "huggingface", "path": path, "split": split, **optional}
    )


def write_lines(path: str, lines: Sequence[bytes]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"".join(line + b"\n" for line in lines))


def check(rows: SourceRows, *, on_bad_row: Literal["fail", "quarantine"]) -> None:
    check_bad_rows(rows.bad_rows, rows.rows.height, on_bad_row=on_bad_row)


def read(source: Source, max_chars: int = MAX_CHARS) -> SourceRows:
    return read_source(source, max_chars=max_chars, seed=0)


def good(source: Source) -> list[tuple[Any, ...]]:
    found = read(source)
    assert found.bad_rows.is_empty()
    return found.rows.rows()

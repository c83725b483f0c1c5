"""Table of all samples -> an index beside it, which answers about millions of texts in a second.

One row for each distinct training text, that of its first copy, in the order of the table. A
narrow table has what is filtered and sorted by, as numbers; a wide one has the rows to be shown, in
a form that any of them is read from without the others. Both are files that are mapped into memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from gdc.filesystem import durable, table_files
from gdc.report.sample_table import scores_of
from gdc.report.samples import ACTIONS
from gdc.workspace import files

# Lower-cased, to be searched in.
FOUND_IN: Final = ("_source", "_text")
_NARROW: Final = "narrow.arrow"
_WIDE: Final = "wide.arrow"
_ABOUT: Final = "about.json"
# Columns of words, as numbers in the order of the words.
_WORDS: Final = ("quadrant", "cause")


@dataclass(frozen=True)
class TextsIndex:
    """An open index.

    Attributes:
        narrow: ``is_canary``, the number of ``quadrant`` and ``cause`` in ``words``, the rank of
            ``source``, the number of each ``action_<arm>`` in ``ACTIONS``, and every score.
        wide: The rows of the table and the columns ``FOUND_IN``.
        batches: The same in parts, to read a few rows of; ``schema`` is theirs.
        words: By column, its values in rising order.
    """

    narrow: pl.DataFrame
    wide: pl.LazyFrame
    batches: Sequence[pa.RecordBatch]
    schema: pa.Schema
    words: Mapping[str, Sequence[str]]

    def number(self, column: str, word: str) -> int:
        """The number that stands for a word; -1: no row has it."""
        return self.words[column].index(word) if word in self.words[column] else -1

    def rows(self, numbers: NDArray[np.int64]) -> pl.DataFrame:
        """These rows of the wide table, in this order."""
        ends = np.cumsum([batch.num_rows for batch in self.batches])
        places = np.searchsorted(ends, numbers, side="right")
        before = np.concatenate([[0], ends])
        found = [
            self.batches[place].slice(int(number - before[place]), 1)
            for place, number in zip(places.tolist(), numbers, strict=True)
        ]
        return _frame(pa.Table.from_batches(found, schema=self.schema)).drop(FOUND_IN)


def open_index(samples: pl.LazyFrame, path: Path, folder: Path) -> TextsIndex:
    """Open the index of a table; make it where there is none, or one of another table.

    Args:
        samples: ``SAMPLES`` table.
        path: The file that it lies in.
        folder: Of the index.
    """
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    about = folder / _ABOUT
    if not about.exists() or files.read_json(about).get("stamp") != stamp:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with durable.new_folder(folder) as temporary:
            _write(samples, temporary, stamp)
    narrow, wide = (_mapped(folder / name) for name in (_NARROW, _WIDE))
    return TextsIndex(
        narrow=_frame(narrow.read_all()),
        wide=table_files.scan_ipc(folder / _WIDE),
        batches=[wide.get_batch(number) for number in range(wide.num_record_batches)],
        schema=wide.schema,
        words=files.read_json(about)["words"],
    )


def best_first(values: NDArray[np.float64], number: int, *, down: bool) -> NDArray[np.int64]:
    """Places of the first values in order, without sorting the others; NaN stands last.

    Equal values keep their order.
    """
    key = np.where(np.isnan(values), np.inf, -values if down else values)
    if number >= len(key):
        return np.argsort(key, kind="stable")
    last = np.partition(key, number - 1)[number - 1]
    before = np.flatnonzero(key < last)
    chosen = np.concatenate([before, np.flatnonzero(key == last)[: number - len(before)]])
    return chosen[np.lexsort((chosen, key[chosen]))]


def _mapped(path: Path) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - only of an array it is a series
    return frame


def _write(samples: pl.LazyFrame, folder: Path, stamp: list[int]) -> None:
    # The ordinal of a copy ends its id.
    first = samples.filter(pl.col("split") == "train", pl.col("sample_id").str.ends_with("-0"))
    lowered = {
        "_source": pl.col("source").str.to_lowercase(),
        "_text": pl.col("text").str.to_lowercase(),
    }
    first.with_columns(**lowered).sink_ipc(folder / _WIDE, compression="uncompressed")
    wide = table_files.scan_ipc(folder / _WIDE)
    words = {
        name: wide.select(pl.col(name).unique().drop_nulls().sort()).collect()[name].to_list()
        for name in _WORDS
    }
    actions = [name for name in wide.collect_schema() if name.startswith("action_")]
    columns: list[pl.Expr] = [
        pl.col("canary").is_not_null().alias("is_canary"),
        *(_numbers(name, known) for name, known in words.items()),
        pl.col("source").rank("dense").cast(pl.UInt32),
        *(_numbers(name, ACTIONS) for name in actions),
        *map(pl.col, scores_of(wide)),
    ]
    # Column by column: they need not fit into memory side by side with the texts.
    narrow = pl.concat([wide.select(column).collect() for column in columns], how="horizontal")
    narrow.write_ipc(folder / _NARROW, compression="uncompressed")
    files.write_json(folder / _ABOUT, {"stamp": stamp, "words": words})


def _numbers(name: str, words: Sequence[str]) -> pl.Expr:
    return pl.col(name).replace_strict(
        list(words), list(range(len(words))), default=None, return_dtype=pl.Int8
    )

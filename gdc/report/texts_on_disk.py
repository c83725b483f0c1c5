"""Table of all samples on disk -> what the page of `gdc ui` asks for, in a second for millions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.errors import DataError
from gdc.report.page_data import PageFrame
from gdc.report.sample_table import action_of, changed_of, scores_of
from gdc.report.samples import ACTIONS
from gdc.report.texts_index import FOUND_IN, TextsIndex, best_first, open_index
from gdc.schema import QUADRANTS, SAMPLES
from gdc.workspace import paths, tables

NUM_LISTED: Final = 12
_NUM_BINS: Final = (80, 50)
_PREVIEW: Final = 200
_MAX_TEXT: Final = 20_000
_SORTED: Final = ("source", "quadrant", "cause", "copies")
# An id is a hash and a number: most words are part of none.
_OF_IDS: Final = frozenset("0123456789abcdef-")


@dataclass(frozen=True)
class Query:
    """What the page asks for; a field that is empty asks for nothing.

    Attributes:
        search: Part of a text, a source or an id, in any case.
        arm: With ``action``: what this arm does.
        box: Lowest and highest value of ``across`` and of ``up``; None: all.
        sort: A score or one of ``_SORTED``.
        first: Rows before the first one listed.
    """

    across: str
    up: str
    search: str = ""
    quadrant: str = ""
    cause: str = ""
    source: str = ""
    arm: str = ""
    action: str = ""
    canaries: bool = False
    box: tuple[float, float, float, float] | None = None
    sort: str = ""
    down: bool = True
    first: int = 0


@dataclass(frozen=True)
class Text:
    """A training text, as the page shows it.

    Attributes:
        key: The id of its first copy.
        ids: Those of all copies.
        text: Its first characters; None where no text is shown.
        chars: Characters of the whole text.
        quadrant: Its place in ``QUADRANTS``.
        spans: First and last character of each memorized span.
        scores: By name.
        actions: What each arm does with it.
        revised: Of arms whose runs chose weights, the first pass in which one changed that of this
            text, and the number of runs that did.
    """

    key: str
    ids: list[str]
    copies: int
    text: str | None
    chars: int
    source: str
    canary: str | None
    cause: str | None
    quadrant: int
    spans: list[tuple[int, int]]
    scores: dict[str, float | None]
    actions: dict[str, str]
    revised: dict[str, tuple[int | None, int]]


@dataclass(frozen=True)
class FoundTexts:
    """How many texts match a query, and those of them that are listed."""

    total: int
    rows: list[Text]


@dataclass(frozen=True)
class Density:
    """Texts by cells of the map: middles of the columns ``x`` and rows ``y``, counts by row."""

    x: list[float]
    y: list[float]
    counts: list[list[int]]


class TextsOnDisk:
    """The distinct training texts of a ``SAMPLES`` table.

    The first question makes an index below ``work``, which takes a while for millions of texts.

    Args:
        path: The table.
        frame: Axis, arms and whether texts may be shown.
    """

    def __init__(self, path: Path, frame: PageFrame) -> None:
        self._path, self._frame = path, frame
        self._opening = Lock()

    @cached_property
    def scores(self) -> list[str]:
        """The scores of the table."""
        return scores_of(self._samples)

    @cached_property
    def num_texts(self) -> int:
        """Distinct ordinary training texts."""
        return int((~self._index.narrow["is_canary"]).sum())

    def listed(self, query: Query) -> FoundTexts:
        """How many texts match, and the rows of the table that is shown."""
        index, rows = self._index, self.matching(query)
        by = "num_copies" if query.sort == "copies" else query.sort
        ordered = best_first(self._values(by)[rows], query.first + NUM_LISTED, down=query.down)
        shown = index.rows(rows[ordered[query.first :]])
        return FoundTexts(len(rows), self._rows(shown, _PREVIEW))

    def opened(self, sample_id: str) -> Text:
        """A text with all that is known of it but its loss curve.

        Raises:
            DataError: No training text has this id.
        """
        found = self._index.wide.drop(FOUND_IN).filter(pl.col("sample_id") == sample_id)
        rows = self._rows(found.collect(engine="streaming"), _MAX_TEXT)
        if not rows:
            raise DataError(f"sample_id: expected one of {self._path}, got {sample_id[:80]!r}.")
        return rows[0]

    def density(self, query: Query) -> Density:
        """Texts by cells of the map, whose edges are those of all texts."""
        axes = [(query.across, _NUM_BINS[0]), (query.up, _NUM_BINS[1])]
        ends, rows = self._ends, self.matching(query)
        columns, lines = (
            _cells(self._values(name)[rows], *ends[name], bins) for name, bins in axes
        )
        is_known = (columns >= 0) & (lines >= 0)
        cells = lines[is_known] * _NUM_BINS[0] + columns[is_known]
        counts = np.bincount(cells, minlength=_NUM_BINS[0] * _NUM_BINS[1])
        x, y = (_middles(*ends[name], bins) for name, bins in axes)
        return Density(x, y, counts.reshape(_NUM_BINS[1], _NUM_BINS[0]).tolist())

    def matching(self, query: Query) -> NDArray[np.int64]:
        """The rows of the texts that match, in the order of the table."""
        index = self._index
        conditions = [
            pl.col(name) == index.number(name, value)
            for name, value in (("quadrant", query.quadrant), ("cause", query.cause))
            if value
        ]
        conditions.append(~pl.col("is_canary") | pl.lit(query.canaries))
        if query.arm:
            conditions.append(pl.col(action_of(query.arm)) == ACTIONS.index(query.action))
        if query.box:
            left, right, low, high = query.box
            conditions.append(pl.col(query.across).is_between(left, right))
            conditions.append(pl.col(query.up).is_between(low, high))
        matches = pl.all_horizontal(conditions).fill_null(value=False)
        found = index.narrow.select(matches).to_series()
        searches = self._searches(query)
        if searches:
            texts = index.wide.select(pl.all_horizontal(searches).fill_null(value=False))
            found &= texts.collect(engine="streaming").to_series()
        return found.arg_true().to_numpy().astype(np.int64)

    def lazy(self, rows: NDArray[np.int64]) -> pl.LazyFrame:
        """All columns of these rows, which must rise, from disk."""
        asked = pl.LazyFrame({"row": rows.astype(np.uint32)}).set_sorted("row")
        wide = self._index.wide.drop(FOUND_IN).with_row_index("row")
        return wide.join(asked, on="row", how="semi").drop("row")

    def require(self, query: Query) -> None:
        """Refuse names that the table does not have.

        Raises:
            DataError: A score, an arm or an action is not known.
        """
        known: Mapping[str, tuple[str, list[str]]] = {
            "across": (query.across, self.scores),
            "up": (query.up, self.scores),
            "sort": (query.sort, [*self.scores, *_SORTED]),
            "arm": (query.arm, ["", *self._frame.arms]),
            "action": (query.action, ["", *ACTIONS]),
        }
        for name, (value, names) in known.items():
            if value not in names:
                raise DataError(f"{name}: expected one of {names}, got {value[:80]!r}.")

    @property
    def _samples(self) -> pl.LazyFrame:
        return tables.scan_table(self._path, SAMPLES)

    @cached_property
    def _opened(self) -> TextsIndex:
        return open_index(self._samples, self._path, paths.TEXTS_INDEX)

    @property
    def _index(self) -> TextsIndex:
        # Requests come from several threads.
        with self._opening:
            return self._opened

    def _searches(self, query: Query) -> list[pl.Expr]:
        searches = [_contains("_source", query.source)] if query.source else []
        if query.search:
            names = ["_source", *(["_text"] if self._frame.show_text else [])]
            if _OF_IDS.issuperset(query.search.lower()):
                names.append("sample_id")
            searches.append(pl.any_horizontal(_contains(name, query.search) for name in names))
        return searches

    def _values(self, name: str) -> NDArray[np.float64]:
        """A score of all texts; NaN: not known."""
        column = self._index.narrow[name].cast(pl.Float64)
        return column.fill_null(float("nan")).to_numpy()

    @cached_property
    def _ends(self) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest value of each score."""
        scores = self._index.narrow.select(self.scores)
        lows, highs = scores.min().row(0, named=True), scores.max().row(0, named=True)
        return {
            name: (0.0, 1.0) if low is None else (low, highs[name]) for name, low in lows.items()
        }

    def _rows(self, table: pl.DataFrame, max_chars: int) -> list[Text]:
        shown = table.with_columns(
            text=pl.col("text").str.head(max_chars), chars=pl.col("text").str.len_chars()
        )
        return [self._row(row) for row in shown.iter_rows(named=True)]

    def _row(self, row: Mapping[str, Any]) -> Text:  # of a table, by its columns
        content, copies = row["content_id"], row["num_copies"]
        return Text(
            key=row["sample_id"],
            ids=[f"{content}-{ordinal}" for ordinal in range(copies)],
            copies=copies,
            text=row["text"] if self._frame.show_text else None,
            chars=row["chars"],
            source=row["source"],
            canary=row["canary"],
            cause=row["cause"],
            quadrant=QUADRANTS.index(row["quadrant"]),
            spans=[(span["start"], span["end"]) for span in row["spans"]],
            scores={name: row[name] for name in self.scores},
            actions={arm: row[action_of(arm)] for arm in self._frame.arms},
            # A table of before has no such columns.
            revised={
                arm: (row[first], row[seeds])
                for arm, runs in self._frame.arms.items()
                for first, seeds in [changed_of(arm)]
                if runs and first in row
            },
        )


def _contains(name: str, part: str) -> pl.Expr:
    return pl.col(name).str.contains(part.lower(), literal=True)


def _cells(values: NDArray[np.float64], low: float, high: float, bins: int) -> NDArray[np.int64]:
    """The number of each value's bin; -1: it is not known."""
    known = ~np.isnan(values)
    cells = np.full(len(values), -1, dtype=np.int64)
    width = _width(low, high, bins)
    cells[known] = np.clip(np.floor((values[known] - low) / width), 0, bins - 1)
    return cells


def _width(low: float, high: float, bins: int) -> float:
    return (high - low) / bins or 1.0


def _middles(low: float, high: float, bins: int) -> list[float]:
    width = _width(low, high, bins)
    return [low + (number + 0.5) * width for number in range(bins)]

"""Table of all samples on disk -> what the page of `gdc ui` asks for, without holding the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from gdc.errors import DataError
from gdc.report.page_data import PageFrame
from gdc.report.sample_table import action_of, scores_of
from gdc.report.samples import ACTIONS
from gdc.schema import QUADRANTS, SAMPLES
from gdc.workspace import tables

NUM_LISTED: Final = 12
_NUM_BINS: Final = (80, 50)
_PREVIEW: Final = 200
_MAX_TEXT: Final = 20_000
_SORTED: Final = ("source", "quadrant", "cause", "copies")


@dataclass(frozen=True)
class Query:
    """What the page asks for; a field that is empty asks for nothing.

    Attributes:
        search: Part of a text, a source or an id, in any case.
        arm: With ``action``: what the plan of this arm does.
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
        actions: What the plan of each arm does with it.
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

    Args:
        path: The table.
        frame: Axis, arms and whether texts may be shown.
    """

    def __init__(self, path: Path, frame: PageFrame) -> None:
        self._path, self._frame = path, frame

    @cached_property
    def scores(self) -> list[str]:
        """The scores of the table."""
        return scores_of(self._samples)

    @cached_property
    def num_texts(self) -> int:
        """Distinct ordinary training texts."""
        num: int = self._texts.filter(pl.col("canary").is_null()).select(pl.len()).collect().item()
        return num

    def listed(self, query: Query) -> FoundTexts:
        """How many texts match, and the rows of the table that is shown."""
        found = self.matching(query)
        by = "num_copies" if query.sort == "copies" else query.sort
        # Sorting a few columns and reading the rest of a page keeps the texts on disk.
        order = found.select("sample_id", by).sort(
            by, "sample_id", descending=[query.down, False], nulls_last=True
        )
        ids, total = pl.collect_all(
            [order.slice(query.first, NUM_LISTED).select("sample_id"), found.select(pl.len())],
            engine="streaming",
        )
        return FoundTexts(total.item(), self._rows(ids["sample_id"], _PREVIEW))

    def opened(self, sample_id: str) -> Text:
        """A text with all that is known of it but its loss curve.

        Raises:
            DataError: It is none of the training texts.
        """
        rows = self._rows(pl.Series([sample_id], dtype=pl.String), _MAX_TEXT)
        if not rows:
            raise DataError(f"sample_id: expected one of {self._path}, got {sample_id[:80]!r}.")
        return rows[0]

    def density(self, query: Query) -> Density:
        """Texts by cells of the map, whose edges are those of all texts."""
        axes = [(query.across, _NUM_BINS[0]), (query.up, _NUM_BINS[1])]
        ends = self._ends
        cells = [
            ((pl.col(name) - ends[name][0]) / _width(*ends[name], bins))
            .floor()
            .clip(0, bins - 1)
            .cast(pl.Int64)
            .alias(axis)
            for axis, (name, bins) in zip("xy", axes, strict=True)
        ]
        counted = (
            self.matching(query)
            .drop_nulls([query.across, query.up])
            .select(cells)
            .group_by("x", "y")
            .len()
            .collect(engine="streaming")
        )
        counts = [[0] * _NUM_BINS[0] for _ in range(_NUM_BINS[1])]
        for x, y, num in counted.iter_rows():
            counts[y][x] = num
        x, y = (_middles(*ends[name], bins) for name, bins in axes)
        return Density(x, y, counts)

    def matching(self, query: Query) -> pl.LazyFrame:
        """The texts that match, in the order of the table."""
        conditions = [
            pl.col(name) == value
            for name, value in (("quadrant", query.quadrant), ("cause", query.cause))
            if value
        ]
        if not query.canaries:
            conditions.append(pl.col("canary").is_null())
        if query.source:
            conditions.append(_contains("source", query.source))
        if query.arm:
            conditions.append(pl.col(action_of(query.arm)) == query.action)
        if query.box:
            left, right, low, high = query.box
            conditions.append(pl.col(query.across).is_between(left, right))
            conditions.append(pl.col(query.up).is_between(low, high))
        if query.search:
            read = ["source", "sample_id", *(["text"] if self._frame.show_text else [])]
            conditions.append(pl.any_horizontal(_contains(name, query.search) for name in read))
        return self._texts.filter(*conditions)

    def require(self, query: Query) -> None:
        """Refuse names that are none of the table.

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

    @property
    def _texts(self) -> pl.LazyFrame:
        """The first copy of each training text: the ordinal of a copy ends its id."""
        first = pl.col("sample_id").str.ends_with("-0")
        return self._samples.filter(pl.col("split") == "train", first)

    @cached_property
    def _ends(self) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest value of each score."""
        table = self._texts.select(self.scores)
        lows, highs = (
            ends.collect(engine="streaming").row(0, named=True)
            for ends in (table.min(), table.max())
        )
        return {
            name: (0.0, 1.0) if low is None else (low, highs[name]) for name, low in lows.items()
        }

    def _rows(self, ids: pl.Series, max_chars: int) -> list[Text]:
        asked = pl.LazyFrame({"sample_id": ids})
        found = (
            self._texts.join(asked, on="sample_id", how="semi")
            .with_columns(
                text=pl.col("text").str.head(max_chars), chars=pl.col("text").str.len_chars()
            )
            .collect(engine="streaming")
        )
        rows = {row["sample_id"]: row for row in found.iter_rows(named=True)}
        return [self._row(rows[sample_id]) for sample_id in ids if sample_id in rows]

    def _row(self, row: Mapping[str, Any]) -> Text:
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
        )


def _contains(name: str, part: str) -> pl.Expr:
    return pl.col(name).str.to_lowercase().str.contains(part.lower(), literal=True)


def _width(low: float, high: float, bins: int) -> float:
    return (high - low) / bins or 1.0


def _middles(low: float, high: float, bins: int) -> list[float]:
    width = _width(low, high, bins)
    return [low + (number + 0.5) * width for number in range(bins)]

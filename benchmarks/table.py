"""The table that every benchmark prints."""

from collections.abc import Sequence
from typing import NamedTuple

from gdc.statistics import markdown

HEADING = ("", "ours", "against", "ratio", "bar", "")


class Row(NamedTuple):
    """A claim: our measurement and one to compare it with, from the same run."""

    claim: str
    ours: float
    other: float
    sign: str = (
        ""  # of the bar for ours / other: <= or >=; without a bar it is no claim, only a number
    )
    bar: float | None = None


def render(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    return markdown.table(HEADING, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    ratio = row.ours / row.other
    cells = [row.claim, f"{row.ours:,.4g}", f"{row.other:,.4g}", f"{ratio:.3g}"]
    if row.bar is None:
        return [*cells, "-", ""]
    is_reached = ratio <= row.bar if row.sign == "<=" else ratio >= row.bar
    return [*cells, f"{row.sign} {row.bar:g}", "reached" if is_reached else "**missed**"]

"""The table that every benchmark prints."""

from collections.abc import Sequence
from typing import NamedTuple

HEADING = "| | ours | against | ratio | bar | |\n|---|---|---|---|---|---|\n"


class Row(NamedTuple):
    """A claim: ours beside something else, measured in the same run."""

    claim: str
    ours: float
    other: float
    sign: str = ""  # of the bar for ours / other: <= or >=; no bar: no claim, a number to know
    bar: float | None = None


def render(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    return HEADING + "".join(map(_line, rows))


def _line(row: Row) -> str:
    ratio = row.ours / row.other
    cells = [row.claim, f"{row.ours:,.4g}", f"{row.other:,.4g}", f"{ratio:.3g}"]
    if row.bar is None:
        cells += ["-", ""]
    else:
        is_reached = ratio <= row.bar if row.sign == "<=" else ratio >= row.bar
        cells += [f"{row.sign} {row.bar:g}", "reached" if is_reached else "**missed**"]
    return f"| {' | '.join(cells)} |\n"

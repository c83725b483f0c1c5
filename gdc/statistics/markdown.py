"""Cells -> a table in Markdown."""

from collections.abc import Sequence


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table, one line for each row, each with a line break at its end.

    Args:
        heading: Names of the columns.
        rows: Each with one cell for every column.

    Raises:
        ValueError: A row has more or fewer cells than the heading.
    """
    for row in rows:
        if len(row) != len(heading):
            raise ValueError(f"table: expected {len(heading)} cells in every row, got {list(row)}")
    lines = (heading, ["---"] * len(heading), *rows)
    return "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def _escaped(cell: str) -> str:
    """A bar or a line break would end the cell."""
    return " ".join(cell.split("\n")).replace("|", r"\|")

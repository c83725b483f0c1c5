"""Text of a script -> a page of docs/results, in place of the text that it wrote there before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).resolve().parent.parent / "docs/results"
PAGES: Final[Mapping[str, Path]] = {
    "make bench": RESULTS / "speed.md",
    "benchmarks/operators.py": RESULTS / "speed.md",
    "benchmarks/shapes.py": RESULTS / "speed.md",
    "benchmarks/cells.py": RESULTS / "speed.md",
    "benchmarks/texts.py": RESULTS / "speed.md",
    "benchmarks/filters.py": RESULTS / "speed.md",
    "benchmarks/gpu.py": RESULTS / "gpu.md",
    "benchmarks/memory.py": RESULTS / "scale.md",
    "make scale": RESULTS / "scale.md",
    "make kills": RESULTS / "campaigns.md",
    "make fuzz": RESULTS / "campaigns.md",
    "benchmarks/score_corpora.py page": RESULTS / "corpora.md",
    "make leaderboard": RESULTS / "leaderboard.md",
    "make budgets-text": RESULTS / "budgets.md",
    "benchmarks/theorems.py": RESULTS / "theorems.md",
    "benchmarks/membership.py": RESULTS / "membership.md",
}
"""The page of each command that writes its tables."""
END: Final = "<!-- until here -->\n"


def put(command: str, text: str) -> None:
    """Write ``text`` between the marks of ``command``, such as ``make bench``, on its page."""
    path = PAGES[command]
    page = path.read_text(encoding="utf-8")
    path.write_text(replaced(page, command, text), encoding="utf-8")


def replaced(page: str, command: str, text: str) -> str:
    """``page`` with ``text`` between the marks of ``command``.

    Raises:
        ValueError: The page has no such marks.
    """
    begin = f"<!-- written by {command} -->\n"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(END)
    if not (first and last):
        raise ValueError(f"page: expected the lines {begin!r} and {END!r}, got at most one.")
    return f"{before}{begin}\n{text}\n{END}{after}"

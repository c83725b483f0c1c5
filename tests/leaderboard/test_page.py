"""The Markdown page and the picture of a leaderboard."""

from pathlib import Path

from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.page import leaderboard_png, markdown


def table_below(page: str, heading: str) -> list[str]:
    """The rows of the first table below a heading, without the ruler."""
    _, _, rest = page.partition(f"\n## {heading}")
    rows = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_the_table_has_the_best_possible_row_first_and_every_score(board: Leaderboard) -> None:
    page = markdown(board)
    header, best, first, *others = table_below(page, "The whole sample")
    assert header.count("|") == best.count("|") == first.count("|")
    assert best.startswith(f"| *best possible* | - | - | - | {board.mean.ceiling.all:.3f} |")
    assert best.endswith("| - | 1.000 [1.000, 1.000] | - |")
    share = f"{1 / board.mean.ceiling.ordinary:.3f}"
    one = "1.000 [1.000, 1.000]"
    assert first.startswith(f"| `final_loss` | one run | 2 | 0.0123 | {one} | {one} | {share} |")
    (gap,) = [row for row in others if row.startswith("| `reference_gap`")]
    assert gap.startswith("| `reference_gap` | reference models | 6 | - |")
    assert len(others) == len(board.scores) - 1
    assert "`reference_gap` is defined for 104 samples" in page
    assert "2 canaries planted 4 times against 2 planted once (fewer than 10 in a group" in page


def test_the_worst_windows_are_a_table_of_their_own(board: Leaderboard) -> None:
    header, best, of_mean, *rows = table_below(markdown(board), "Its worst window")
    assert {row.count("|") for row in (header, best, of_mean, *rows)} == {header.count("|")}
    assert header.endswith("| precision at 10 % | extracted digits against ordinary text |")
    assert best.startswith(f"| *best possible* | {board.peak.ceiling.all:.3f} |")
    value = board.mean.against_ordinary["digits"]
    assert value
    assert of_mean.endswith(f"| {value.value:.3f} [{value.low:.3f}, {value.high:.3f}] |")
    assert len(rows) == len(board.scores)
    assert "3 are extracted" in markdown(board)


def test_equal_leaderboards_give_equal_pictures(board: Leaderboard, tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        leaderboard_png(board, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "other.png").read_bytes()

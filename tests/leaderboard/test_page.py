"""The Markdown page and the picture of a leaderboard."""

from pathlib import Path

from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.page import leaderboard_png, markdown


def test_the_table_has_the_best_possible_row_first_and_every_score(board: Leaderboard) -> None:
    page = markdown(board)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    start = rows.index(next(row for row in rows if row.startswith("| score")))
    header, _, best, first, *others = rows[start:]
    assert header.count("|") == best.count("|") == first.count("|")
    assert best.startswith(f"| *best possible* | - | - | {board.ceiling.all:.3f} |")
    assert best.endswith("| - | - | 1.000 [1.000, 1.000] | - |")
    share = f"{1 / board.ceiling.ordinary:.3f}"
    assert first.startswith(
        f"| `final_loss` | one run | 0.0123 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | {share}"
    )
    (gap,) = [row for row in others if row.startswith("| `reference_gap`")]
    assert gap.startswith("| `reference_gap` | reference models | - |")
    assert len(others) == len(board.scores) - 1
    assert "`reference_gap` is defined for 104 samples" in page
    assert "2 canaries planted 4 times against 2 planted once (fewer than 10 in a group" in page


def test_equal_leaderboards_give_equal_pictures(board: Leaderboard, tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        leaderboard_png(board, tmp_path / name)
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "other.png").read_bytes()

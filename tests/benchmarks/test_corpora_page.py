"""The page that compares scores on several corpora, from one leaderboard that is known."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import corpora_page
from gdc.leaderboard.board import BySamples, Leaderboard
from gdc.statistics.bootstrap import Estimate
from tests.leaderboard.builders import make_board


@pytest.fixture(scope="module")
def known_board() -> Leaderboard:
    """One score whose share of the ceiling is 0.4 / 0.8, and one that nothing is known of."""
    board = make_board()
    ceiling = BySamples(0.9, 0.8)
    row = next(row for row in board.scores if row.score == "final_loss")
    mean = replace(row.mean, spearman_ordinary=Estimate(0.4, 0.2, 0.6))
    unknown = replace(row.mean, spearman_ordinary=None)
    return replace(
        board,
        mean=replace(board.mean, ceiling=ceiling),
        scores=[
            replace(row, mean=mean),
            replace(row, score="random", mean=unknown, peak=unknown, seconds=None),
        ],
    )


def test_every_measure_has_a_table_of_scores_and_worlds(
    known_board: Leaderboard, tmp_path: Path
) -> None:
    boards = corpora_page.reported({"docs-lstm": known_board, "man-lstm": known_board}, ("docs",))
    assert list(boards) == ["docs-lstm*", "man-lstm"]
    page = corpora_page.markdown(boards, {})
    _, _, shares = page.partition("mean of the sample\n\n")
    lines = shares.splitlines()
    assert lines[0] == "| score | models | seconds | docs-lstm* | man-lstm |"
    share = "0.50 [0.25, 0.75]"
    assert lines[3] == f"| `final_loss` | 2 | 0.012 | {share} | {share} |"
    assert "Three times" not in page
    both = corpora_page.markdown(boards, {"docs-lstm-2400*": known_board})
    assert both.startswith(page)
    _, _, larger = both.partition("## Three times as many texts\n\n")
    assert "### Share of the ceiling on ordinary text: worst window" in larger
    assert f"| `final_loss` | 2 | 0.012 | {share} |\n" in larger
    # A score without a correlation in any world has no row.
    assert "`random`" not in page
    for name in ("one.png", "other.png"):
        corpora_page.draw(boards, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_lowest_family_counts(known_board: Leaderboard) -> None:
    row = known_board.scores[0]
    families = {"a": Estimate(0.9, 0.8, 1.0), "b": Estimate(0.7, 0.6, 0.8), "c": None}
    found = corpora_page.repeated(replace(row, canaries=families), known_board)
    assert found == families["b"]
    assert corpora_page.extracted(replace(row, against_ordinary={"c": None}), known_board) is None

"""Leaderboards of several worlds -> the tables of docs/results/corpora.md, and their heat map."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdc.leaderboard.board import Grain, Leaderboard, LeaderboardRow, Measures
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.markdown import table
from gdc.statistics.wording import NOTHING

Boards = Mapping[str, Leaderboard]
Cell = Callable[[LeaderboardRow, Leaderboard], Estimate | None]


def of_mean(row: LeaderboardRow, board: Leaderboard) -> Estimate | None:
    """Share of the ceiling on ordinary text, whole samples."""
    return _share(row.mean, board.mean)


def of_peak(row: LeaderboardRow, board: Leaderboard) -> Estimate | None:
    """Share of the ceiling on ordinary text, worst windows."""
    return _share(row.peak, board.peak)


def repeated(row: LeaderboardRow, _board: Leaderboard) -> Estimate | None:
    """AUROC of canaries planted most against those planted once, lowest of the families."""
    return _lowest(row.canaries)


def extracted(row: LeaderboardRow, _board: Leaderboard) -> Estimate | None:
    """AUROC of extracted canaries against ordinary text, lowest of the families."""
    return _lowest(row.against_ordinary)


MEASURES: Final[Mapping[str, Cell]] = {
    "Share of the ceiling on ordinary text: mean of the sample": of_mean,
    "Share of the ceiling on ordinary text: worst window": of_peak,
    "AUROC, canaries planted most against once: lowest of the families": repeated,
    "AUROC, extracted canaries against ordinary text: lowest of the families": extracted,
}


def markdown(boards: Boards, larger: Boards) -> str:
    """A table of the worlds, and one of the scores for each measure; then of larger worlds."""
    precision = f"## Precision at a budget of 5 %: mean / worst window\n\n{_precision(boards)}"
    parts = [_worlds(boards), *_measures(boards, "##"), precision]
    if larger:
        parts += ["## Three times as many texts\n", _worlds(larger), *_measures(larger, "###")]
    return "\n".join(parts)


def _measures(boards: Boards, heading: str) -> list[str]:
    tables = []
    for title, cell in MEASURES.items():
        rows = [_truth_row(title, boards), *(_row(name, cell, boards) for name in _order(boards))]
        shown = table(["score", "models", "seconds", *boards], rows)
        tables.append(f"{heading} {title}\n\n{shown}")
    return tables


def draw(boards: Boards, path: Path) -> None:
    """A heat map of score x world for each measure, every cell with its interval."""
    names = _order(boards)
    size = (4 + 2.2 * len(boards), 3 + 0.6 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(MEASURES) // 2, sharey=True)
    for axis, (title, cell) in zip(axes.flat, MEASURES.items(), strict=True):
        cells = [[_cell(name, cell, board) for board in boards.values()] for name in names]
        values = [[np.nan if c is None else c.value for c in line] for line in cells]
        low, high = (-1, 1) if "Share" in title else (0, 1)
        axis.imshow(values, cmap="RdBu", vmin=low, vmax=high, aspect="auto")
        for y, line in enumerate(cells):
            for x, found in enumerate(line):
                shade = 0.5 if found is None else (found.value - low) / (high - low)
                colour = "white" if abs(shade - 0.5) > 0.35 else "black"
                axis.text(x, y, _text(found), ha="center", va="center", fontsize=6, color=colour)
        axis.set_xticks(range(len(boards)), list(boards), rotation=30, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_title(title.replace(": ", ":\n"), fontsize=8)
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def _worlds(boards: Boards) -> str:
    heading = [
        "world", "ordinary texts", "ceiling, mean", "ceiling, worst window",
        "memorization of ordinary text, nats per token", "its worst window, bits",
        "canaries extracted: digits, natural, words",
    ]  # fmt: skip
    rows = [
        [
            name,
            str(board.num_ordinary),
            f"{board.mean.ceiling.ordinary:.2f}",
            f"{board.peak.ceiling.ordinary:.2f}",
            f"{board.ground_truth[0].memorization:.2f}",
            f"{board.ground_truth[0].peak:.1f}",
            ", ".join(
                f"{size.num_extracted} of {size.num_most + size.num_once}"
                for _, size in sorted(board.families.items())
            ),
        ]
        for name, board in boards.items()
    ]
    return table(heading, rows)


def _order(boards: Boards) -> list[str]:
    """Scores by their mean share over the worlds, the highest first."""
    means = {
        row.score: float(
            np.mean(
                [c.value if (c := _cell(row.score, of_mean, b)) else 0 for b in boards.values()]
            )
        )
        for row in next(iter(boards.values())).scores
        if any(_cell(row.score, of_mean, board) for board in boards.values())
    }
    return sorted(means, key=lambda name: -means[name])


def _row(name: str, cell: Cell, boards: Boards) -> list[str]:
    rows = [_named(name, board) for board in boards.values()]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return [
        f"`{name}`",
        str(rows[0].num_models),
        _rounded(float(np.median(seconds))) if seconds else NOTHING,
        *[_text(_cell(name, cell, board)) for board in boards.values()],
    ]


def _rounded(seconds: float) -> str:
    """Two digits, or all of a whole number."""
    return f"{seconds:.2g}" if seconds < 100 else f"{seconds:.0f}"


def _truth_row(title: str, boards: Boards) -> list[str]:
    """What the ground truth itself reaches, by mean and by worst window."""

    def own(grain: Grain) -> str:
        families = grain.canaries if "planted most" in title else grain.against_ordinary
        return _text(_lowest(families))

    is_share = "Share" in title
    cells = ["1" if is_share else f"{own(b.mean)} / {own(b.peak)}" for b in boards.values()]
    return ["*ground truth*" if is_share else "*mean / worst window*", NOTHING, NOTHING, *cells]


def _precision(boards: Boards) -> str:
    def both(row: LeaderboardRow) -> str:
        found = [measures.precision[0.05] for measures in (row.mean, row.peak)]
        return " / ".join(NOTHING if value is None else f"{value.value:.2f}" for value in found)

    rows = [
        [f"`{name}`", *(both(_named(name, board)) for board in boards.values())]
        for name in _order(boards)
    ]
    return table(["score", *boards], rows)


def _named(name: str, board: Leaderboard) -> LeaderboardRow:
    return next(row for row in board.scores if row.score == name)


def _cell(name: str, cell: Cell, board: Leaderboard) -> Estimate | None:
    return cell(_named(name, board), board)


def _share(measures: Measures, grain: Grain) -> Estimate | None:
    found, ceiling = measures.spearman_ordinary, grain.ceiling.ordinary
    if found is None or not ceiling:
        return None
    return Estimate(found.value / ceiling, found.low / ceiling, found.high / ceiling)


def _lowest(families: Mapping[str, Estimate | None]) -> Estimate | None:
    found = [value for value in families.values() if value is not None]
    return min(found, key=lambda estimate: estimate.value) if found else None


def _text(found: Estimate | None) -> str:
    if found is None:
        return NOTHING
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def reported(boards: Boards, chosen_on: Sequence[str]) -> Boards:
    """The worlds with those that formulas were chosen on marked by a star."""
    return {
        f"{name}*" if name.split("-")[0] in chosen_on else name: board
        for name, board in boards.items()
    }

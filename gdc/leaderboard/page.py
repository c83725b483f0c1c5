"""A leaderboard -> its Markdown page and its picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdc.leaderboard.board import (
    EpsilonPoint,
    FamilySize,
    Leaderboard,
    LeaderboardRow,
    MemorizationLevel,
)
from gdc.statistics.bootstrap import Estimate
from gdc.statistics.markdown import table
from gdc.statistics.wording import NOTHING, decimals, interval

# Okabe and Ito's palette, as on the other pictures.
COLOURS: Final[Mapping[str, str]] = {
    "no model": "#56B4E9",
    "one run": "#0072B2",
    "reference models": "#D55E00",
}
CHANCE: Final = "#555555"
MIN_CANARIES: Final = 10

_LEVEL_HEADING: Final = (
    "samples", "copies", "rows", "mean memorization, nats per token", "median standard error",
)  # fmt: skip


def markdown(board: Leaderboard) -> str:
    """The ground truth, one row for each score below the best possible one, and notes."""
    heading = [
        "score", "needs", "seconds", "Spearman", "ordinary text", "of best possible",
        "AUROC, top decile", "average precision",
        *[f"AUROC, {family}" for family in board.families], "agreement of runs",
    ]  # fmt: skip
    rows = [_best_cells(board), *[_cells(row, board) for row in board.scores]]
    return (
        f"# Which score predicts memorization?\n\n{_ground_truth(board)}\n"
        f"{table(heading, rows)}\n{_notes(board)}"
    )


def leaderboard_png(board: Leaderboard, path: Path) -> None:
    """Draw the correlations with their intervals, and the AUROC of forget frequency by epsilon.

    Args:
        board: The leaderboard.
        path: The PNG file to write; equal arguments give equal bytes.
    """
    rows = [(row, row.spearman) for row in board.scores if row.spearman]
    figure = Figure(figsize=(12, max(4.5, 1.5 + 0.28 * len(rows))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    bars, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_bars(bars, rows, board.ceiling.all)
    _draw_curve(curve, board.epsilon_curve)
    figure.savefig(path, format="png", metadata={"Software": None})


def _best_cells(board: Leaderboard) -> list[str]:
    ceiling = [decimals(board.ceiling.all), decimals(board.ceiling.ordinary)]
    canaries = [interval(board.ground_truth_canaries[name], decimals) for name in board.families]
    return [
        "*best possible*",
        NOTHING,
        NOTHING,
        *ceiling,
        "1",
        NOTHING,
        NOTHING,
        *canaries,
        NOTHING,
    ]


def _cells(row: LeaderboardRow, board: Leaderboard) -> list[str]:
    canaries = [row.canaries[family] for family in board.families]
    return [
        f"`{row.score}`",
        row.cost,
        NOTHING if row.seconds is None else f"{row.seconds:.3g}",
        interval(row.spearman, decimals),
        interval(row.spearman_ordinary, decimals),
        _share_of_best(row.spearman_ordinary, board.ceiling.ordinary),
        *[interval(m, decimals) for m in (row.auroc, row.average_precision, *canaries)],
        decimals(row.agreement),
    ]


def _share_of_best(spearman: Estimate | None, ceiling: float) -> str:
    return NOTHING if spearman is None or not ceiling else decimals(spearman.value / ceiling)


def _ground_truth(board: Leaderboard) -> str:
    sentence = (
        f"Ground truth: counterfactual memorization (arXiv:2112.12938) of {board.num_samples:,} "
        f"training samples, {board.num_ordinary:,} of them ordinary text, measured with "
        f"{board.num_models} half-models that no score has used."
    )
    return f"{sentence}\n\n{table(_LEVEL_HEADING, [_level(row) for row in board.ground_truth])}"


def _level(level: MemorizationLevel) -> list[str]:
    return [
        level.family or "ordinary text",
        NOTHING if level.num_repeats is None else str(level.num_repeats),
        f"{level.num_samples:,}",
        f"{level.memorization:.2f}",
        NOTHING if level.standard_error is None else f"{level.standard_error:.2f}",
    ]


def _notes(board: Leaderboard) -> str:
    share = board.num_top / board.num_samples
    lines = [
        f"Brackets: {100 * board.level:.0f} % bootstrap intervals over samples, copies of one text "
        "drawn together; they do not cover the variation of half-models and runs.",
        f"Chance: Spearman 0, AUROC 0.5, average precision {share:.3f}.",
        "Best possible: the square root of the split-half reliability of the ground truth, itself "
        "an estimate that a score can exceed by chance. More models raise it. For a family of "
        "canaries it is the AUROC of the ground truth: canaries planted once may be memorized too.",
        "Seconds: to compute the score, including the training of the reference models that it "
        "needs besides the tracked runs. The extra pass over every batch that `self_influence` "
        "needs during training is not counted.",
        "`online_probe_gap` was found on the default preset with this leaderboard, so its rank "
        "there is optimistic.",
        f"Agreement of runs: mean Spearman correlation between {board.num_runs} tracked run(s).",
        *[_canary_note(name, family) for name, family in board.families.items()],
        *[
            f"`{row.score}` is defined for {row.num_samples:,} samples and evaluated on them alone."
            for row in board.scores
            if row.num_samples < board.num_samples
        ],
    ]
    return "".join(f"- {line}\n" for line in lines)


def _canary_note(name: str, family: FamilySize) -> str:
    # A perfect order of two canaries has an interval of no width.
    is_small = min(family.num_most, family.num_once) < MIN_CANARIES
    caveat = (
        f" (fewer than {MIN_CANARIES} in a group: the interval is too narrow)" if is_small else ""
    )
    return (
        f"AUROC, {name}: {family.num_most} canaries planted {family.num_repeats} times "
        f"against {family.num_once} planted once{caveat}."
    )


def _draw_bars(axes: Axes, rows: Sequence[tuple[LeaderboardRow, Estimate]], ceiling: float) -> None:
    for height, (row, spearman) in enumerate(reversed(rows)):
        axes.barh(height, spearman.value, color=COLOURS[row.cost], height=0.7)
        ends = [spearman.low, spearman.high]
        axes.plot(ends, [height, height], color="#1f2733", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row.score for row, _ in reversed(rows)])
    axes.axvline(ceiling, color=CHANCE, linestyle="--", linewidth=1)
    axes.axvline(0, color=CHANCE, linewidth=0.8)
    axes.set_xlabel("Spearman with counterfactual memorization; dashed: best possible")
    for cost, colour in COLOURS.items():
        if any(row.cost == cost for row, _ in rows):
            axes.barh(0, 0, color=colour, label=cost)
    axes.legend(frameon=False, loc="lower right", title="needs")
    axes.set_title("Scores against the ground truth", loc="left", fontsize=12)
    _declutter(axes)


def _draw_curve(axes: Axes, points: Sequence[EpsilonPoint]) -> None:
    quantiles = [point.quantile for point in points]
    lines = (
        ([point.auroc for point in points], "forget events", "#D55E00", "-"),
        ([point.auroc_ever_below for point in points], "ever below epsilon", "#0072B2", "--"),
    )
    for aurocs, label, colour, style in lines:
        values = [np.nan if auroc is None else auroc for auroc in aurocs]
        axes.plot(quantiles, values, marker="o", markersize=3, label=label, color=colour, ls=style)
    axes.axhline(0.5, color=CHANCE, linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0, 1))
    axes.set_xlabel("epsilon: quantile of all recorded losses")
    axes.set_ylabel("AUROC, top decile of memorization")
    axes.set_title("Forget frequency by epsilon", loc="left", fontsize=12)
    axes.legend(frameon=False)
    _declutter(axes)


def _declutter(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)

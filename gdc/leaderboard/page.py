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
    Grain,
    Leaderboard,
    LeaderboardRow,
    Measures,
    MemorizationLevel,
)
from gdc.leaderboard.evaluation import BUDGETS
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

_MEASURE_HEADING: Final = (
    "Spearman", "ordinary text", "of best possible", "AUROC, top decile", "average precision",
    *[f"precision at {100 * budget:.0f} %" for budget in BUDGETS],
)  # fmt: skip

_LEVEL_HEADING: Final = (
    "samples", "copies", "rows", "mean memorization, nats per token", "median standard error",
    "mean peak, bits", "median standard error",
)  # fmt: skip


def markdown(board: Leaderboard) -> str:
    """The ground truth, a table of the scores for each of its grains, and notes."""
    return (
        f"# Which score predicts memorization?\n\n{_ground_truth(board)}\n"
        f"## The whole sample: mean over its tokens\n\n{_mean_table(board)}\n"
        f"## Its worst window: the largest sum over {board.window_tokens} tokens\n\n"
        f"{_peak_table(board)}\n{_notes(board)}"
    )


def _mean_table(board: Leaderboard) -> str:
    heading = [
        "score", "needs", "models", "seconds", *_MEASURE_HEADING,
        *[f"AUROC, {family}" for family in board.families], "agreement of runs",
    ]  # fmt: skip
    canaries = [interval(board.mean.canaries[name], decimals) for name in board.families]
    rows = [
        ["*best possible*", *[NOTHING] * 3, *_best_measures(board.mean), *canaries, NOTHING],
        *[
            [
                f"`{row.score}`",
                row.cost,
                str(row.num_models),
                NOTHING if row.seconds is None else f"{row.seconds:.3g}",
                *_measures(row.mean, board.mean),
                *[interval(row.canaries[family], decimals) for family in board.families],
                decimals(row.agreement),
            ]
            for row in board.scores
        ],
    ]
    return table(heading, rows)


def _peak_table(board: Leaderboard) -> str:
    heading = [
        "score", *_MEASURE_HEADING,
        *[f"extracted {family} against ordinary text" for family in board.families],
    ]  # fmt: skip
    mean, best = (
        [interval(grain.against_ordinary[family], decimals) for family in board.families]
        for grain in (board.mean, board.peak)
    )
    rows = [
        ["*best possible*", *_best_measures(board.peak), *best],
        ["*mean of the whole sample*", *[NOTHING] * len(_MEASURE_HEADING), *mean],
        *[
            [
                f"`{row.score}`",
                *_measures(row.peak, board.peak),
                *[interval(row.against_ordinary[family], decimals) for family in board.families],
            ]
            for row in sorted(board.scores, key=_by_peak)
        ],
    ]
    return table(heading, rows)


def _by_peak(row: LeaderboardRow) -> tuple[float, str]:
    return (-row.peak.spearman.value if row.peak.spearman else float("inf"), row.score)


def leaderboard_png(board: Leaderboard, path: Path) -> None:
    """Draw the correlations with their intervals, and the AUROC of forget frequency by epsilon.

    Args:
        board: The leaderboard.
        path: The PNG file to write; equal arguments give equal bytes.
    """
    rows = [(row, row.mean.spearman) for row in board.scores if row.mean.spearman]
    figure = Figure(figsize=(12, max(4.5, 1.5 + 0.28 * len(rows))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    bars, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_bars(bars, rows, board.mean.ceiling.all)
    _draw_curve(curve, board.epsilon_curve)
    figure.savefig(path, format="png", metadata={"Software": None})


def _best_measures(grain: Grain) -> list[str]:
    ceiling = [decimals(grain.ceiling.all), decimals(grain.ceiling.ordinary)]
    return [*ceiling, "1", *[NOTHING] * (2 + len(BUDGETS))]


def _measures(measures: Measures, grain: Grain) -> list[str]:
    return [
        interval(measures.spearman, decimals),
        interval(measures.spearman_ordinary, decimals),
        _share_of_best(measures.spearman_ordinary, grain.ceiling.ordinary),
        interval(measures.auroc, decimals),
        interval(measures.average_precision, decimals),
        *[interval(measures.precision[budget], decimals) for budget in BUDGETS],
    ]


def _share_of_best(spearman: Estimate | None, ceiling: float) -> str:
    return NOTHING if spearman is None or not ceiling else decimals(spearman.value / ceiling)


def _ground_truth(board: Leaderboard) -> str:
    sentence = (
        f"Ground truth: counterfactual memorization (arXiv:2112.12938) of {board.num_samples:,} "
        f"training samples, {board.num_ordinary:,} of them ordinary text, measured with "
        f"{board.num_models} half-models that no score has used. The peak of a sample is the "
        f"largest sum of token-level gaps over {board.window_tokens} tokens, the length of a "
        "secret unless another was asked for; as a maximum it lies above 0 where nothing is "
        "memorized."
    )
    return f"{sentence}\n\n{table(_LEVEL_HEADING, [_level(row) for row in board.ground_truth])}"


def _level(level: MemorizationLevel) -> list[str]:
    return [
        level.family or "ordinary text",
        NOTHING if level.num_repeats is None else str(level.num_repeats),
        f"{level.num_samples:,}",
        f"{level.memorization:.2f}",
        NOTHING if level.standard_error is None else f"{level.standard_error:.2f}",
        f"{level.peak:.1f}",
        NOTHING if level.peak_standard_error is None else f"{level.peak_standard_error:.1f}",
    ]


def _notes(board: Leaderboard) -> str:
    share = board.mean.num_top / board.num_samples
    lines = [
        f"Brackets: {100 * board.level:.0f} % bootstrap intervals over samples, copies of one text "
        "drawn together; they do not cover the variation of half-models and runs.",
        f"Chance: Spearman 0, AUROC 0.5, average precision {share:.3f}, precision the budget.",
        "Precision at a budget: of the samples that the score puts highest, the share that the "
        "ground truth puts among as many.",
        "Best possible: the square root of the split-half reliability of the ground truth, itself "
        "an estimate that a score can exceed by chance. More models raise it. For a family of "
        "canaries it is the AUROC of the ground truth: canaries planted once may be memorized too.",
        "Seconds: to compute the score, including the training of the reference models that it "
        "needs besides the tracked runs. The extra pass over every batch that `self_influence` "
        "needs during training is not counted.",
        "`online_probe_gap` was found on CPython's documentation, so its rank there is optimistic.",
        "Extracted canaries are those whose secret at least half of the tracked runs reproduce "
        "by greedy decoding. Two rows tell how far the ground truth itself puts them above "
        "ordinary text.",
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
        f"against {family.num_once} planted once{caveat}; {family.num_extracted} are extracted."
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

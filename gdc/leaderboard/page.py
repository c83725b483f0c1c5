"""leaderboard.json -> its Markdown table and its picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, as on the other pictures.
COLOURS: Final[Mapping[str, str]] = {
    "no model": "#56B4E9",
    "one run": "#0072B2",
    "reference models": "#D55E00",
}
CHANCE: Final = "#555555"
MIN_CANARIES: Final = 10


def markdown(board: Mapping[str, Any]) -> str:
    """One row for each score, the best first, below what no score can be expected to exceed."""
    families = list(board["families"])
    names = ["score", "needs", "seconds", "Spearman", "ordinary text", "of best possible"]
    names += ["AUROC, top decile", "average precision"]
    names += [f"AUROC, {family}" for family in families] + ["runs agree"]
    ceiling = [f"{board['ceiling'][name]:.3f}" for name in ("all", "ordinary")]
    truth = [_ranged(board["truth_canaries"][family]) for family in families]
    best = ["*best possible*", "-", "-", *ceiling, "1", "-", "-", *truth, "-"]
    rows = [
        names,
        ["---"] * len(names),
        best,
        *[_cells(row, board) for row in board["scores"]],
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"# Which score finds what is memorized?\n\n{_truth(board)}\n{table}\n{_notes(board)}"


def leaderboard_png(board: Mapping[str, Any], path: Path) -> None:
    """Draw the correlations with their intervals, and the AUROC of forget events by epsilon.

    Args:
        board: Content of ``leaderboard.json``.
        path: The PNG file to write; equal arguments give equal bytes.
    """
    rows = [row for row in board["scores"] if row["spearman"]]
    figure = Figure(figsize=(12, max(4.5, 1.5 + 0.28 * len(rows))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    bars, curve = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_bars(bars, rows, board["ceiling"]["all"])
    _draw_curve(curve, board["epsilon_curve"])
    figure.savefig(path, format="png", metadata={"Software": None})


def _cells(row: Mapping[str, Any], board: Mapping[str, Any]) -> list[str]:
    return [
        f"`{row['score']}`",
        row["cost"],
        "-" if row["seconds"] is None else f"{row['seconds']:.3g}",
        *[_ranged(row[measure]) for measure in ("spearman", "spearman_ordinary")],
        _share_of_best(row["spearman_ordinary"], board["ceiling"]["ordinary"]),
        *[_ranged(row[measure]) for measure in ("auroc", "average_precision")],
        *[_ranged(row["canaries"][family]) for family in board["families"]],
        "-" if row["agreement"] is None else f"{row['agreement']:.3f}",
    ]


def _share_of_best(interval: Mapping[str, float] | None, ceiling: float) -> str:
    return "-" if interval is None or not ceiling else f"{interval['value'] / ceiling:.3f}"


def _truth(board: Mapping[str, Any]) -> str:
    lines = [
        f"Truth: counterfactual memorization (arXiv:2112.12938) of {board['num_samples']:,} "
        f"training samples, {board['num_ordinary']:,} of them ordinary text, by "
        f"{board['num_models']} half-models that no score has used.\n",
        "| samples | copies | rows | mean truth, nats per token | median standard error |",
        "|---|---|---|---|---|",
    ]
    for row in board["truth"]:
        copies = "-" if row["num_repeats"] is None else str(row["num_repeats"])
        error = "-" if row["standard_error"] is None else f"{row['standard_error']:.2f}"
        lines.append(
            f"| {row['family'] or 'ordinary text'} | {copies} | {row['num_samples']:,} | "
            f"{row['memorization']:.2f} | {error} |"
        )
    return "\n".join(lines) + "\n"


def _notes(board: Mapping[str, Any]) -> str:
    share = board["num_top"] / board["num_samples"]
    lines = [
        f"Brackets: {100 * board['level']:.0f} % bootstrap over samples, exact copies together; "
        "the chance of models and runs is not in them.",
        f"Chance: Spearman 0, AUROC 0.5, average precision {share:.3f}.",
        "Best possible: the root of the truth's split-half reliability, itself an estimate that "
        "chance can exceed. More models raise it. Within a family it is the truth's own AUROC: "
        "what is planted once may be memorized too.",
        "Seconds: to compute the score, and to train the reference models it needs besides the "
        "tracked runs. What `self_influence` adds to those, one more pass of every batch, is not "
        "counted.",
        "`online_probe_gap` was found on the default preset of this benchmark: its place there "
        "flatters it.",
        f"Runs agree: mean Spearman between {board['num_runs']} tracked run(s).",
    ]
    lines += [
        f"AUROC, {name}: {family['num_most']} canaries planted {family['num_repeats']} times "
        f"against {family['num_once']} planted once{_few(family)}."
        for name, family in board["families"].items()
    ]
    partial = [row for row in board["scores"] if row["num_samples"] < board["num_samples"]]
    lines += [
        f"`{row['score']}` is defined for {row['num_samples']:,} samples, and judged on them alone."
        for row in partial
    ]
    return "".join(f"- {line}\n" for line in lines)


def _few(family: Mapping[str, int]) -> str:
    """A perfect order of two canaries has an interval of no width, and says little."""
    if min(family["num_most"], family["num_once"]) >= MIN_CANARIES:
        return ""
    return f" (fewer than {MIN_CANARIES} of either say little, whatever the interval)"


def _ranged(interval: Mapping[str, float] | None) -> str:
    if interval is None:
        return "-"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _draw_bars(axes: Axes, rows: Sequence[Mapping[str, Any]], ceiling: float) -> None:
    for place, row in enumerate(reversed(rows)):
        interval = row["spearman"]
        axes.barh(place, interval["value"], color=COLOURS[row["cost"]], height=0.7)
        ends = [interval["low"], interval["high"]]
        axes.plot(ends, [place, place], color="#1f2733", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row["score"] for row in reversed(rows)])
    axes.axvline(ceiling, color=CHANCE, linestyle="--", linewidth=1)
    axes.axvline(0, color=CHANCE, linewidth=0.8)
    axes.set_xlabel("Spearman with counterfactual memorization; dashed: best possible")
    for cost, colour in COLOURS.items():
        if any(row["cost"] == cost for row in rows):
            axes.barh(0, 0, color=colour, label=cost)
    axes.legend(frameon=False, loc="lower right", title="needs")
    axes.set_title("Scores against the truth", loc="left", fontsize=12)
    _declutter(axes)


def _draw_curve(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    quantiles = [point["quantile"] for point in points]
    lines = (
        ("auroc", "forget events", "#D55E00", "-"),
        ("auroc_ever_below", "ever below epsilon", "#0072B2", "--"),
    )
    for name, label, colour, style in lines:
        values = [np.nan if point[name] is None else point[name] for point in points]
        axes.plot(quantiles, values, marker="o", markersize=3, label=label, color=colour, ls=style)
    axes.axhline(0.5, color=CHANCE, linestyle=":", linewidth=1)
    axes.set(xscale="log", ylim=(0, 1))
    axes.set_xlabel("epsilon: quantile of all recorded losses")
    axes.set_ylabel("AUROC, top decile of the truth")
    axes.set_title("Forget frequency by epsilon", loc="left", fontsize=12)
    axes.legend(frameon=False)
    _declutter(axes)


def _declutter(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)

"""Scored samples and compared arms -> the data map, ROC curves and bars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdc.comparison.pareto_front import lines_of
from gdc.comparison.results import FrontPoint, LeakageByGroup, RocCurve
from gdc.mapping.profile import Profile
from gdc.schema import QUADRANTS
from gdc.statistics.bootstrap import Measured
from gdc.statistics.hashing import hash_order

PLANTED: Final = "planted canary"
KINDS: Final = (*QUADRANTS, PLANTED)
# Okabe and Ito's palette: told apart with every common colour vision, and by lightness in print.
COLOURS: Final[Mapping[str, str]] = {
    "stable-easy": "#56B4E9",
    "ambiguous-hard": "#0072B2",
    "hotspot-memorized": "#D55E00",
    "noisy-outlier": "#CC79A7",
    PLANTED: "#000000",
}
# Told apart without colour too.
_LINES: Final = tuple(
    (colour, style)
    for style in ("-", "--", "-.")
    for colour in ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7")
)
# Below it the interval of a group spans half of the picture and hides the others.
MIN_MEMBERS: Final = 20
_MARKERS: Final = "osD^vP<>X"

# One row is a point of the map.
POINTS: Final = pl.Schema(
    {
        "sample_id": pl.String,
        "difficulty": pl.Float64,  # nats per token
        "score": pl.Float64,  # on the memorization axis
        "quadrant": pl.String,
        "canary": pl.String,  # family/repeats of a planted canary; null for ordinary text
    }
)


@dataclass(frozen=True)
class MapFrame:
    """What stands around the points."""

    axis: str  # the score on the memorization axis
    num_early: int  # checkpoints averaged into difficulty
    difficulty_threshold: float
    memorization_threshold: float
    max_points: int


def data_map_png(points: pl.DataFrame, frame: MapFrame, path: Path) -> None:
    """Draw the map as a picture; equal arguments give equal bytes.

    Args:
        points: ``POINTS`` table.
        frame: Axes, thresholds and the number of points drawn at most.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(10, 6.5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    jitter = jitter_height(points["score"])
    for kind, label, drawn in _layers(points, frame.max_points):
        heights = drawn["score"].to_numpy() - jitter * _draws(drawn, "jitter")
        _scatter(axes, kind, label, drawn["difficulty"].to_numpy(), heights)
    _frame_axes(axes, frame, jitter)
    axes.set_title(map_title(points.height, frame.max_points), loc="left", fontsize=13)
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, markerscale=1.6, fontsize="medium"
    )
    figure.savefig(path, format="png", metadata={"Software": None})


def roc_png(curves: Mapping[str, RocCurve], attack: str, path: Path) -> None:
    """Draw true against false positive rates on logarithmic axes, one line for each arm.

    Args:
        curves: One for each arm.
        attack: The attack that they are of, for the title.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(8.5, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest = min(0.5, *(min(curve.fpr) for curve in curves.values()))
    # In the order of the front, so that an arm has one colour in both pictures.
    for (arm, curve), (colour, line) in zip(sorted(curves.items()), cycle(_LINES), strict=False):
        axes.plot(curve.fpr, curve.tpr, label=arm, linewidth=1.6, color=colour, ls=line)
    axes.plot([lowest, 1], [lowest, 1], color="#555555", linewidth=0.9, linestyle=":")
    # A rate of 0 has no place on a logarithmic axis; the lines end where it begins.
    axes.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest, 1.05))
    axes.set_xlabel("false positive rate: held-out texts taken for members")
    axes.set_ylabel("true positive rate: members found")
    axes.set_title(f"Membership attack {attack}, mean over seeds", loc="left", fontsize=13)
    _declutter(axes)
    # Beside the axes, as so many arms as an experiment has would cover the lines.
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, format="png", metadata={"Software": None})


def profile_png(profiles: Mapping[str, Profile], path: Path) -> None:
    """Draw memorization over time, a line for each group of samples; equal ones give equal bytes.

    Args:
        profiles: By quadrant, and of all samples under another name.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, profile in profiles.items():
        steps = [lag.steps for lag in profile.lags]
        colour = COLOURS.get(name, "#000000")
        values = [lag.effect.value for lag in profile.lags]
        lows = [lag.effect.low for lag in profile.lags]
        highs = [lag.effect.high for lag in profile.lags]
        label = f"{name} ({profile.num_texts:,})"
        axes.plot(steps, values, marker="o", markersize=3, color=colour, label=label)
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xlabel("optimizer steps since the first checkpoint that has seen a sample")
    axes.set_ylabel("nats per token, minus those not seen yet")
    axes.set_title("Memorization over time", loc="left", fontsize=13)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def groups_png(groups: LeakageByGroup, axis: str, path: Path) -> None:
    """Draw how well members of each quadrant and decile are told from held-out texts.

    Args:
        groups: What the members of each quadrant and decile leak.
        axis: The score whose deciles they are.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(11, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    kinds = (
        ("By quadrant", groups.quadrants),
        (f"By decile of {axis} (1 is the lowest)", groups.deciles),
    )
    panels = figure.subplots(2, 2, sharey="row", width_ratios=(2, 3))
    for (title, members), (auc_axes, extracted_axes) in zip(kinds, panels.T, strict=True):
        drawn = {name for name, group in members.items() if group.num_members >= MIN_MEMBERS}
        auc = {name: group.auc if name in drawn else None for name, group in members.items()}
        extracted = {
            name: group.extracted if name in drawn else None for name, group in members.items()
        }
        _bars(auc_axes, auc, null=0.5)
        _bars(extracted_axes, extracted, null=0.0)
        auc_axes.set_title(title, loc="left", fontsize=11)
        extracted_axes.set_title(title, loc="left", fontsize=11)
    for axes, label in zip(
        panels[:, 0], (f"AUC of {groups.attack}", "second half extracted"), strict=True
    ):
        axes.set_ylabel(label)
    figure.supxlabel(f"Groups of fewer than {MIN_MEMBERS} audited members have no bar.", fontsize=9)
    figure.savefig(path, format="png", metadata={"Software": None})


def front_png(points: Sequence[FrontPoint], path: Path) -> None:
    """Draw what each arm leaks against what it costs, with both intervals.

    Args:
        points: As ``pareto_front`` gives them; with none the picture says so.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = zip(cycle(_LINES), cycle(_MARKERS), strict=False)
    for (name, line), ((colour, style), marker) in zip(
        lines_of(points).items(), styles, strict=False
    ):
        _front_line(axes, name, line, {"color": colour, "linestyle": style, "marker": marker})
    for label, chosen, colour in (
        ("not dominated", [point for point in points if point.is_on_front], "#009E73"),
        ("keeps everything", [point for point in points if point.is_baseline], "#555555"),
    ):
        ringed = [_position(point) for point in chosen]
        if ringed:
            axes.scatter(
                [x for x, _ in ringed],
                [y for _, y in ringed],
                s=190,
                label=label,
                facecolors="none",
                edgecolors=colour,
                linewidths=1.6,
            )
    axes.axvline(0, color="#555555", linestyle=":", linewidth=0.9)
    axes.set_xlabel("change of held-out perplexity against the arm that keeps everything, %")
    axes.set_ylabel("planted secrets extracted, %")
    title = "Leakage against perplexity, mean over seeds" if points else "Nothing to compare"
    axes.set_title(title, loc="left", fontsize=13)
    _declutter(axes)
    if points:
        figure.legend(
            loc="outside right upper",
            frameon=False,
            fontsize="small",
            markerscale=0.7,
            labelspacing=0.9,
        )
    figure.savefig(path, format="png", metadata={"Software": None})


def _front_line(
    axes: Axes,
    name: str,
    line: Sequence[FrontPoint],
    style: Mapping[str, Any],  # arguments of matplotlib
) -> None:
    """One series of arms with their fractions, or one arm."""
    places = [_position(point) for point in line]
    spreads = [
        np.transpose([_spread(point.perplexity_change) for point in line]),
        np.transpose([_spread(point.extraction) for point in line]),
    ]
    axes.errorbar(
        [x for x, _ in places],
        [y for _, y in places],
        xerr=spreads[0],
        yerr=spreads[1],
        label=name,
        elinewidth=1.1,
        alpha=0.85,
        **style,
    )
    for place, point in zip(places, line, strict=True):
        if len(line) > 1 and point.fraction is not None:
            axes.annotate(
                f"{100 * point.fraction:g} %",
                place,
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=8,
                color=style["color"],
            )


def _position(point: FrontPoint) -> tuple[float, float]:
    """Perplexity change and extraction, in percent."""
    return 100 * point.perplexity_change.value, 100 * point.extraction.value


def _spread(interval: Measured) -> tuple[float, float]:
    """How far below and above its value an interval goes, in percent."""
    value, low, high = 100 * interval.value, 100 * interval.low, 100 * interval.high
    # A percentile interval need not hold the value itself.
    return max(0.0, value - low), max(0.0, high - value)


def _bars(axes: Axes, groups: Mapping[str, Measured | None], *, null: float) -> None:
    """One bar for each group that was measured, from the null to its value, with its interval."""
    shown = [(i, name, found) for i, (name, found) in enumerate(groups.items()) if found]
    indices = [index for index, *_ in shown]
    values = np.array([found.value for *_, found in shown])
    ends = np.array([[found.low, found.high] for *_, found in shown]).reshape(-1, 2)
    colours = [COLOURS.get(name, "#0072B2") for _, name, _ in shown]
    axes.bar(indices, values - null, bottom=null, color=colours, width=0.7)
    # A percentile interval need not hold the value itself.
    spread = np.abs(
        np.stack([np.minimum(ends[:, 0], values), np.maximum(ends[:, 1], values)]) - values
    )
    axes.errorbar(
        indices, values, yerr=spread, fmt="none", ecolor="#1f2733", capsize=3, linewidth=1
    )
    axes.axhline(null, color="#555555", linestyle=":", linewidth=0.9)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xticks(range(len(groups)), [name.replace("-", "\n") for name in groups])
    _declutter(axes)


def losses_png(losses: pl.DataFrame, path: Path) -> None:
    """Draw the mean losses of a tracked run by step.

    Args:
        losses: ``step``, ``train`` and ``heldout``, nats per token.
        path: The PNG file to write.
    """
    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, colour, style in (("train", "#0072B2", "-"), ("heldout", "#D55E00", "--")):
        axes.plot(losses["step"], losses[name], label=name, color=colour, linestyle=style)
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.set_title("Mean loss of the tracked run", loc="left", fontsize=13)
    _declutter(axes)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})


def _declutter(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def thin(points: pl.DataFrame, max_points: int) -> pl.DataFrame:
    """At most ``max_points`` rows, chosen by a hash of their ids, in their order."""
    if points.height <= max_points:
        return points
    draws = hash_order(points["sample_id"].to_list(), seed=0, purpose="data map")
    return (
        points.with_row_index("row")
        .with_columns(draw=pl.Series(draws, dtype=pl.UInt64))
        .sort("draw", "sample_id")
        .head(max_points)
        .sort("row")
        .drop("row", "draw")
    )


def jitter_height(scores: pl.Series) -> float:
    """How far, in units of the score, points are spread down so that ties can be seen.

    Two fifths of the smallest gap between two values when there are few values, else 0. Down and
    not up: a point at a threshold is not above it and must not look so.
    """
    values = np.unique(scores.to_numpy())
    if not 1 < len(values) <= 25:
        return 0.0
    return float(0.4 * np.diff(values).min())


def map_title(num_points: int, max_points: int) -> str:
    """How many samples the map shows, and of how many when it is thinned."""
    if num_points > max_points:
        return (
            f"Data map: {max_points:,} of {num_points:,} training samples drawn, chosen by id hash"
        )
    return f"Data map: {num_points:,} training samples"


def difficulty_label(num_early: int) -> str:
    """Label of the horizontal axis, with its unit."""
    return f"difficulty: mean nats per token of the first {num_early} checkpoints"


def score_label(axis: str) -> str:
    """Label of the vertical axis, with its unit where it is known."""
    if axis == "memorization":
        return "memorization: forget events per checkpoint step"
    return f"{axis}: higher is taken to be more memorized"


def _layers(points: pl.DataFrame, max_points: int) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Each kind of point with its label, which counts all of them, and those to draw."""
    kind = pl.when(pl.col("canary").is_null()).then("quadrant").otherwise(pl.lit(PLANTED))
    counts = points.select(kind=kind)["kind"]
    drawn = thin(points, max_points)
    for name in KINDS:
        yield name, f"{name} ({(counts == name).sum():,})", drawn.filter(kind == name)


def _draws(points: pl.DataFrame, purpose: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A number in [0, 1) for every point, a hash of its id."""
    draws = hash_order(points["sample_id"].to_list(), seed=0, purpose=purpose)
    return np.array(draws, dtype=np.float64) / 2.0**64


def _scatter(
    axes: Axes,
    kind: str,
    label: str,
    difficulty: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    heights: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> None:
    if kind == PLANTED:
        axes.scatter(
            difficulty, heights, s=16, c=COLOURS[kind], marker="x", linewidths=0.7, label=label
        )
    else:
        axes.scatter(
            difficulty, heights, s=12, c=COLOURS[kind], alpha=0.65, linewidths=0, label=label
        )


def _frame_axes(axes: Axes, frame: MapFrame, jitter: float) -> None:
    axes.axvline(frame.difficulty_threshold, color="#555555", linestyle="--", linewidth=0.9)
    axes.axhline(frame.memorization_threshold, color="#555555", linestyle="--", linewidth=0.9)
    note = f"\n(drawn up to {jitter:.3g} too low, so that ties show)" if jitter else ""
    axes.set_xlabel(difficulty_label(frame.num_early))
    axes.set_ylabel(score_label(frame.axis) + note)
    _declutter(axes)

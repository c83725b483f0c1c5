"""A finished workspace -> the two pictures of the README and of the docs.

Run: python benchmarks/pictures.py WORKSPACE. Writes docs/pictures/map.png and arms.png.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PICTURES: Final = Path(__file__).resolve().parent.parent / "docs/pictures"
MAX_BYTES: Final = 200_000
COLOURS: Final = ("#0072B2", "#D55E00")


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, help="a folder in which gdc run has ended")
    workspace = parser.parse_args().workspace
    PICTURES.mkdir(exist_ok=True)
    shutil.copyfile(workspace / "reports/data_map.png", PICTURES / "map.png")
    draw_arms(arms_of(workspace), PICTURES / "arms.png")
    for picture in (PICTURES / "map.png", PICTURES / "arms.png"):
        if picture.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{picture}: expected at most {MAX_BYTES:,} bytes. Draw it smaller.")


def arms_of(workspace: Path) -> pl.DataFrame:
    """What every retrained model gives away and costs: one row is an arm under one seed.

    Returns:
        ``arm``; ``seed``; ``extraction``, percent of the planted secrets; ``perplexity``, change
        against the arm that keeps everything with the same seed, percent.
    """
    rows = []
    for path in sorted((workspace / "data/audits").glob("*.parquet")):
        arm, _, seed = path.stem.rpartition("-")
        planted = pl.read_parquet(path).filter(pl.col("num_repeats") > 0)
        extraction = 100 * planted["extracted"].cast(pl.Float64).mean()  # type: ignore[operator]
        rows.append((arm, seed, extraction, perplexity_of(workspace, path.stem)))
    arms = pl.DataFrame(rows, schema=["arm", "seed", "extraction", "perplexity"], orient="row")
    kept = arms.filter(arm="none").select("seed", kept="perplexity")
    return (
        arms.filter(pl.col("arm") != "tracked")
        .join(kept, on="seed", maintain_order="left")
        .with_columns(perplexity=100 * (pl.col("perplexity") / pl.col("kept") - 1))
        .drop("kept")
    )


def perplexity_of(workspace: Path, cell: str) -> float:
    """Held-out perplexity of one model."""
    metrics: Mapping[str, float] = json.loads((workspace / f"metrics/{cell}.json").read_text())
    return metrics["perplexity"]


def draw_arms(arms: pl.DataFrame, path: Path) -> None:
    """Draw both numbers of each arm: a bar is the mean over seeds, a dot one seed."""
    figure = Figure(figsize=(10, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("planted secrets extracted, %", "change of held-out perplexity, %")
    for axes, column, title, colour in zip(
        panels, ("extraction", "perplexity"), titles, COLOURS, strict=True
    ):
        draw_bars(axes, arms, column, colour)
        axes.set_xlabel(title)
    num_seeds = arms["seed"].n_unique()
    figure.suptitle(f"Retrained under each plan: mean and each of {num_seeds} seeds", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})


def draw_bars(axes: Axes, arms: pl.DataFrame, column: str, colour: str) -> None:
    """One bar an arm, the first at the top."""
    means = arms.group_by("arm", maintain_order=True).agg(pl.col(column).mean())
    names = means["arm"].to_list()
    places = {name: len(names) - 1 - index for index, name in enumerate(names)}
    axes.barh(list(places.values()), means[column], color=colour, alpha=0.55, height=0.6)
    heights = [places[arm] for arm in arms["arm"]]
    axes.plot(arms[column], heights, "o", color="#222222", markersize=5)
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.set_yticks(list(places.values()), names)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)


if __name__ == "__main__":
    main()

"""Questions of the page of `gdc ui` over many texts, against a plain sort of the table.

python benchmarks/texts.py          # prints
python benchmarks/texts.py --write  # and writes the table to docs/results/speed.md
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import result_pages
from machine import machine
from table import Row, render
from timing import timed

from gdc.report.page_data import PageFrame
from gdc.report.texts_on_disk import NUM_LISTED, Query, TextsOnDisk
from gdc.schema import QUADRANTS, SAMPLES

MAX_SECONDS: Final = 1.0  # for any question
NUM_TIMES: Final = 3  # each is asked
WORDS: Final = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "lmnrst"]
NUM_WORDS: Final = 16
RARE: Final = "needle"
CHUNK: Final = 500_000
FRAME: Final = PageFrame("std", 2, {"std": 1.0}, {"top": 0}, 100, show_text=True)
BASE: Final = Query("difficulty", "std", sort="std")
QUESTIONS: Final = {
    "all texts, the highest of a score": BASE,
    "a quadrant, by another score": Query(
        "difficulty", "std", quadrant="hotspot-memorized", sort="difficulty"
    ),
    "a box and an action": Query(
        "difficulty", "std", box=(2.0, 3.0, 0.5, 2.0), arm="top", action="drop", sort="std"
    ),
    "sorted by source, page 1,000": Query("difficulty", "std", sort="source", first=12_000),
    "a rare word in all texts": Query("difficulty", "std", search=RARE, sort="std"),
    "a part of a source": Query("difficulty", "std", source="file-77.txt", sort="std"),
}


def main() -> None:
    """Make the table where it is not there yet, ask every question, print the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path("work/texts-benchmark"))
    parser.add_argument("--write", action="store_true", help="write the table to the docs")
    options = parser.parse_args()
    (options.folder / "work").mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    path = Path(f"samples-{options.rows}.parquet")
    if not path.exists():
        write_samples(path, options.rows)
    texts = TextsOnDisk(path, FRAME)
    first = timed(lambda: texts.listed(BASE))
    plain = timed(lambda: sorted_plainly(path))
    rows = [
        Row(f"{name}, of {MAX_SECONDS:g} s", seconds, MAX_SECONDS, "<=", 1.0)
        for name, seconds in seconds_of(texts).items()
    ]
    rows.append(Row("the first of them, of a plain sort", rows[0].ours, plain, "<=", 0.5))
    rows.append(Row("once: the index, of a plain sort", first, plain))
    size = path.stat().st_size / 2**30
    about = f"{machine()}. {options.rows:,} texts, {size:.1f} GiB of Parquet."
    text = f"{about}\n\n{render(rows)}"
    sys.stdout.write(text)
    if options.write:
        result_pages.put("benchmarks/texts.py", text)


def seconds_of(texts: TextsOnDisk) -> dict[str, float]:
    """Seconds for each question, by its name: the shortest of a few times."""
    works: dict[str, Callable[[], object]] = {
        name: partial(texts.listed, query) for name, query in QUESTIONS.items()
    }
    works["the map of all texts"] = partial(texts.density, BASE)
    return {name: min(timed(work) for _ in range(NUM_TIMES)) for name, work in works.items()}


def sorted_plainly(path: Path) -> pl.DataFrame:
    """The rows of ``BASE`` without an index: filtered, sorted and cut by polars."""
    first = pl.col("sample_id").str.ends_with("-0")
    return (
        pl.scan_parquet(path)
        .filter(pl.col("split") == "train", first, pl.col("canary").is_null())
        .sort("std", "sample_id", descending=[True, False], nulls_last=True)
        .head(NUM_LISTED)
        .collect(engine="streaming")
    )


def write_samples(path: Path, num_rows: int) -> None:
    """A ``SAMPLES`` table of random texts with random scores, in the order of their ids."""
    columns = pl.Schema([*SAMPLES.items(), ("std", pl.Float64()), ("action_top", pl.String())])
    temporary = path.with_suffix(".part")
    schema = columns.to_frame().to_arrow().schema
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, num_rows, CHUNK):
            chunk = _samples(start, min(CHUNK, num_rows - start)).select(columns.names())
            writer.write_table(
                chunk.cast(columns).to_arrow().cast(schema), row_group_size=CHUNK // 5
            )
    temporary.rename(path)


def _samples(start: int, count: int) -> pl.DataFrame:
    rng = np.random.default_rng(start)
    words = pl.Series(WORDS)
    text = pl.select(
        pl.concat_str(
            [words.gather(rng.integers(len(WORDS), size=count)) for _ in range(NUM_WORDS)],
            separator=" ",
        )
    ).to_series()
    has_needle = pl.Series(rng.random(count) < 1e-5)
    content = pl.int_range(start, start + count, eager=True).cast(pl.String).str.zfill(32)
    quadrants = pl.Series(QUADRANTS).gather(rng.integers(len(QUADRANTS), size=count))
    std = rng.gamma(2.0, 0.3, size=count)
    return pl.DataFrame(
        {
            "sample_id": content + "-0",
            "content_id": content,
            "text": pl.select(
                pl.when(has_needle).then(text + f" {RARE}").otherwise(text)
            ).to_series(),
            "source": "file-" + pl.Series(rng.integers(1000, size=count)).cast(pl.String) + ".txt",
            "split": "train",
            "num_copies": 1,
            "num_tokens": NUM_WORDS,
            "quadrant": quadrants,
            "stability": rng.random(count),
            "difficulty": rng.normal(3.0, 1.0, size=count),
            "memorization": rng.random(count),
            "first_learned": rng.random(count),
            "never_learned": False,
            "std": std,
            "action_top": pl.select(
                pl.when(pl.Series(std > 1)).then(pl.lit("drop")).otherwise(pl.lit("keep"))
            ).to_series(),
        }
    ).with_columns(
        canary=pl.lit(None, pl.String),
        cause=pl.lit(None, pl.String),
        duplicate_ids=pl.lit([], pl.List(pl.String)),
        spans=pl.lit([], SAMPLES["spans"]),
    )


if __name__ == "__main__":
    main()

"""Builders of scores, corpora and curated data sets."""

from collections.abc import Sequence

import polars as pl

from gdc.curation.plans import curate
from gdc.schema import CORPUS, KEYS, SCORES


def curated(
    corpus: pl.DataFrame, quadrants: pl.DataFrame, plan: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    keys = pl.LazyFrame([("test:0", "k0")], schema=KEYS, orient="row")
    tables = curate(corpus.lazy(), keys, quadrants.lazy(), plan.lazy())
    return {name: table.collect() for name, table in tables.items()}


def scored_of(rows: Sequence[tuple[str, float, float | None, str]]) -> pl.DataFrame:
    """SCORES and quadrant from (sample_id, difficulty, memorization, quadrant)."""
    schema = pl.Schema([*SCORES.items(), ("quadrant", pl.String)])
    filled = [(i, d, m, None, True, quadrant) for i, d, m, quadrant in rows]
    return pl.DataFrame(filled, schema=schema, orient="row")


FIVE = scored_of(
    [
        ("e", 1.0, 0.0, "stable-easy"),
        ("a", 5.0, 0.0, "ambiguous-hard"),
        ("d", 2.0, 0.5, "hotspot-memorized"),
        ("c", 4.0, 0.5, "noisy-outlier"),
        ("b", 2.0, 0.5, "hotspot-memorized"),
    ]
)


def corpus_of(rows: Sequence[tuple[str, str, str | None]]) -> pl.DataFrame:
    """A CORPUS table from (sample_id, split, canary_id)."""
    filled = [(i, i, 1, f"text of {i}", 9, 3, "test:0", split, canary) for i, split, canary in rows]
    return pl.DataFrame(filled, schema=CORPUS, orient="row")


def quadrants_of(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.select("sample_id", "quadrant", stability=pl.lit(None, pl.Float64))

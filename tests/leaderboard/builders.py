"""Samples with a known memorization, half-models that measure it, and scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.evaluation import build_leaderboard
from gdc.leaderboard.inputs import TRAINED, HalfModels, ScoreTables
from gdc.recording.trace import Trace
from gdc.schema import REFERENCES
from tests.builders import trace_of

NUM_ORDINARY = 300


def make_samples() -> pl.DataFrame:
    """Ordinary text, two canaries planted once, two planted four times, one in between.

    Those planted more than once are extracted.
    """
    rows: list[tuple[str, str, str | None, int | None, bool | None]] = [
        (f"o{i:03}-0", f"o{i:03}", None, None, None) for i in range(NUM_ORDINARY)
    ]
    for name, repeats in (("c0", 1), ("c1", 1), ("c2", 2), ("c3", 4), ("c4", 4)):
        rows += [
            (f"{name}-{copy}", name, "digits", repeats, repeats > 1) for copy in range(repeats)
        ]
    return pl.DataFrame(rows, schema=TRAINED, orient="row").sort("sample_id")


def memorization_of(samples: pl.DataFrame) -> NDArray[np.float64]:
    """One draw for each content, plus the number of times that a canary was planted."""
    draws = np.random.default_rng(0).exponential(1, samples["content_id"].n_unique())
    by_content = dict(zip(samples["content_id"].unique().sort(), draws, strict=True))
    memorization = [by_content[name] for name in samples["content_id"]]
    num_repeats = samples["num_repeats"].fill_null(0).to_list()
    return np.array([a + b for a, b in zip(memorization, num_repeats, strict=True)])


def references_of(samples: pl.DataFrame, noise: float = 0.3) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    first = rng.random((samples.height, 4)) < 0.5
    seen = np.stack([first, ~first], axis=2).reshape(samples.height, 8)
    losses = 5 - seen * memorization_of(samples)[:, None] + rng.normal(0, noise, seen.shape)
    table = {"sample_id": samples["sample_id"], "loss": losses.tolist(), "seen": seen.tolist()}
    return pl.DataFrame(table, schema=REFERENCES)


def half_models_of(references: pl.DataFrame) -> HalfModels:
    """Three tokens a sample, the whole gap in the middle one, which every window of two holds."""
    losses = np.array(references.sort("sample_id")["loss"].to_list())
    lists = [
        pl.Series([[5.0, 3 * loss - 10, 5.0] for loss in column], dtype=pl.List(pl.Float64))
        for column in losses.T
    ]
    return HalfModels(references, lists, window_tokens=2)


def measured_memorization(references: pl.DataFrame) -> NDArray[np.float64]:
    losses = np.array(references["loss"].to_list())
    seen = np.array(references["seen"].to_list())
    pairs = [(row[~was].mean(), row[was].mean()) for row, was in zip(losses, seen, strict=True)]
    return np.array([out - inside for out, inside in pairs])


def scores_of(
    samples: pl.DataFrame, columns: Mapping[str, Sequence[float | None] | NDArray[np.float64]]
) -> pl.DataFrame:
    fixed = {
        "difficulty": [1.0] * samples.height,
        "memorization": [0.0] * samples.height,
        "first_learned": [None] * samples.height,
    }
    schema = dict.fromkeys((*fixed, *columns), pl.Float64)
    table = pl.DataFrame({**fixed, **columns}, schema=schema)
    return table.select(
        samples["sample_id"], *fixed, never_learned=pl.lit(value=False), **{c: c for c in columns}
    )


def trace_with_memorization(samples: pl.DataFrame) -> Trace:
    """A trace whose losses alternate between 9 and 9 minus the memorization."""
    curves = zip(samples["sample_id"], memorization_of(samples), strict=True)
    return trace_of({name: [9.0, 9.0 - value, 9.0, 9.0 - value] for name, value in curves})


def make_board() -> Leaderboard:
    """A perfect score, a random one and a perfect one that two of three samples lack."""
    samples = make_samples()
    references = references_of(samples)
    measured = measured_memorization(references)
    partial = [None if i % 3 else value for i, value in enumerate(measured)]
    draws = np.random.default_rng(5).random((2, samples.height))
    tables = [
        scores_of(samples, {"final_loss": measured, "random": draw, "reference_gap": partial})
        for draw in draws
    ]
    # As stage `score` writes them.
    runs = [table.drop("first_learned", "never_learned") for table in tables]
    shuffled = samples.sample(fraction=1, shuffle=True, seed=3)
    trace = trace_with_memorization(samples)
    mixed = tables[0].sample(fraction=1, shuffle=True, seed=1)
    scores = ScoreTables(mixed, runs, [trace], "online", {"final_loss": 0.0123}, 4)
    return build_leaderboard(shuffled, half_models_of(references), scores, seed=0)

"""Loss trace -> difficulty, memorization and every enabled score, one row per sample.

Every registered score is higher the more a sample is taken to be memorized.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Final

import polars as pl

from gdc.config import ScoreConfig, Threshold
from gdc.corpus import hash_order
from gdc.errors import ConfigError, DataError
from gdc.trace import Trace

Columns = Sequence[str]


def difficulty(columns: Columns, num_early: int) -> pl.Expr:
    """Mean loss over the first checkpoints, nats per token; high: hard to learn.

    Source: arXiv:2509.00083, with ``num_early`` for T_e.
    """
    return pl.mean_horizontal(*_float64(columns[:num_early]))


def memorization(columns: Columns, epsilon: float) -> pl.Expr:
    """Share of checkpoint steps, in [0, 1], that forget: below ``epsilon`` before, above it after.

    A loss equal to ``epsilon`` is neither, so no event touches it. With T checkpoints there are at
    most floor(T / 2) events. Needs: the trace. Cost: none.

    Source: arXiv:2509.00083; forget events: Toneva et al. 2019, arXiv:1812.05159.
    """
    steps = list(pairwise(_float64(columns)))
    # Kleene logic: `null & False` is False, so the steps that exist are counted by themselves.
    events = _count([(before < epsilon) & (after > epsilon) for before, after in steps])
    existing = _count([before.is_not_null() & after.is_not_null() for before, after in steps])
    return pl.when(existing > 0).then(events / existing)


def first_learned(columns: Columns, epsilon: float) -> pl.Expr:
    """Ordinal of the first checkpoint with a loss below ``epsilon``; null: there is none."""
    return pl.coalesce(
        pl.when(loss < epsilon).then(pl.lit(float(t))) for t, loss in enumerate(_float64(columns))
    )


def final_loss(columns: Columns) -> pl.Expr:
    """Minus the last loss, nats per token. Needs: the trace. Cost: none."""
    return -pl.col(columns[-1]).cast(pl.Float64)


def initial_loss(columns: Columns) -> pl.Expr:
    """The first loss, nats per token: rare text is memorized first. Needs: the trace. Cost: none.

    Online losses of the first pass predate the sample's first update.
    """
    return pl.col(columns[0]).cast(pl.Float64)


def mean_loss(columns: Columns) -> pl.Expr:
    """Minus the mean loss of all checkpoints, nats per token. Needs: the trace. Cost: none."""
    return -pl.mean_horizontal(*_float64(columns))


def min_loss(columns: Columns) -> pl.Expr:
    """Minus the smallest loss, nats per token. Needs: the trace. Cost: none."""
    return -pl.min_horizontal(*_float64(columns))


def num_copies(columns: Columns) -> pl.Expr:
    """Exact copies of the text in the training split, at least 1. Needs: the corpus. Cost: none.

    Source: Lee et al. 2022, arXiv:2107.06499.
    """
    del columns
    return pl.col("num_copies").cast(pl.Float64)


def random(columns: Columns) -> pl.Expr:
    """A uniform number in [0, 1), a hash of the sample's id and the seed: the null score."""
    del columns
    return pl.col("draw")


REGISTRY: Final[Mapping[str, Callable[[Columns], pl.Expr]]] = {
    "final_loss": final_loss,
    "initial_loss": initial_loss,
    "mean_loss": mean_loss,
    "min_loss": min_loss,
    "num_copies": num_copies,
    "random": random,
}


def require_registered(names: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless every name of ``score.enabled`` is registered."""
    unknown = sorted(set(names) - set(REGISTRY))
    if unknown:
        raise ConfigError(f"score.enabled: expected names of {sorted(REGISTRY)}, got {unknown}")


def score_samples(
    traces: Sequence[Trace], copies: pl.DataFrame, config: ScoreConfig, *, seed: int
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Score every sample of the tracked runs.

    Args:
        traces: One trace for each tracked run, with the same samples.
        copies: Table with ``sample_id`` and ``num_copies``; it holds every sample of the traces.
        config: Checkpoints to read, epsilon, the early checkpoints, scores to write.
        seed: Seed of the score ``random``.

    Returns:
        The ``SCORES`` table with one more column for every enabled score, sorted by ``sample_id``,
        and a summary for ``scores.json``. Scores are means over the runs; ``never_learned`` holds
        in all of them.

    Raises:
        ConfigError: An enabled score is not registered.
        DataError: The traces hold different samples, too few checkpoints or no loss.
    """
    require_registered(config.enabled)
    num_checkpoints = min(len(trace.columns(config.mode)) for trace in traces)
    if num_checkpoints < 2:
        raise DataError(
            f"data/trace: expected at least 2 {config.mode} checkpoints, got {num_checkpoints}. "
            "Re-run stage train or change score.mode."
        )
    epsilon = epsilon_of(traces, config.mode, config.epsilon)
    tables = [_score_run(trace, copies, config, epsilon, seed) for trace in traces]
    if any(not table["sample_id"].equals(tables[0]["sample_id"]) for table in tables):
        raise DataError("data/trace: the tracked runs hold different samples. Re-run stage train.")
    scores = _mean_over_runs(tables)
    return scores, _summary(scores, traces, config, epsilon)


def epsilon_of(traces: Sequence[Trace], mode: str, threshold: Threshold) -> float:
    """The forget threshold in nats per token: as given, or a quantile of all recorded losses.

    Raises:
        DataError: A quantile is asked for and no loss is recorded.
    """
    if threshold.kind == "absolute":
        return threshold.value
    losses = pl.concat(
        [
            trace.losses.select(pl.col(name).alias("loss"))
            for trace in traces
            for name in trace.columns(mode)
        ]
    )
    quantile = pl.col("loss").cast(pl.Float64).quantile(threshold.value, interpolation="linear")
    epsilon = losses.select(quantile).collect().item()
    if epsilon is None:
        raise DataError(
            f"data/trace: expected {mode} losses, got no loss in {len(traces)} run(s). "
            "Re-run stage train or change score.mode."
        )
    return float(epsilon)


def _score_run(
    trace: Trace, copies: pl.DataFrame, config: ScoreConfig, epsilon: float, seed: int
) -> pl.DataFrame:
    columns = trace.columns(config.mode)
    draws = hash_order(trace.index["sample_id"].to_list(), seed=seed, purpose="random")
    samples = (
        trace.index.select("sample_id")
        .join(
            copies.select("sample_id", "num_copies"),
            on="sample_id",
            how="left",
            maintain_order="left",
        )
        .with_columns(draw=pl.Series(draws, dtype=pl.UInt64) / 2**64)
    )
    return (
        pl.concat([samples.lazy(), trace.losses], how="horizontal")
        .select(
            "sample_id",
            difficulty=difficulty(columns, config.num_early),
            memorization=memorization(columns, epsilon),
            first_learned=first_learned(columns, epsilon),
            never_learned=first_learned(columns, epsilon).is_null(),
            **{name: REGISTRY[name](columns) for name in config.enabled},
        )
        .sort("sample_id")
        .collect()
    )


def _mean_over_runs(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    if len(tables) == 1:
        return tables[0]
    return (
        pl.concat(tables)
        .group_by("sample_id")
        .agg(
            pl.all().exclude("sample_id", "never_learned").mean(),
            pl.col("never_learned").all(),
        )
        .select(tables[0].columns)
        .sort("sample_id")
    )


def _summary(
    scores: pl.DataFrame, traces: Sequence[Trace], config: ScoreConfig, epsilon: float
) -> dict[str, Any]:
    num_distinct = scores["memorization"].n_unique()
    warnings = []
    if num_distinct < 5:
        warnings.append(
            f"memorization has only {num_distinct} distinct values: who is above a percentile is "
            "decided by ties. Record more checkpoints (training.epochs, train.probes_per_epoch)."
        )
    never = int(scores["never_learned"].sum())
    if never > scores.height / 2:
        warnings.append(
            f"{never} of {scores.height} samples were never below epsilon, so they cannot be "
            "forgotten: their memorization of 0 says nothing. Raise score.epsilon or train longer."
        )
    return {
        "mode": config.mode,
        "epsilon": epsilon,
        "num_checkpoints": len(traces[0].columns(config.mode)),
        "num_early": config.num_early,
        "num_samples": scores.height,
        "num_seeds": len(traces),
        "num_never_learned": never,
        "num_distinct_memorization": num_distinct,
        "warnings": warnings,
    }


def _float64(columns: Columns) -> list[pl.Expr]:
    return [pl.col(name).cast(pl.Float64) for name in columns]


def _count(conditions: Sequence[pl.Expr]) -> pl.Expr:
    return reduce(add, [c.fill_null(value=False).cast(pl.Int64) for c in conditions])

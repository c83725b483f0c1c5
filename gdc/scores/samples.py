"""Traces of the tracked runs -> the table of scores and its summary."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from gdc.config import ScoreConfig, Threshold
from gdc.corpus import hash_order, zlib_size
from gdc.errors import DataError
from gdc.scores.recorded import hard_tokens_of
from gdc.scores.references import References, references_of
from gdc.scores.registry import (
    Evidence,
    expression,
    needs_of,
    require_given,
    require_registered,
)
from gdc.scores.trace_scores import difficulty, first_learned, memorization
from gdc.trace import Trace


class Scored(NamedTuple):
    """What the tracked runs say of every sample.

    Attributes:
        samples: ``SCORES`` with one more column for every enabled score, sorted by ``sample_id``:
            means over the runs; ``never_learned`` holds in all of them.
        summary: For ``scores.json``.
        by_run: ``SCORES_BY_RUN`` with the same columns; no row where there is one run.
    """

    samples: pl.DataFrame
    summary: dict[str, Any]
    by_run: pl.DataFrame


@dataclass(frozen=True)
class _Inputs:
    """What does not differ between the runs."""

    corpus: pl.DataFrame
    references: References | None
    config: ScoreConfig
    epsilon: float
    seed: int


def score_samples(
    traces: Sequence[Trace],
    corpus: pl.DataFrame,
    config: ScoreConfig,
    *,
    seed: int,
    references: pl.DataFrame | None = None,
) -> Scored:
    """Score every sample of the tracked runs.

    Args:
        traces: One trace for each tracked run, with the same samples and with what else the enabled
            scores read of it.
        corpus: Table with ``sample_id`` and what the enabled scores need of ``num_copies`` and
            ``text``; it holds every sample of the traces.
        config: Checkpoints to read, epsilon, the early checkpoints, scores to write.
        seed: Seed of the score ``random``.
        references: ``REFERENCES`` table, for the scores that need it.

    Raises:
        ConfigError: An enabled score is not registered, or what it needs is not at hand.
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
    inputs = _Inputs(
        _corpus_columns(corpus, needs_of(config.enabled)),
        None if references is None else references_of(references),
        config,
        epsilon,
        seed,
    )
    tables = [_score_run(trace, inputs) for trace in traces]
    if any(not table["sample_id"].equals(tables[0]["sample_id"]) for table in tables):
        raise DataError("data/trace: the tracked runs hold different samples. Re-run stage train.")
    samples = _mean_over_runs(tables)
    summary = _summary(samples, traces, config, epsilon)
    return Scored(samples, summary, _by_run(tables))


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


def _corpus_columns(corpus: pl.DataFrame, needs: Collection[str]) -> pl.DataFrame:
    """``sample_id`` and those columns of the corpus that are needed and at hand."""
    columns = [pl.col("sample_id")]
    columns += [
        pl.col(name)
        for name in ("num_copies", "content_id")
        if name in needs and name in corpus.columns
    ]
    if "zlib_size" in needs and "text" in corpus.columns:
        columns.append(pl.col("text").map_elements(zlib_size, pl.Int64).alias("zlib_size"))
    return corpus.select(columns)


def _score_run(trace: Trace, inputs: _Inputs) -> pl.DataFrame:
    config = inputs.config
    evidence = _evidence_of(trace, inputs)
    require_given(config.enabled, evidence)
    columns, epsilon = evidence.columns, evidence.epsilon
    return (
        pl.concat([_samples_of(trace, inputs, evidence).lazy(), trace.losses], how="horizontal")
        .select(
            "sample_id",
            difficulty=difficulty(columns, config.num_early),
            memorization=memorization(columns, epsilon),
            first_learned=first_learned(columns, epsilon),
            never_learned=first_learned(columns, epsilon).is_null(),
            **{name: expression(name, evidence) for name in config.enabled},
        )
        .sort("sample_id")
        .collect()
    )


def _evidence_of(trace: Trace, inputs: _Inputs) -> Evidence:
    given = {
        name: pl.col(name) if name in inputs.corpus.columns else None
        for name in ("num_copies", "zlib_size", "content_id")
    }
    online, probes = trace.columns("online"), trace.columns("probe")
    tokens = trace.tokens if "tokens" in needs_of(inputs.config.enabled) else None
    return Evidence(
        columns=trace.columns(inputs.config.mode),
        both_modes=(online, probes) if len(online) > 1 and probes else None,
        trace=trace,
        epsilon=inputs.epsilon,
        band=inputs.config.hysteresis,
        num_tokens=pl.col("num_tokens"),
        draw=pl.col("draw"),
        heldout=_heldout_of(trace, inputs),
        references=inputs.references,
        tokens=None if tokens is None else hard_tokens_of(tokens),
        gain=None if trace.gains is None else pl.col("gain"),
        **given,
    )


def _heldout_of(trace: Trace, inputs: _Inputs) -> pl.DataFrame | None:
    """The held-out samples with their losses, sorted by id; None if they are none or not needed."""
    if trace.heldout_index.is_empty() or "heldout" not in needs_of(inputs.config.enabled):
        return None
    samples = _joined(trace.heldout_index, inputs.corpus)
    table = pl.concat([samples.lazy(), trace.heldout_losses], how="horizontal")
    columns = trace.columns(inputs.config.mode)
    return table.select(*samples.columns, *columns).sort("sample_id").collect()


def _samples_of(trace: Trace, inputs: _Inputs, evidence: Evidence) -> pl.DataFrame:
    """What is known of each sample besides its losses, in the order of the trace."""
    samples = _joined(trace.index, inputs.corpus)
    if inputs.references is not None:
        samples = _joined(samples, inputs.references.table)
    if evidence.tokens is not None:
        samples = _joined(samples, evidence.tokens.samples)
    if trace.gains is not None:
        samples = _joined(samples, trace.gains)
    draws = hash_order(samples["sample_id"].to_list(), seed=inputs.seed, purpose="random")
    return samples.with_columns(draw=pl.Series(draws, dtype=pl.UInt64) / 2**64)


def _joined(samples: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return samples.join(table, on="sample_id", how="left", maintain_order="left")


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


def _by_run(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Everything that the mean hides; nothing where it hides nothing."""
    hidden = tables if len(tables) > 1 else [tables[0].clear()]
    return pl.concat(
        table.select(
            pl.lit(run, pl.Int64).alias("run"), pl.all().exclude("first_learned", "never_learned")
        )
        for run, table in enumerate(hidden)
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

"""Traces of the tracked runs -> the table of scores and its summary.

The losses stay on disk and are read a block of samples at a time for every score of ``STREAMED``.
Memory holds the other data of each sample (ids, held-out samples, references), the table of scores
and, for ``relative_area``, a few columns. ``scan_scores`` holds none of these.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final, NamedTuple

import polars as pl

from gdc.config import ScoreConfig
from gdc.corpus.halves import with_near_copies
from gdc.errors import ConfigError, DataError
from gdc.recording.trace import Trace, TraceScan
from gdc.schema import Chunks
from gdc.scores.distilled_tokens import ReferenceTokens
from gdc.scores.epsilon import epsilon_of
from gdc.scores.ngrams import half_nats, ngram_nats
from gdc.scores.recorded import recorded_tokens_of
from gdc.scores.references import References, references_of
from gdc.scores.registry import (
    REGISTRY,
    STREAMED,
    ScoreInputs,
    expression,
    reads_of,
    require_given,
    require_registered,
)
from gdc.scores.summary import ScoresSummary, summarize, without_value
from gdc.scores.trace_scores import difficulty, first_learned, mean, memorization, never_learned
from gdc.statistics.hashing import hash_order, zlib_size

# Of ``SCORES`` besides difficulty: in every table of the pipeline, and in a map that asks for them.
FORGETTING: Final = ("memorization", "first_learned", "never_learned")

# What a score may need of the corpus, as expressions over its columns.
_CORPUS_NEEDS: Final[Mapping[str, pl.Expr]] = {
    "num_copies": pl.col("num_copies"),
    "content_id": pl.col("content_id"),
    "zlib_size": pl.col("text").map_elements(zlib_size, pl.Int64),
}
_NGRAM_COLUMNS: Final = ["text", "num_copies"]


class Scored(NamedTuple):
    """Scores of every sample of the tracked runs.

    Attributes:
        samples: ``SCORES`` with one more column for every enabled score, sorted by ``sample_id``:
            means over the runs; ``never_learned`` holds in all of them.
        summary: Of the means.
        by_run: ``SCORES_BY_RUN`` with the same columns; no row where there is one run.
    """

    samples: pl.DataFrame
    summary: ScoresSummary
    by_run: pl.DataFrame


@dataclass(frozen=True)
class _Shared:
    """What all runs share."""

    corpus: pl.DataFrame
    references: References | None
    reference_tokens: pl.DataFrame | None
    config: ScoreConfig
    reads: frozenset[str]
    epsilon: float
    seed: int


def score_samples(  # noqa: PLR0913 - what the models of halves know of the samples
    traces: Sequence[Trace],
    corpus: Chunks,
    config: ScoreConfig,
    *,
    seed: int,
    references: pl.DataFrame | None = None,
    reference_tokens: pl.DataFrame | None = None,
    duplicates: pl.DataFrame | None = None,
) -> Scored:
    """Score every sample of the tracked runs.

    Args:
        traces: One trace for each tracked run, with the same samples and with what else the enabled
            scores read of a run.
        corpus: Table with the columns of ``corpus_columns`` and every sample of the traces. Memory
            holds the texts of one chunk at a time.
        config: Checkpoints to read, epsilon, the early checkpoints, scores to write.
        seed: Seed of the score ``random``.
        references: ``REFERENCES`` table, for the scores that need it.
        reference_tokens: ``sample_id`` and the losses of all tokens under each reference model, a
            list column for each in their order; None: not recorded.
        duplicates: ``NEAR_DUPLICATES`` that fell into the same halves; None: there are none.

    Raises:
        ConfigError: An enabled score is not registered, or what it needs is missing.
        DataError: The traces hold different samples, too few checkpoints or no loss.
    """
    require_registered(config.enabled)
    for trace in traces:
        _require_checkpoints(trace, config.mode)
    epsilon = epsilon_of(traces, config.mode, config.epsilon)
    has_gains = any(trace.gains is not None for trace in traces)
    reads = reads_of(config.enabled, has_gains=has_gains)
    inputs = _corpus_inputs(corpus, reads, traces[0].index["sample_id"])
    if references is not None and "half_nats" in reads:
        inputs = _with_half_nats(inputs, corpus, references, duplicates)
    shared = _Shared(
        inputs,
        None if references is None else references_of(references),
        reference_tokens,
        config,
        reads,
        epsilon,
        seed,
    )
    tables = [_score_run(trace, shared) for trace in traces]
    if any(not table["sample_id"].equals(tables[0]["sample_id"]) for table in tables):
        raise DataError("data/trace: the tracked runs hold different samples. Re-run stage train.")
    samples = _mean_over_runs(tables)
    num_checkpoints = len(traces[0].columns(config.mode))
    summary = summarize(samples.lazy(), config, epsilon, num_checkpoints)
    warnings = (*summary.warnings, *without_value(samples, config.enabled))
    summary = replace(summary, num_seeds=len(traces), warnings=warnings)
    return Scored(samples, summary, _by_run(tables))


def corpus_columns(names: Sequence[str]) -> list[str]:
    """Columns of the corpus that these scores read; none tells which rows are canaries."""
    reads = reads_of(names)
    read = [value.meta.root_names() for need, value in _CORPUS_NEEDS.items() if need in reads]
    if {"ngram_nats", "half_nats"} & reads:
        read.append(_NGRAM_COLUMNS)
    return list(dict.fromkeys(["sample_id", *chain.from_iterable(read)]))


def scan_scores(trace: TraceScan, config: ScoreConfig) -> tuple[pl.LazyFrame, float | None]:
    """Score the samples of one run whose trace need not fit into memory.

    Returns:
        ``MAP`` with one more column for every enabled score, those of ``FORGETTING`` first and with
        ``never_learned`` beside ``memorization``, in the trace's row order, to be collected or
        written a block of samples at a time; and epsilon, nats per token, None where no score reads
        it.

    Raises:
        ConfigError: An enabled score is neither of ``FORGETTING`` nor of ``STREAMED``, so that it
            reads more than the losses.
        DataError: The trace holds too few checkpoints or no loss.
    """
    known = (*FORGETTING, *STREAMED)
    others = sorted(set(config.enabled) - set(known))
    if others:
        raise ConfigError(f"score: expected names of {list(known)}, got {others}.")
    if len(set(config.enabled)) < len(config.enabled):
        raise ConfigError(f"score: expected every name once, got {list(config.enabled)}.")
    _require_checkpoints(trace, config.mode)
    epsilon = None
    if reads_epsilon(config.enabled):
        epsilon = epsilon_of([trace], config.mode, config.epsilon)
    return trace.samples.select(_scanned(trace.columns(config.mode), config, epsilon)), epsilon


def reads_epsilon(names: Sequence[str]) -> bool:
    """Whether one of the scores reads epsilon, a quantile of which takes a look at all losses."""
    return any(name in FORGETTING or "epsilon" in REGISTRY[name].arguments for name in names)


def columns_read(columns: tuple[str, ...], config: ScoreConfig) -> list[str]:
    """Those of the loss columns that ``scan_scores`` reads, but for a quantile of all losses."""
    # Any epsilon will do.
    read = {name for value in _scanned(columns, config, 1.0) for name in value.meta.root_names()}
    return [name for name in columns if name in read]


def _scanned(columns: tuple[str, ...], config: ScoreConfig, epsilon: float | None) -> list[pl.Expr]:
    # Where no score reads it, it is no number.
    inputs = _streamed_inputs(columns, config, math.nan if epsilon is None else epsilon)
    asked = {*config.enabled}
    if "memorization" in asked:
        # Which says of what samples a memorization of 0 says nothing.
        asked.add("never_learned")
    return _scores(inputs, config, [name for name in FORGETTING if name in asked])


def score_unseen(traces: Sequence[Trace], config: ScoreConfig, epsilon: float) -> pl.DataFrame:
    """Score held-out samples and twins as if they had been trained on.

    Args:
        traces: Of the tracked runs.
        config: As for the training samples; only its scores of ``STREAMED`` are written.
        epsilon: That of the training samples.

    Returns:
        ``UNSEEN_SCORES``, means over the runs, with the columns of ``SCORES`` and the scores; no
        row for ``mode: online``, which asks held-out samples later than samples that it trains on.
    """
    enabled = tuple(name for name in config.enabled if name in STREAMED)
    streamed = config.model_copy(update={"enabled": enabled})
    tables = [
        pl.concat([index.lazy(), losses], how="horizontal").select(
            _scores(_streamed_inputs(trace.columns(config.mode), config, epsilon), streamed)
        )
        for trace in traces
        for index, losses in (
            (trace.heldout_index, trace.heldout_losses),
            (trace.twin_index, trace.twin_losses),
        )
        if losses is not None
    ]
    mean_scores = (
        pl.concat(tables)
        .drop("never_learned")
        .group_by("sample_id", maintain_order=True)
        .agg(pl.all().mean())
        .collect()
    )
    return mean_scores if config.mode == "probe" else mean_scores.clear()


def _streamed_inputs(columns: tuple[str, ...], config: ScoreConfig, epsilon: float) -> ScoreInputs:
    """What scores of ``STREAMED`` read, and nothing else."""
    return ScoreInputs(columns, epsilon, config.hysteresis, pl.col("num_tokens"))


def _require_checkpoints(trace: Trace | TraceScan, mode: str) -> None:
    num_checkpoints = len(trace.columns(mode))
    if num_checkpoints < 2:
        raise DataError(
            f"{trace.name}: expected at least 2 {mode} checkpoints, got {num_checkpoints}. "
            "Record more (in the pipeline: stage train), or change score.mode (--mode)."
        )


def _corpus_inputs(corpus: Chunks, needs: Collection[str], trained: pl.Series) -> pl.DataFrame:
    """``sample_id`` and those needs whose columns the corpus has."""
    inputs = pl.concat(
        chunk.select(
            "sample_id",
            **{
                need: value
                for need, value in _CORPUS_NEEDS.items()
                if need in needs and set(value.meta.root_names()) <= set(chunk.columns)
            },
        )
        for chunk in corpus
    )
    # Each further look at the corpus reads its texts again.
    if "ngram_nats" not in needs or not _has(corpus, *_NGRAM_COLUMNS):
        return inputs
    return _joined(inputs, ngram_nats(corpus, trained))


def _with_half_nats(
    inputs: pl.DataFrame, corpus: Chunks, halves: pl.DataFrame, duplicates: pl.DataFrame | None
) -> pl.DataFrame:
    if not _has(corpus, *_NGRAM_COLUMNS, "content_id"):
        return inputs
    near = pl.Series("sample_id", [], pl.String)
    if duplicates is not None:
        near = with_near_copies(inputs.select("sample_id", "content_id"), duplicates)
    return _joined(inputs, half_nats(corpus, halves, near))


def _has(corpus: Chunks, *names: str) -> bool:
    return set(names) <= set(next(iter(corpus)).columns)


def _score_run(trace: Trace, shared: _Shared) -> pl.DataFrame:
    config = shared.config
    inputs = _score_inputs(trace, shared)
    require_given(config.enabled, inputs)
    samples = pl.concat(
        [_sample_inputs(trace, shared, inputs).lazy(), trace.losses], how="horizontal"
    )
    scores = samples.select(_scores(inputs, config)).collect(engine="streaming")
    # Stage train writes the samples sorted.
    return scores if scores["sample_id"].is_sorted() else scores.sort("sample_id")


def _scores(
    inputs: ScoreInputs, config: ScoreConfig, forgetting: Sequence[str] = FORGETTING
) -> list[pl.Expr]:
    functions = zip(FORGETTING, (memorization, first_learned, never_learned), strict=True)
    further = [name for name in config.enabled if name not in FORGETTING]
    return [
        pl.col("sample_id"),
        difficulty(inputs.columns, config.num_early).alias("difficulty"),
        *(
            function(inputs.columns, inputs.epsilon).alias(name)
            for name, function in functions
            if name in forgetting
        ),
        *(expression(name, inputs).alias(name) for name in further),
    ]


def _score_inputs(trace: Trace, shared: _Shared) -> ScoreInputs:
    given = {
        name: pl.col(name) if name in shared.corpus.columns else None
        for name in ("num_copies", "zlib_size", "content_id", "ngram_nats", "half_nats")
    }
    online, probes = trace.columns("online"), trace.columns("probe")
    models = shared.reference_tokens
    tokens = trace.tokens if "tokens" in shared.reads else None
    return ScoreInputs(
        columns=trace.columns(shared.config.mode),
        both_modes=(online, probes) if len(online) > 1 and probes else None,
        trace=trace,
        epsilon=shared.epsilon,
        band=shared.config.hysteresis,
        num_tokens=pl.col("num_tokens"),
        draw=pl.col("draw"),
        heldout=_heldout_of(trace, shared),
        references=shared.references,
        tokens=None if tokens is None else recorded_tokens_of(tokens),
        reference_tokens=(
            None
            if models is None or trace.tokens is None
            else ReferenceTokens(models, trace.tokens[0])
        ),
        base=None if trace.base is None else pl.col("base_loss"),
        gain=None if trace.gains is None else pl.col("gain"),
        **given,
    )


def _heldout_of(trace: Trace, shared: _Shared) -> pl.DataFrame | None:
    """Held-out samples with their losses, sorted by id; None: no sample or no score needs them."""
    if trace.heldout_index.is_empty() or "heldout" not in shared.reads:
        return None
    samples = _joined(trace.heldout_index, shared.corpus)
    table = pl.concat([samples.lazy(), trace.heldout_losses], how="horizontal")
    return table.sort("sample_id").collect()


def _sample_inputs(trace: Trace, shared: _Shared, inputs: ScoreInputs) -> pl.DataFrame:
    """The data of each sample besides its losses, in the row order of the trace."""
    samples = _joined(trace.index, shared.corpus)
    if shared.references is not None:
        samples = _joined(samples, shared.references.table)
    if inputs.tokens is not None:
        samples = _joined(samples, inputs.tokens.samples)
    if trace.gains is not None:
        samples = _joined(samples, trace.gains)
    if trace.base is not None:
        samples = _joined(samples, trace.base.rename({"loss": "base_loss"}))
    if not any("draw" in REGISTRY[name].arguments for name in shared.config.enabled):
        return samples
    draws = hash_order(samples["sample_id"].to_list(), seed=shared.seed, purpose="random")
    return samples.with_columns(draw=pl.Series(draws, dtype=pl.UInt64) / 2**64)


def _joined(samples: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return samples.join(table, on="sample_id", how="left", maintain_order="left")


def _mean_over_runs(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    if len(tables) == 1:
        return tables[0]
    runs = range(len(tables))
    beside = pl.concat(
        [
            table.rename({name: f"{name}/{run}" for name in table.columns})
            for run, table in enumerate(tables)
        ],
        how="horizontal",
    )
    means = {
        name: mean([f"{name}/{run}" for run in runs])
        for name in tables[0].drop("sample_id", "never_learned").columns
    }
    return beside.select(
        pl.col("sample_id/0").alias("sample_id"),
        never_learned=pl.all_horizontal(f"never_learned/{run}" for run in runs),
        **means,
    ).select(tables[0].columns)


def _by_run(tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The tables of several runs; no row where there is one run."""
    shown = tables if len(tables) > 1 else [tables[0].clear()]
    return pl.concat(
        table.select(
            pl.lit(run, pl.Int64).alias("run"), pl.all().exclude("first_learned", "never_learned")
        )
        for run, table in enumerate(shown)
    )

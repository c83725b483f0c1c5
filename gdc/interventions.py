"""Scores and quadrants -> one plan per arm: keep, drop, weight, copy or mask, and why."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import (
    CapCopiesArm,
    DedupArm,
    NoneArm,
    QuadrantsArm,
    RandomArm,
    ScoreArm,
    TopFractionArm,
    WeightByScoreArm,
)
from gdc.corpus import hash_order
from gdc.duplicates import near_copies
from gdc.errors import ConfigError, DataError
from gdc.schema import CURATED, MASKED, PLAN, REMOVED, Batches
from gdc.tokens import Places, masked_tokens

_NOT_SCORED: Final = {
    "validation": "held out, not scored",
    "reserved": "text of a canary or its twin, not scored",
}


def make_plan(arm: ScoreArm, scored: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Apply one arm's rule.

    Args:
        arm: The rule and its numbers.
        scored: ``SCORES`` table with its extra columns and ``quadrant``; no label of any canary.
        seed: Seed of the random arm.

    Returns:
        ``PLAN`` table, one row per sample in the order of ``scored``. ``weight`` >= 0.

    Raises:
        ConfigError: The arm names a score that was not written.
    """
    if isinstance(arm, NoneArm):
        plan = scored.select(
            "sample_id", action=pl.lit("keep"), weight=1.0, copies=1, reason=pl.lit("no rule")
        )
    elif isinstance(arm, QuadrantsArm):
        plan = _by_quadrant(arm, scored)
    elif isinstance(arm, TopFractionArm):
        plan = _top_fraction(arm, scored)
    elif isinstance(arm, WeightByScoreArm):
        plan = _weight_by_score(arm, scored)
    else:
        plan = _random(arm, scored, seed)
    return _unmasked(plan.with_columns(pl.col("copies").cast(pl.Int64)))


def cap_copies_plan(
    arm: CapCopiesArm | DedupArm, scored: pl.DataFrame, texts: Batches, *, seed: int
) -> pl.DataFrame:
    """Drop what nearly copies a kept sample, beyond ``max_copies`` of them; deduplication keeps 1.

    Beside the kept sample its copies with the smallest ids stay; the reason names that twin.

    Args:
        arm: Threshold and size of the MinHash, and how many stay.
        scored: Table with the ``sample_id`` of every training sample.
        texts: Table with ``sample_id`` and ``text`` of the same samples.
        seed: Of the hash functions.

    Source: Lee et al. 2022, arXiv:2107.06499.
    """
    copies = near_copies(texts, arm, seed=seed)
    ordinal = pl.col("sample_id").rank("ordinal").over("twin_id")
    similarity = pl.col("similarity").round(3).cast(pl.String)
    reason = pl.lit("near copy of ") + pl.col("twin_id") + ", similarity " + similarity
    return _drop(
        scored, copies.filter(ordinal >= arm.max_copies).select("sample_id", reason=reason)
    )


def oracle_plan(scored: pl.DataFrame, planted: pl.Series) -> pl.DataFrame:
    """Drop the planted samples, whose ids no other rule may know: a bound, not a method."""
    return _drop(
        scored, pl.DataFrame({"sample_id": planted}).with_columns(reason=pl.lit("planted"))
    )


def mask_plan(scored: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Keep every sample and mask what it has memorized.

    Args:
        scored: Table with the ``sample_id`` of every training sample.
        spans: ``SPANS`` table.
    """
    of_samples = spans.group_by("sample_id", maintain_order=True).agg(
        masked=pl.struct("start", "end"), num_tokens=pl.col("num_tokens").sum()
    )
    reason = pl.lit("memorized spans of ") + pl.col("num_tokens").cast(pl.String) + " tokens"
    return (
        scored.select("sample_id")
        .join(of_samples, on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=pl.when(pl.col("masked").is_null())
            .then(pl.lit("keep"))
            .otherwise(pl.lit("mask")),
            weight=1.0,
            copies=pl.lit(1, pl.Int64),
            reason=reason.fill_null("no memorized span"),
            masked=pl.col("masked").fill_null([]),
        )
        .match_to_schema(PLAN)
    )


def shuffled_mask_plan(plan: pl.DataFrame, places: Sequence[Places], *, seed: int) -> pl.DataFrame:
    """Deal masked spans out to samples and places by chance: what the choice of tokens is worth.

    The spans of a sample go together to one drawn among those with tokens enough, and there to
    random places. As many samples are masked as in ``plan``, in spans of as many tokens; a
    token that shares a character with a span is masked with it, in both plans.

    Args:
        plan: ``PLAN`` table of ``mask_plan``.
        places: Of each sample's tokens, in the row order of ``plan``.
        seed: Of all draws.
    """
    rng = np.random.default_rng(seed)
    lengths = [
        _run_lengths(masked_tokens(of_sample, masked))
        for of_sample, masked in zip(places, plan["masked"].to_list(), strict=True)
    ]
    # The longest first: whatever was drawn before, one with tokens enough is left.
    givers = sorted(filter(None, lengths), key=sum, reverse=True)
    takers = sorted(range(len(places)), key=lambda row: len(places[row]))
    dealt: list[list[dict[str, int]]] = [[] for _ in places]
    drawn: list[int] = []
    for spans in givers:
        while takers and len(places[takers[-1]]) >= sum(spans):
            drawn.append(takers.pop())
        row = drawn.pop(int(rng.integers(len(drawn))))
        dealt[row] = _placed_at_random(spans, places[row], rng)
    masked = pl.Series("masked", dealt, dtype=MASKED)
    return plan.with_columns(
        masked,
        action=pl.Series(["mask" if spans else "keep" for spans in dealt], dtype=pl.String),
        reason=pl.lit("dealt out by chance"),
    )


def shuffled_plan(plan: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Deal another plan's rows out to samples by chance: what its choice of samples is worth.

    As many samples are dropped, weighted and copied as in ``plan``, which may mask none: see
    ``shuffled_mask_plan``.
    """
    draws = hash_order(plan["sample_id"].to_list(), seed=seed, purpose="shuffled arm")
    dealt = (
        plan.select("action", "weight", "copies")
        .with_columns(draw=pl.Series(draws, dtype=pl.UInt64))
        .sort("draw", maintain_order=True)
        .drop("draw")
    )
    return _unmasked(
        plan.select("sample_id").with_columns(dealt, reason=pl.lit("dealt out by chance"))
    )


def budget(fraction: float, num_samples: int) -> int:
    """Samples that a fraction below 1 stands for, rounded half up, but never all of them."""
    return min(math.floor(fraction * num_samples + 0.5), num_samples - 1)


def curate(
    corpus: pl.DataFrame, quadrants: pl.DataFrame, plan: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """The data set to train on after ``plan``, without any planted canary.

    Args:
        corpus: ``CORPUS`` table.
        quadrants: ``QUADRANT_TABLE`` of the training split.
        plan: ``PLAN`` table of the training split.

    Returns:
        By name: ``train``, and ``removed`` with what the plan drops of it (a ``REMOVED`` table);
        ``validation``, held-out text; ``reserved``, text that canaries or twins were made of, which
        a model may have been trained on. Their quadrant is null: they were not scored. Together
        the four hold every ordinary row of the corpus once.

    Raises:
        DataError: A training sample has no plan or no quadrant.
    """
    ordinary = corpus.filter(pl.col("canary_id").is_null())
    planned = (
        ordinary.filter(pl.col("split") == "train")
        .join(quadrants, on="sample_id", how="left", maintain_order="left")
        .join(plan, on="sample_id", how="left", maintain_order="left")
    )
    unplanned = planned.filter(pl.col("action").is_null() | pl.col("quadrant").is_null())
    if unplanned.height:
        raise DataError(
            "data/corpus.parquet: expected a plan and a quadrant for every training sample, "
            f"got {unplanned.height} without, first {unplanned['sample_id'][0]}. "
            "Re-run from stage train."
        )
    others = ordinary.with_columns(
        weight=pl.lit(1.0),
        copies=pl.lit(1, pl.Int64),
        quadrant=pl.lit(None, pl.String),
        reason=pl.col("split").replace_strict(_NOT_SCORED, default=None),
        masked=pl.lit([], MASKED),
    )
    dropped = pl.col("action") == "drop"
    return {
        "train": planned.filter(~dropped).select(CURATED.names()),
        "removed": planned.filter(dropped).select(REMOVED.names()),
        **{
            split: others.filter(pl.col("split") == split).select(CURATED.names())
            for split in _NOT_SCORED
        },
    }


def _drop(scored: pl.DataFrame, dropped: pl.DataFrame) -> pl.DataFrame:
    is_dropped = pl.col("reason").is_not_null()
    return _unmasked(
        scored.select("sample_id")
        .join(dropped, on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=pl.when(is_dropped).then(pl.lit("drop")).otherwise(pl.lit("keep")),
            weight=pl.when(is_dropped).then(0.0).otherwise(1.0),
            copies=pl.when(is_dropped).then(0).otherwise(1).cast(pl.Int64),
            reason=pl.col("reason").fill_null("not dropped"),
        )
    )


def _unmasked(plan: pl.DataFrame) -> pl.DataFrame:
    return plan.with_columns(masked=pl.lit([], MASKED)).match_to_schema(PLAN)


def _run_lengths(is_masked: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of masked tokens, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_masked, [False]])))
    return [int(length) for length in edges[1::2] - edges[::2]]


def _placed_at_random(
    lengths: Sequence[int], places: Places, rng: np.random.Generator
) -> list[dict[str, int]]:
    """Spans of so many tokens, in random order and without a common token."""
    shuffled = rng.permutation(np.array(lengths, dtype=np.int64))
    num_free = len(places) - int(shuffled.sum())
    # A span before each of the chosen ones among the free tokens and the spans themselves.
    slots = np.sort(rng.choice(num_free + len(lengths), size=len(lengths), replace=False))
    firsts = slots - np.arange(len(lengths)) + shuffled.cumsum() - shuffled
    return [
        {"start": places[first][0], "end": places[first + length - 1][1]}
        for first, length in zip(firsts.tolist(), shuffled.tolist(), strict=True)
    ]


def _by_quadrant(arm: QuadrantsArm, scored: pl.DataFrame) -> pl.DataFrame:
    quadrant = pl.col("quadrant")
    hotspot = quadrant == "hotspot-memorized"
    noisy = (quadrant == "noisy-outlier") & pl.lit(arm.drop_noisy)
    hard = quadrant == "ambiguous-hard"
    weight = pl.when(hotspot).then(arm.hotspot_weight).when(noisy).then(0.0).otherwise(1.0)
    copies = pl.when(hard).then(arm.hard_copies).when(weight == 0).then(0).otherwise(1)
    return scored.select(
        "sample_id", action=_action(weight, copies), weight=weight, copies=copies, reason=quadrant
    )


def _top_fraction(arm: TopFractionArm, scored: pl.DataFrame) -> pl.DataFrame:
    for name in (arm.score, arm.tie_break):
        _require_score(name, scored)
    columns = list(dict.fromkeys(["sample_id", arm.score, arm.tie_break]))
    # Only what may be chosen is sorted.
    best = scored[arm.score].top_k(budget(arm.fraction, scored.height))
    may_be_chosen = pl.col(arm.score) >= pl.lit(best.min(), pl.Float64)
    ranking = (
        scored.select(columns)
        .filter(may_be_chosen.fill_null(value=best.has_nulls()))
        .sort(
            arm.score, arm.tie_break, "sample_id", descending=[True, True, False], nulls_last=True
        )
    )
    return _weigh_first(ranking, scored, arm, f"by {arm.score}")


def _weight_by_score(arm: WeightByScoreArm, scored: pl.DataFrame) -> pl.DataFrame:
    _require_score(arm.score, scored)
    score = pl.col(arm.score).fill_nan(None)
    weight = 1 / (1 + score.clip(lower_bound=0).fill_null(0))
    copies = pl.when(weight == 0).then(0).otherwise(1)
    shown = pl.lit(f"{arm.score} ") + score.round(3).cast(pl.String)
    reason = shown.fill_null(f"no {arm.score}")
    return scored.select(
        "sample_id", action=_action(weight, copies), weight=weight, copies=copies, reason=reason
    )


def _require_score(name: str, scored: pl.DataFrame) -> None:
    known = [column for column, dtype in scored.schema.items() if dtype.is_float()]
    if name not in known:
        raise ConfigError(
            f"intervene.arms: expected a score of data/scores.parquet {known}, got {name!r}. "
            "Add it to score.enabled."
        )


def _random(arm: RandomArm, scored: pl.DataFrame, seed: int) -> pl.DataFrame:
    draws = hash_order(scored["sample_id"].to_list(), seed=seed, purpose="random arm")
    ranking = scored.with_columns(draw=pl.Series(draws, dtype=pl.UInt64)).sort("draw", "sample_id")
    return _weigh_first(ranking, scored, arm, "at random")


def _weigh_first(
    ranking: pl.DataFrame, scored: pl.DataFrame, arm: TopFractionArm | RandomArm, how: str
) -> pl.DataFrame:
    size = budget(arm.fraction, scored.height)
    ranks = ranking.select("sample_id").head(size).with_row_index("rank", offset=1)
    chosen = pl.col("rank").is_not_null()
    weight = pl.when(chosen).then(arm.weight).otherwise(1.0)
    copies = pl.when(weight == 0).then(0).otherwise(1)
    rank = pl.col("rank").cast(pl.String)
    return (
        scored.select("sample_id")
        .join(ranks, on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=_action(weight, copies),
            weight=weight,
            copies=copies,
            reason=pl.when(chosen)
            .then(pl.lit("rank ") + rank + pl.lit(f" of the {size} chosen {how}"))
            .otherwise(pl.lit(f"not chosen {how}")),
        )
    )


def _action(weight: pl.Expr, copies: pl.Expr) -> pl.Expr:
    return (
        pl.when(weight == 0)
        .then(pl.lit("drop"))
        .when(weight != 1)
        .then(pl.lit("weight"))
        .when(copies != 1)
        .then(pl.lit("copy"))
        .otherwise(pl.lit("keep"))
    )

"""Scores and quadrants -> one plan per arm: keep, drop, weight, copy or mask each sample, and why.

Plans are lazy, so that they are written without being in memory; memory holds what a rule ranks.
"""

import math
from collections.abc import Mapping
from typing import Final

import polars as pl

from gdc.config import (
    AXIS,
    Arm,
    CapCopiesArm,
    DedupArm,
    DpSgdArm,
    LiveArm,
    NoneArm,
    OrderArm,
    QuadrantsArm,
    RandomArm,
    ScoreArm,
    TopFractionArm,
    WeightByScoreArm,
)
from gdc.corpus.near_duplicates import near_copies
from gdc.errors import ConfigError, DataError
from gdc.schema import CURATED, MASKED, PLAN, REMOVED, Chunks
from gdc.statistics.hashing import hash_order

_NOT_SCORED: Final = {
    "validation": "held out, not scored",
    "reserved": "text of a canary or its twin, not scored",
}


def on_axis(arms: Mapping[str, Arm], axis: str) -> dict[str, Arm]:
    """The arms with the score that is the memorization axis where they say ``axis``."""
    return {
        name: arm.model_copy(update={"score": axis})
        if isinstance(arm, TopFractionArm | WeightByScoreArm | OrderArm) and arm.score == AXIS
        else arm
        for name, arm in arms.items()
    }


def make_plan(arm: ScoreArm, scored: pl.LazyFrame, *, seed: int) -> pl.LazyFrame:
    """Apply one arm's rule.

    Args:
        arm: The rule and its numbers.
        scored: ``SCORES`` table with its extra columns and ``quadrant``, without canary labels.
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
    elif isinstance(arm, OrderArm):
        plan = _order(arm, scored)
    elif isinstance(arm, LiveArm):
        plan = _live(arm, scored)
    elif isinstance(arm, DpSgdArm):
        plan = _private(arm, scored)
    else:
        plan = _random(arm, scored, seed)
    return _unmasked(plan.with_columns(pl.col("copies").cast(pl.Int64)))


def cap_copies_plan(
    arm: CapCopiesArm | DedupArm, scored: pl.LazyFrame, texts: Chunks, *, seed: int
) -> pl.LazyFrame:
    """Drop near copies of a kept sample beyond ``max_copies``; deduplication keeps 1.

    Besides the kept sample, its copies with the smallest ids stay; the reason names that sample.

    Args:
        arm: Threshold and size of the MinHash, and how many stay.
        scored: Table with the ``sample_id`` of every training sample.
        texts: Table with ``sample_id`` and ``text`` of the same samples.
        seed: Of the hash functions.

    Source: Lee et al. 2022, arXiv:2107.06499.
    """
    return drop_copies_plan(scored, near_copies(texts, arm, seed=seed), arm.max_copies)


def drop_copies_plan(scored: pl.LazyFrame, copies: pl.DataFrame, max_copies: int) -> pl.LazyFrame:
    """``cap_copies_plan`` of near copies that are known: a ``NEAR_DUPLICATES`` table."""
    ordinal = pl.col("sample_id").rank("ordinal").over("duplicate_of")
    similarity = pl.col("similarity").round(3).cast(pl.String)
    reason = pl.lit("near copy of ") + pl.col("duplicate_of") + ", similarity " + similarity
    return _drop(scored, copies.filter(ordinal >= max_copies).select("sample_id", reason=reason))


def oracle_plan(scored: pl.LazyFrame, planted: pl.Series) -> pl.LazyFrame:
    """Drop the planted samples, whose ids no other rule may read: a bound, not a method."""
    return _drop(
        scored, pl.DataFrame({"sample_id": planted}).with_columns(reason=pl.lit("planted"))
    )


def shuffled_plan(plan: pl.LazyFrame, *, seed: int) -> pl.LazyFrame:
    """Apply another plan's actions to random samples: the control of its choice of samples.

    As many samples are dropped, weighted and copied as in ``plan``, which must mask none: see
    ``span_masks.shuffled_mask_plan``. Memory holds the actions, weights and copies of all samples.
    """
    actions = (
        plan.select("action", "weight", "copies", draw=_draw(seed, "shuffled arm"))
        .sort("draw", maintain_order=True)
        .drop("draw")
        .collect()
    )
    beside = pl.concat([plan.select("sample_id"), actions.lazy()], how="horizontal")
    return _unmasked(beside.with_columns(reason=pl.lit("dealt out by chance")))


def shuffled_live_plan(plan: pl.LazyFrame) -> pl.LazyFrame:
    """The plan of an arm ``live`` whose samples are picked by chance after each pass."""
    return plan.with_columns(reason=pl.lit("by chance, not ") + pl.col("reason"))


def budget(fraction: float, num_samples: int) -> int:
    """Number of samples of a fraction below 1, rounded half up, but never all samples."""
    return min(math.floor(fraction * num_samples + 0.5), num_samples - 1)


def curate(
    corpus: pl.LazyFrame, keys: pl.LazyFrame, quadrants: pl.LazyFrame, plan: pl.LazyFrame
) -> dict[str, pl.LazyFrame]:
    """The data set to train on after ``plan``, without any planted canary.

    Args:
        corpus: ``CORPUS`` table; collecting one result keeps no other text in memory.
        keys: ``KEYS`` table of its source.
        quadrants: ``QUADRANT_TABLE`` of the training split.
        plan: ``PLAN`` table of the training split.

    Returns:
        By name: ``train``, and ``removed`` with what the plan drops of it (a ``REMOVED`` table);
        ``validation``, held-out text; ``reserved``, text that canaries or twins were made of, which
        a model may have been trained on. The quadrant of the last two is null, as they were not
        scored. Together the four hold every ordinary row of the corpus once.

    Raises:
        DataError: A training sample has no plan or no quadrant.
    """
    ordinary = corpus.filter(pl.col("canary_id").is_null()).join(
        keys, on="source", how="left", maintain_order="left"
    )
    planned = (
        ordinary.filter(pl.col("split") == "train")
        .join(quadrants, on="sample_id", how="left", maintain_order="left")
        .join(plan, on="sample_id", how="left", maintain_order="left")
    )
    is_unplanned = pl.col("action").is_null() | pl.col("quadrant").is_null()
    num_unplanned, first = (
        planned.filter(is_unplanned)
        .select(pl.len(), pl.col("sample_id").first())
        .collect(engine="streaming")
        .row(0)
    )
    if num_unplanned:
        raise DataError(
            "data/corpus.parquet: expected a plan and a quadrant for every training sample, "
            f"got {num_unplanned} without, first {first}. Re-run from stage train."
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


def _drop(scored: pl.LazyFrame, dropped: pl.DataFrame) -> pl.LazyFrame:
    is_dropped = pl.col("reason").is_not_null()
    return _unmasked(
        scored.select("sample_id")
        .join(dropped.lazy(), on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            action=pl.when(is_dropped).then(pl.lit("drop")).otherwise(pl.lit("keep")),
            weight=pl.when(is_dropped).then(0.0).otherwise(1.0),
            copies=pl.when(is_dropped).then(0).otherwise(1).cast(pl.Int64),
            reason=pl.col("reason").fill_null("not dropped"),
        )
    )


def _unmasked(plan: pl.LazyFrame) -> pl.LazyFrame:
    return plan.with_columns(masked=pl.lit([], MASKED)).match_to_schema(PLAN)


def _draw(seed: int, purpose: str) -> pl.Expr:
    """The ``hash_order`` of each sample."""
    return pl.col("sample_id").map_batches(
        lambda ids: pl.Series(
            hash_order(ids.to_list(), seed=seed, purpose=purpose), dtype=pl.UInt64
        ),
        return_dtype=pl.UInt64,
        is_elementwise=True,
    )


def _by_quadrant(arm: QuadrantsArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    quadrant = pl.col("quadrant")
    hotspot = quadrant == "hotspot-memorized"
    noisy = (quadrant == "noisy-outlier") & pl.lit(arm.drop_noisy)
    hard = quadrant == "ambiguous-hard"
    weight = pl.when(hotspot).then(arm.hotspot_weight).when(noisy).then(0.0).otherwise(1.0)
    copies = pl.when(hard).then(arm.hard_copies).when(weight == 0).then(0).otherwise(1)
    return scored.select(
        "sample_id", action=_action(weight, copies), weight=weight, copies=copies, reason=quadrant
    )


def _top_fraction(arm: TopFractionArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    return _weigh_first(_ranking(arm, scored), scored, arm, f"by {arm.score}")


def _order(arm: OrderArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    chosen = _choose_first(_ranking(arm, scored), scored, arm.fraction, f"by {arm.score}")
    action = pl.when("is_chosen").then(pl.lit("early")).otherwise(pl.lit("keep"))
    return chosen.select("sample_id", action=action, weight=1.0, copies=1, reason="reason")


def _live(arm: LiveArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    # Every number of the rule stands in the plan, so that a change of one trains the arm again.
    reason = f"in the {100 * arm.fraction:g} % of a pass with the highest contrast: {arm.weight:g}"
    return scored.select(
        "sample_id", action=pl.lit("live"), weight=1.0, copies=1, reason=pl.lit(reason)
    )


def _private(arm: DpSgdArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    # Every number of the rule, as for live.
    noise = (
        f"epsilon {arm.target_epsilon:g}"
        if arm.noise_multiplier is None
        else f"noise of {arm.noise_multiplier:g} such norms"
    )
    reason = f"gradient norm up to {arm.clip_norm:g}, {noise}, delta {arm.delta:g}"
    return scored.select(
        "sample_id", action=pl.lit("private"), weight=1.0, copies=1, reason=pl.lit(reason)
    )


def _ranking(arm: TopFractionArm | OrderArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    for name in (arm.score, arm.tie_break):
        _require_score(name, scored)
    columns = list(dict.fromkeys(["sample_id", arm.score, arm.tie_break]))
    return scored.select(columns).sort(
        arm.score, arm.tie_break, "sample_id", descending=[True, True, False], nulls_last=True
    )


def _weight_by_score(arm: WeightByScoreArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    _require_score(arm.score, scored)
    score = pl.col(arm.score).fill_nan(None)
    weight = 1 / (1 + score.clip(lower_bound=0).fill_null(0))
    copies = pl.when(weight == 0).then(0).otherwise(1)
    shown = pl.lit(f"{arm.score} ") + score.round(3).cast(pl.String)
    reason = shown.fill_null(f"no {arm.score}")
    return scored.select(
        "sample_id", action=_action(weight, copies), weight=weight, copies=copies, reason=reason
    )


def _require_score(name: str, scored: pl.LazyFrame) -> None:
    known = [column for column, dtype in scored.collect_schema().items() if dtype.is_float()]
    if name not in known:
        raise ConfigError(
            f"intervene.arms: expected a score of data/scores.parquet {known}, got {name!r}. "
            "Add it to score.enabled."
        )


def _random(arm: RandomArm, scored: pl.LazyFrame, seed: int) -> pl.LazyFrame:
    drawn = scored.select("sample_id", draw=_draw(seed, "random arm"))
    ranking = drawn.sort("draw", "sample_id")
    return _weigh_first(ranking, scored, arm, "at random")


def _weigh_first(
    ranking: pl.LazyFrame, scored: pl.LazyFrame, arm: TopFractionArm | RandomArm, how: str
) -> pl.LazyFrame:
    weight = pl.when("is_chosen").then(arm.weight).otherwise(1.0)
    copies = pl.when(weight == 0).then(0).otherwise(1)
    return _choose_first(ranking, scored, arm.fraction, how).select(
        "sample_id",
        action=_action(weight, copies),
        weight=weight,
        copies=copies,
        reason="reason",
    )


def _choose_first(
    ranking: pl.LazyFrame, scored: pl.LazyFrame, fraction: float, how: str
) -> pl.LazyFrame:
    """Whether each sample is in the first fraction of the ranking, and why."""
    size = budget(fraction, scored.select(pl.len()).collect(engine="streaming").item())
    # Memory holds the chosen rows alone.
    first = ranking.head(size).collect(engine="streaming").lazy()
    ranks = first.select("sample_id").with_row_index("rank", offset=1)
    is_chosen = pl.col("rank").is_not_null()
    rank = pl.col("rank").cast(pl.String)
    return (
        scored.select("sample_id")
        .join(ranks, on="sample_id", how="left", maintain_order="left")
        .select(
            "sample_id",
            is_chosen=is_chosen,
            reason=pl.when(is_chosen)
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

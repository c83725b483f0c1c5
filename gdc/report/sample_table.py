"""All tables of a workspace -> data/samples.parquet: one flat row a sample, for other programs."""

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from gdc.config import LiveArm, Params
from gdc.schema import MASKED, SAMPLES
from gdc.workspace import paths, tables

JOINED: Final = ("corpus", "canaries", "scores", "quadrants", "spans")
_LEFT_OUT: Final = ("canary_id", "num_chars")
_NO_SCORES: Final = ("stability", "first_learned")
_ACTION: Final = "action_"
# What else is known of an arm whose runs choose weights themselves.
_CHANGED: Final = ("first_changed_", "num_seeds_")


def revising_seeds(params: Params) -> dict[str, tuple[int, ...]]:
    """For each arm with a plan, the seeds of its models that chose weights themselves."""
    return {
        arm: params.retrain.seeds
        if arm in params.retrain.arms and isinstance(params.intervene.rule_of(arm), LiveArm)
        else ()
        for arm in params.intervene.arms
    }


def write_samples(arms: Mapping[str, Sequence[int]]) -> None:
    """Write the table of all samples of the current folder; texts pass through and stay on disk.

    Args:
        arms: As ``revising_seeds`` returns; their plans and weights lie in the folder.
    """
    joined = {name: tables.scan(name) for name in JOINED} | {"corpus": tables.scan_chunks("corpus")}
    plans = {arm: tables.scan_plan(arm) for arm in arms}
    revised = {
        arm: [tables.scan_revised_weights(arm, seed) for seed in seeds]
        for arm, seeds in arms.items()
        if seeds
    }
    table = sample_table(joined, plans, revised)
    tables.sink_table(paths.SAMPLES, table, SAMPLES, group_rows=tables.group_rows("corpus"))


def sample_table(
    joined: Mapping[str, pl.LazyFrame],
    plans: Mapping[str, pl.LazyFrame],
    revised: Mapping[str, Sequence[pl.LazyFrame]],
) -> pl.LazyFrame:
    """Join what is known of every row of the corpus, in its order.

    Args:
        joined: The tables that ``JOINED`` names.
        plans: ``PLAN`` tables by arm.
        revised: ``REVISED_WEIGHTS`` tables of each seed, of arms whose runs chose weights.

    Returns:
        ``SAMPLES`` table, followed by every enabled score and by the action of each arm, with
        ``changed_of`` of it where its runs chose weights. What is known of training samples alone
        is null for the others.
    """
    label = pl.col("family") + "/" + pl.col("num_repeats").cast(pl.String)
    spans = (
        joined["spans"]
        .group_by("sample_id", maintain_order=True)
        .agg(spans=pl.struct("start", "end"))
    )
    canaries = joined["canaries"].select("canary_id", canary=label)
    table = joined["corpus"].join(canaries, on="canary_id", how="left", maintain_order="left")
    # One of the scores is the number of copies, which the corpus knows.
    scores = joined["scores"].drop("num_copies", strict=False)
    for more in (scores, joined["quadrants"], spans):
        table = table.join(more, on="sample_id", how="left", maintain_order="left")
    for arm, plan in plans.items():
        actions = (
            _revised_actions(arm, revised[arm])
            if arm in revised
            else plan.select("sample_id", pl.col("action").alias(action_of(arm)))
        )
        table = table.join(actions, on="sample_id", how="left", maintain_order="left")
    known = table.with_columns(pl.col("spans").fill_null(pl.lit([], MASKED)))
    return known.select(*SAMPLES.names(), pl.exclude(*SAMPLES.names(), *_LEFT_OUT))


def action_of(arm: str) -> str:
    """The column with the action of an arm; a name that needs no quotes in SQL."""
    return f"{_ACTION}{arm.replace('-', '_')}"


def changed_of(arm: str) -> tuple[str, str]:
    """Two more columns of an arm whose runs chose weights.

    The first pass in which a run, of any seed, changed the weight of a sample, null where none did,
    and the number of seeds whose runs did.
    """
    first, seeds = (action_of(arm).replace(_ACTION, name, 1) for name in _CHANGED)
    return first, seeds


def _revised_actions(arm: str, runs: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """What the runs of all seeds did with each sample, where the plan says only that they may."""
    changed, (first, seeds) = pl.col("first_changed"), changed_of(arm)
    is_changed = pl.col(seeds) > 0
    return (
        pl.concat(runs)
        .group_by("sample_id")
        .agg(changed.min().alias(first), changed.count().cast(pl.Int64).alias(seeds))
        .select(
            "sample_id",
            pl.when(is_changed)
            .then(pl.lit("weight"))
            .otherwise(pl.lit("keep"))
            .alias(action_of(arm)),
            first,
            seeds,
        )
    )


def scores_of(samples: pl.LazyFrame) -> list[str]:
    """The scores in a table of samples."""
    numbers = [name for name, dtype in samples.collect_schema().items() if dtype.is_float()]
    return [*(name for name in numbers if name not in _NO_SCORES), "num_copies"]

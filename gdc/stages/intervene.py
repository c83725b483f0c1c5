"""Stage `intervene`: scores and quadrants -> one plan per arm, and the curated data set."""

import polars as pl

from gdc import interventions, store, tracking
from gdc.config import (
    CapCopiesArm,
    DedupArm,
    MaskSpansArm,
    OracleArm,
    Params,
    ScoreArm,
    ShuffledArm,
)
from gdc.stages.runner import run
from gdc.tokens import load_tokenizer


def main() -> None:
    """Plan every arm; of the corpus a plan sees the text at most, and never which rows are planted.

    The one exception is the arm ``oracle``, which is a bound for the others.
    """
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"seed", "intervene"})
    with tracking.stage_run("intervene", sections) as stage:
        quadrants, corpus = store.read("quadrants"), store.read("corpus")
        scored = store.read("scores").join(quadrants, on="sample_id", maintain_order="left")
        plans = _plans(params, scored, corpus)
        store.write_plans(plans)
        curated = interventions.curate(corpus, quadrants, plans[params.intervene.curated_arm])
        for name, table in curated.items():
            store.write(f"curated/{name}", table)
        train = curated["train"]
        stage.log_metrics({"num_curated": train.height, "num_removed": curated["removed"].height})
        stage.log_dataset("curated", train, store.TABLES["curated/train"][0], "curated")
        for arm in plans:
            stage.log_artifact(store.plan_path(arm))


def _plans(params: Params, scored: pl.DataFrame, corpus: pl.DataFrame) -> dict[str, pl.DataFrame]:
    arms, seed = params.intervene.arms, params.seed
    plans = {
        name: _plan(arm, scored, corpus, seed)
        for name, arm in arms.items()
        if not isinstance(arm, ShuffledArm)
    }
    return plans | {
        name: _shuffled_masks(plans[arm.of], corpus, seed)
        if isinstance(arms[arm.of], MaskSpansArm)
        else interventions.shuffled_plan(plans[arm.of], seed=seed)
        for name, arm in arms.items()
        if isinstance(arm, ShuffledArm)
    }


def _shuffled_masks(plan: pl.DataFrame, corpus: pl.DataFrame, seed: int) -> pl.DataFrame:
    samples = plan.select("sample_id").join(
        corpus, on="sample_id", how="left", maintain_order="left"
    )
    places = load_tokenizer(store.TOKENIZER).offsets(samples["text"].to_list())
    return interventions.shuffled_mask_plan(plan, places, seed=seed)


def _plan(
    arm: ScoreArm | CapCopiesArm | DedupArm | MaskSpansArm | OracleArm,
    scored: pl.DataFrame,
    corpus: pl.DataFrame,
    seed: int,
) -> pl.DataFrame:
    if isinstance(arm, MaskSpansArm):
        return interventions.mask_plan(scored, store.read("spans"))
    if isinstance(arm, CapCopiesArm | DedupArm):
        texts = store.batches("corpus", ["sample_id", "text"], pl.col("split") == "train")
        return interventions.cap_copies_plan(arm, scored, texts, seed=seed)
    if isinstance(arm, OracleArm):
        planted = corpus.filter(pl.col("canary_id").is_not_null())["sample_id"]
        return interventions.oracle_plan(scored, planted)
    return interventions.make_plan(arm, scored, seed=seed)


if __name__ == "__main__":
    run(main)

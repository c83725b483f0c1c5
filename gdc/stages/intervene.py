"""Stage `intervene`: scores and quadrants -> one plan per arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from gdc.config import (
    Arm,
    CapCopiesArm,
    DedupArm,
    GoldfishArm,
    ListedArm,
    LiveArm,
    MaskSpansArm,
    OracleArm,
    ScoreArm,
    ShuffledArm,
    SubstringDedupArm,
)
from gdc.corpus.chat import scored_offsets, with_unscored
from gdc.corpus.tokenizer import Offsets, load_tokenizer
from gdc.curation.listed import listed_plan, read_listed
from gdc.curation.plans import (
    cap_copies_plan,
    make_plan,
    on_axis,
    oracle_plan,
    shuffled_live_plan,
    shuffled_plan,
)
from gdc.curation.span_masks import mask_plan, shuffled_mask_plan
from gdc.curation.token_masks import token_mask_plan
from gdc.mapping.quadrants import QuadrantsSummary
from gdc.stages.runner import run
from gdc.workspace import files, paths, tables, tracking


def main() -> None:
    """Plan every arm; a plan reads at most the text of the corpus, never which rows are planted.

    The one exception is the arm ``oracle``, a bound for the others. Texts stay on disk except for
    those that may be near copies.
    """
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"seed", "intervene"})
    with tracking.stage_run("intervene", sections) as stage:
        scored = tables.scan("scores").join(
            tables.scan("quadrants"), on="sample_id", how="left", maintain_order="left"
        )
        axis = files.read_as(QuadrantsSummary, paths.QUADRANTS_SUMMARY).axis
        tables.write_plans(_plans(on_axis(params.intervene.arms, axis), scored, params.seed))
        for arm in params.intervene.arms:
            stage.log_artifact(paths.plan_path(arm))


def _plans(arms: Mapping[str, Arm], scored: pl.LazyFrame, seed: int) -> dict[str, pl.LazyFrame]:
    plans = {
        name: _listed(name, arm, scored) if isinstance(arm, ListedArm) else _plan(arm, scored, seed)
        for name, arm in arms.items()
        if not isinstance(arm, ShuffledArm)
    }
    return plans | {
        name: _shuffled(arms[arm.of], plans[arm.of], seed)
        for name, arm in arms.items()
        if isinstance(arm, ShuffledArm)
    }


def _shuffled(rule: Arm, plan: pl.LazyFrame, seed: int) -> pl.LazyFrame:
    if isinstance(rule, MaskSpansArm | GoldfishArm | SubstringDedupArm):
        return _shuffled_masks(plan, seed)
    return shuffled_live_plan(plan) if isinstance(rule, LiveArm) else shuffled_plan(plan, seed=seed)


def _listed(name: str, arm: ListedArm, scored: pl.LazyFrame) -> pl.LazyFrame:
    listed = read_listed(Path(arm.file), name=f"intervene.arms.{name}.file")
    return listed_plan(scored, listed, tables.read("spans"), name=arm.file)


def _shuffled_masks(plan: pl.LazyFrame, seed: int) -> pl.LazyFrame:
    masks = plan.collect()
    num_tokens = masks.select("sample_id").join(
        tables.scan("corpus").select("sample_id", "num_tokens").collect(),
        on="sample_id",
        how="left",
        maintain_order="left",
    )["num_tokens"]

    turns, tokenizer = tables.read("turns"), load_tokenizer(paths.TOKENIZER)

    def offsets_of(rows: Sequence[int]) -> list[Offsets]:
        texts = pl.DataFrame({"text": tables.texts_of(masks["sample_id"][rows])})
        return scored_offsets(tokenizer, with_unscored(texts, turns))

    # Without the end of text.
    num_text_tokens = (num_tokens - 1).to_list()
    return shuffled_mask_plan(masks, num_text_tokens, offsets_of, seed=seed).lazy()


def _plan(
    arm: ScoreArm
    | CapCopiesArm
    | DedupArm
    | MaskSpansArm
    | GoldfishArm
    | SubstringDedupArm
    | OracleArm,
    scored: pl.LazyFrame,
    seed: int,
) -> pl.LazyFrame:
    if isinstance(arm, MaskSpansArm):
        return mask_plan(scored, tables.read("spans"))
    texts = tables.chunks("corpus", ["sample_id", "text"], pl.col("split") == "train")
    if isinstance(arm, GoldfishArm | SubstringDedupArm):
        return token_mask_plan(arm, scored, texts, load_tokenizer(paths.TOKENIZER), seed=seed)
    if isinstance(arm, CapCopiesArm | DedupArm):
        return cap_copies_plan(arm, scored, texts, seed=seed)
    if isinstance(arm, OracleArm):
        planted = tables.scan("corpus").drop_nulls("canary_id").select("sample_id").collect()
        return oracle_plan(scored, planted["sample_id"])
    return make_plan(arm, scored, seed=seed)


if __name__ == "__main__":
    run(main)

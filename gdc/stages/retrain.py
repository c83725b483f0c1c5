"""Stage `retrain`: corpus and an arm's plan -> a fresh model trained under the plan."""

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from gdc.config import Arm, DpSgdArm, InterveneConfig, LiveArm, Params, ShuffledArm
from gdc.corpus.tokenizer import TextTokenizer, chunk_rows, load_tokenizer, masked_tokens
from gdc.curation.live import LiveWeights
from gdc.filesystem import scratch
from gdc.filesystem.json_values import JsonObject
from gdc.schema import REVISED_WEIGHTS
from gdc.stages import fitting
from gdc.stages.runner import parse_cell, run
from gdc.training import distributed
from gdc.training.batches import TokenizedTexts
from gdc.training.private import Accountant, Privacy, count_batches
from gdc.training.recipe import Recipe, TrainingData, count_steps
from gdc.training.recording import Recording
from gdc.workspace import files, paths, tables


def main() -> None:
    """Train one arm with one seed."""
    cell = parse_cell(arm=True)
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"model", "training"})
    sections |= {"arm": cell.arm, "seed": cell.seed, "match": params.retrain.match}
    group = distributed.init_group()
    with fitting.stage_run(group, "retrain", sections, f"{cell.arm}-{cell.seed}") as stage:
        tokenizer = load_tokenizer(paths.TOKENIZER)
        plan = tables.read_plan(cell.arm)
        samples = fitting.samples_of("train").join(
            plan, on="sample_id", how="left", maintain_order="left"
        )
        texts, heldout = (
            fitting.tokenize(fitting.read_texts(chosen), tokenizer)
            for chosen in (samples, fitting.samples_of("validation"))
        )
        data = TrainingData(
            texts,
            samples["weight"].to_numpy(),
            samples["copies"].to_numpy(),
            heldout,
            _masked(samples, texts, tokenizer),
            early=_early(samples),
            revision=_revision(params.intervene, cell.arm, cell.seed),
        )
        recipe, privacy = _recipe_of(params, cell.arm, cell.seed, data)
        name = f"retrain@{cell.arm}-{cell.seed}"
        model, recording = fitting.fit(
            params, tokenizer, data, recipe, group=group, name=name, stage=stage
        )
        if stage is not None:
            stage.log_dataset("corpus", tables.TABLES["corpus"][0], "training")
            stage.log_dataset(f"plan/{cell.arm}", paths.plan_path(cell.arm), "training")
            weights = _revised_weights(samples, recording)
            fitting.save(
                model,
                recording,
                stage,
                arm=cell.arm,
                seed=cell.seed,
                weights=weights,
                numbers=privacy,
            )


def _recipe_of(
    params: Params, arm: str, seed: int, data: TrainingData
) -> tuple[Recipe, JsonObject]:
    """How a cell is trained, and the privacy that this gives, if any."""
    recipe = fitting.recipe_from(params, seed)
    if params.retrain.match == "steps":
        full = TrainingData.unweighted(data.texts, data.heldout)
        recipe = replace(recipe, num_steps=count_steps(full, recipe))
    return _made_private(recipe, data, params.intervene.arms[arm])


def _early(samples: pl.DataFrame) -> NDArray[np.bool_] | None:
    """Whether each sample comes first in a pass; None if the plan says so of none."""
    early = (samples["action"] == "early").to_numpy()
    return early if early.any() else None


def _revision(config: InterveneConfig, arm: str, seed: int) -> LiveWeights | None:
    """What revises the weights; the numbers of the rule stand in the plan too."""
    rule = config.rule_of(arm)
    by_chance = isinstance(config.arms[arm], ShuffledArm)
    return LiveWeights(rule, seed, by_chance) if isinstance(rule, LiveArm) else None


def _made_private(recipe: Recipe, data: TrainingData, arm: Arm) -> tuple[Recipe, JsonObject]:
    """The recipe with the privacy of an arm ``dp-sgd``, and what that gives; others: as it is."""
    if not isinstance(arm, DpSgdArm):
        return recipe, {}
    num_batches = count_batches(data.windows(recipe.block_size), recipe.config.batch_tokens)
    num_steps = recipe.num_steps or num_batches * recipe.config.epochs
    accountant = Accountant(1 / num_batches, num_steps, arm.delta)
    noise = arm.noise_multiplier
    if noise is None:
        assert arm.target_epsilon is not None  # noqa: S101 - the config has one of the two
        noise = accountant.noise_for(arm.target_epsilon)
    numbers = {"privacy_epsilon": accountant.epsilon(noise), "noise_multiplier": noise}
    return replace(recipe, privacy=Privacy(arm.clip_norm, noise)), numbers


def _revised_weights(samples: pl.DataFrame, recording: Recording) -> pl.DataFrame | None:
    """``REVISED_WEIGHTS`` table of the run; None if its weights stand in the plan."""
    if recording.weights is None or recording.first_changed is None:
        return None
    table = samples.select(
        "sample_id",
        weight=pl.Series(recording.weights),
        first_changed=pl.Series(recording.first_changed).replace(0, None),
    )
    return table.match_to_schema(REVISED_WEIGHTS)


def _masked(
    samples: pl.DataFrame, texts: TokenizedTexts, tokenizer: TextTokenizer
) -> NDArray[np.bool_] | None:
    """Whether each id of the texts is masked; None if the plan masks no span."""
    rows = samples.with_row_index("row").filter(pl.col("masked").list.len() > 0)
    if rows.is_empty():
        return None
    is_masked = scratch.zeros(len(texts.ids), np.bool_, like=texts.ids)
    masked_texts = tables.stored_texts(rows["sample_id"])
    for part in chunk_rows(masked_texts.num_bytes):
        some = rows[part]
        offsets = tokenizer.offsets([masked_texts[row] for row in range(part.start, part.stop)])
        columns = (some["row"], some["masked"].to_list(), offsets)
        for row, spans, token_offsets in zip(*columns, strict=True):
            # Without the two end-of-text ids.
            tokens = slice(texts.offsets[row] + 1, texts.offsets[row + 1] - 1)
            is_masked[tokens] = masked_tokens(token_offsets, spans)
        scratch.forget(is_masked)
    if texts.has_loss is not None:
        for piece in scratch.pieces(len(is_masked)):
            is_masked[piece] &= texts.has_loss[piece]
            scratch.forget(is_masked, texts.has_loss)
    return is_masked


if __name__ == "__main__":
    run(main, is_training=True)

"""Corpus and half of it -> the losses of all tokens under a half-model of the leaderboard.

Not a stage of the graph: ``gdc leaderboard`` starts it once for each half-model.
"""

import argparse

import polars as pl

from gdc.stages import fitting
from gdc.stages.runner import run
from gdc.training import distributed, losses
from gdc.workspace import files, half_models, tables


def main() -> None:
    """Train one half-model and evaluate it on all training samples, unless already done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=int, required=True)
    parser.add_argument("--num-models", type=int, required=True)
    arguments = parser.parse_args()
    number, num_models = arguments.model, arguments.num_models
    half_models.require_num_models(num_models)
    params = files.load_params()
    path = half_models.losses_path(params, num_models, number)
    if path.exists():
        return
    corpus = tables.scan("corpus").filter(pl.col("split") == "train")
    samples = corpus.select("sample_id", "num_tokens").collect().join(
        half_models.make_halves(params, num_models), on="sample_id", maintain_order="left"
    )  # fmt: skip
    is_trained = samples["seen"].list.get(number)
    recipe = fitting.recipe_from(params, half_models.SEEDS_FROM + number)
    group = distributed.init_group()
    token_losses, _ = fitting.fit_half(
        params,
        samples,
        is_trained,
        recipe,
        group=group,
        name=f"half-model@{number}",
        evaluate=losses.token_losses,
    )
    if group.is_main:
        index = samples.select("sample_id", "num_tokens")
        half_models.write_losses(path, half_models.loss_table(index, token_losses))


if __name__ == "__main__":
    run(main, is_training=True)

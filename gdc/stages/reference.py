"""Stage `reference`: corpus and a half -> every sample's loss under a model of that half."""

import argparse

import polars as pl

from gdc.stages import fitting
from gdc.stages.runner import run
from gdc.training import distributed
from gdc.workspace import files, tables

# Reference models are independent draws: no tracked or retrained run has such a seed.
SEEDS_FROM = 1_000_000


def main() -> None:
    """Train one reference model and evaluate it on all training and held-out samples."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=int, required=True)
    number = parser.parse_args().model
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"model", "training", "reference"})
    group = distributed.init_group()
    with fitting.stage_run(group, "reference", sections, str(number)) as stage:
        samples = tables.read("corpus").join(
            tables.read("halves"), on="sample_id", maintain_order="left"
        )
        is_trained = (samples["split"] == "train") & samples["seen"].list.get(number)
        recipe = fitting.recipe_from(params, SEEDS_FROM + number)
        loss, recording = fitting.fit_half(
            params, samples, is_trained, recipe, group=group, name=f"reference@{number}"
        )
        if stage is not None:
            table = samples.select("sample_id", loss=pl.Series(loss, dtype=pl.Float32))
            tables.write_reference(number, table)
            stage.log_curve("train_loss", recording.curve)
            stage.log_metrics({"num_trained": int(is_trained.sum())})


if __name__ == "__main__":
    run(main, is_training=True)

"""Stage `reference`: corpus and a half -> every sample's loss under a model of that half."""

import argparse

import polars as pl

from gdc import losses, store, tracking
from gdc.stages import fitting
from gdc.stages.runner import run
from gdc.tokens import load_tokenizer
from gdc.training import TrainingData

# Reference models are fresh draws: neither a tracked nor a retrained run has such a seed.
SEEDS_FROM = 1_000_000


def main() -> None:
    """Train one reference model and ask it about all training and held-out samples."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=int, required=True)
    number = parser.parse_args().model
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"model", "training", "reference"})
    with tracking.stage_run("reference", sections, cell=str(number)) as stage:
        corpus, tokenizer = store.read("corpus"), load_tokenizer(store.TOKENIZER)
        samples = corpus.join(store.read("halves"), on="sample_id", maintain_order="left")
        texts = fitting.tokenize(samples, tokenizer)
        is_trained = (samples["split"] == "train") & samples["seen"].list.get(number)
        half = fitting.tokenize(samples.filter(is_trained), tokenizer)
        # All texts are asked once, at the end: no held-out curve.
        data = TrainingData.unweighted(half, fitting.tokenize(samples.head(0), tokenizer))
        recipe = fitting.recipe_of(params, SEEDS_FROM + number)
        model, recording = fitting.fit(params, tokenizer, data, recipe, f"reference@{number}")
        loss = losses.sample_losses(
            model,
            texts,
            block_size=params.model.block_size,
            batch_tokens=params.training.batch_tokens,
        )
        store.write_reference(
            number,
            samples.select("sample_id").with_columns(loss=pl.Series(loss, dtype=pl.Float32)),
        )
        stage.log_curve("train_loss", recording.curve)
        stage.log_metrics({"num_trained": len(half)})


if __name__ == "__main__":
    run(main)

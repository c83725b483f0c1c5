"""Stage `train`: corpus -> the tracked run: a trace of every sample's losses, and a model."""

from dataclasses import replace

import polars as pl

from gdc import store, tracking
from gdc.stages import fitting
from gdc.stages.runner import parse_cell, run
from gdc.tokens import load_tokenizer
from gdc.trace import Trace, loss_table
from gdc.training import Recording, TrainingData


def main() -> None:
    """Train on the whole training split with one seed and write the trace."""
    seed = parse_cell(arm=False).seed
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"model", "training", "train"})
    with tracking.stage_run("train", {**sections, "seed": seed}, cell=str(seed)) as stage:
        corpus, tokenizer = store.read("corpus"), load_tokenizer(store.TOKENIZER)
        samples = corpus.filter(pl.col("split") == "train")
        heldout = corpus.filter(pl.col("split") == "validation")
        stage.log_dataset("corpus", corpus, store.TABLES["corpus"][0], "training")
        data = TrainingData.unweighted(
            fitting.tokenize(samples, tokenizer), fitting.tokenize(heldout, tokenizer)
        )
        recipe = replace(
            fitting.recipe_of(params, seed), probes_per_epoch=params.train.probes_per_epoch
        )
        model, recording = fitting.fit(params, tokenizer, data, recipe, f"train@{seed}")
        store.write_trace(seed, _trace(samples, heldout, recording))
        stage.log_artifact(store.trace_path(seed))
        fitting.save(model, recording, stage, arm="tracked", seed=seed)


def _trace(samples: pl.DataFrame, heldout: pl.DataFrame, recording: Recording) -> Trace:
    return Trace(
        samples.select("sample_id", "num_tokens"),
        recording.checkpoint_table(),
        loss_table(recording.losses).lazy(),
        heldout.select("sample_id", "num_tokens"),
        loss_table(recording.heldout).lazy(),
    )


if __name__ == "__main__":
    run(main)

"""Stage `train`: corpus -> the tracked run: a trace of every sample's losses, and a model."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from gdc import store, tracking
from gdc.schema import TRACE_INDEX
from gdc.stages import fitting
from gdc.stages.runner import parse_cell, run
from gdc.tokens import load_tokenizer
from gdc.trace import Trace, gain_table, loss_table, token_table
from gdc.training import Recording, TokenLook, TrainingData


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
        recorded = params.train.model_dump(exclude={"seeds"})
        recipe = replace(fitting.recipe_of(params, seed), **recorded)
        model, recording = fitting.fit(params, tokenizer, data, recipe, f"train@{seed}")
        store.write_trace(seed, _trace(samples, heldout, recording))
        stage.log_artifact(store.trace_path(seed))
        fitting.save(model, recording, stage, arm="tracked", seed=seed)


def _trace(samples: pl.DataFrame, heldout: pl.DataFrame, recording: Recording) -> Trace:
    index, heldout_index = (table.select(TRACE_INDEX.names()) for table in (samples, heldout))
    gain = recording.gain
    return Trace(
        index,
        recording.checkpoint_table(),
        loss_table(recording.losses).lazy(),
        heldout_index,
        loss_table(recording.heldout).lazy(),
        tokens=_tokens(index, heldout_index, recording.looks),
        gains=None if gain is None else gain_table(index, gain),
    )


def _tokens(
    index: pl.DataFrame, heldout_index: pl.DataFrame, looks: Sequence[TokenLook]
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    if not looks:
        return None
    early, late = looks[0], looks[-1]
    return (
        token_table(index, early.train, late.train),
        token_table(heldout_index, early.heldout, late.heldout),
    )


if __name__ == "__main__":
    run(main)

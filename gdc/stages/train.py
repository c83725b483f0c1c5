"""Stage `train`: corpus -> the tracked run: a trace of every sample's losses, and a model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import polars as pl

from gdc.corpus.chat import content_ids, with_unscored
from gdc.corpus.tokenizer import load_tokenizer
from gdc.recording.trace import TWIN, base_table, first_seen_table, gain_table, token_table
from gdc.schema import TRACE_INDEX
from gdc.stages import fitting
from gdc.stages.runner import parse_cell, run
from gdc.training import distributed
from gdc.training.batches import TokenizedTexts
from gdc.training.recipe import TrainingData, first_steps
from gdc.training.recording import TokenSnapshot
from gdc.workspace import files, paths, tables
from gdc.workspace.trace_writer import TraceWriter


def main() -> None:
    """Train on the whole training split with one seed and write the trace."""
    seed = parse_cell(arm=False).seed
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"model", "training", "train"})
    group = distributed.init_group()
    with fitting.stage_run(group, "train", {**sections, "seed": seed}, str(seed)) as stage:
        tokenizer, twins = load_tokenizer(paths.TOKENIZER), _twins(tables.read("canaries"))
        samples, validation = (fitting.samples_of(split) for split in ("train", "validation"))
        unweighted = TrainingData.unweighted(
            fitting.tokenize(fitting.read_texts(samples), tokenizer),
            fitting.tokenize(_heldout_texts(validation, twins), tokenizer),
        )
        index = _index(samples["sample_id"], unweighted.texts)
        heldout_ids = pl.concat([validation["sample_id"], twins["sample_id"]])
        heldout_index = _index(heldout_ids, unweighted.heldout)
        data = replace(unweighted, num_twins=twins.height)
        recorded = params.train.model_dump(exclude={"seeds"})
        recipe = replace(
            fitting.recipe_from(params, seed),
            **recorded,
            base_losses=params.model.kind == "pretrained",
        )
        trace = TraceWriter(seed, index, heldout_index, group)
        model, recording = fitting.fit(
            params,
            tokenizer,
            data,
            recipe,
            group=group,
            name=f"train@{seed}",
            trace=trace,
            stage=stage,
        )
        trace.finish(
            recording.checkpoint_table(),
            _token_tables(index, heldout_index, recording.snapshots),
            None if recording.gain is None else gain_table(index, recording.gain),
            first_seen_table(index, first_steps(data, recipe)),
            None if recording.base is None else base_table(index, recording.base),
        )
        if stage is not None:
            stage.log_dataset("corpus", tables.TABLES["corpus"][0], "training")
            stage.log_artifact(paths.trace_path(seed))
            fitting.save(model, recording, stage, arm="tracked", seed=seed)


def _heldout_texts(validation: pl.DataFrame, twins: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Texts of the held-out samples, the twins last."""
    yield from fitting.read_texts(validation)
    yield with_unscored(twins, tables.read("turns"))


def _twins(canaries: pl.DataFrame) -> pl.DataFrame:
    """Never-planted twins as held-out samples, by which scores of planted canaries are judged."""
    twins = canaries.filter(pl.col("num_repeats") == 0)
    ids = content_ids(twins["text"])
    return twins.select(sample_id=TWIN + pl.col("canary_id"), content_id=ids, text="text")


def _index(sample_ids: pl.Series, texts: TokenizedTexts) -> pl.DataFrame:
    """The ``TRACE_INDEX`` table of tokenized samples."""
    return pl.DataFrame(
        {"sample_id": sample_ids, "num_tokens": texts.num_tokens}, schema=TRACE_INDEX
    )


def _token_tables(
    index: pl.DataFrame, heldout_index: pl.DataFrame, snapshots: Sequence[TokenSnapshot]
) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    if not snapshots:
        return None
    early, late = snapshots[0], snapshots[-1]
    return (
        token_table(index, early.train, late.train),
        token_table(heldout_index, early.heldout, late.heldout),
    )


if __name__ == "__main__":
    run(main, is_training=True)

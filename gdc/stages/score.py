"""Stage `score`: traces of the tracked runs -> every enabled score, and a cause for each text."""

from collections.abc import Collection
from dataclasses import replace

import polars as pl

from gdc import scores
from gdc.config import ReferenceConfig
from gdc.corpus import near_duplicates
from gdc.corpus.chat import ScoredTexts
from gdc.mapping import causes
from gdc.recording.trace import Trace
from gdc.schema import Chunks
from gdc.stages.runner import run
from gdc.workspace import files, paths, reference_tables, tables, traces, tracking


def main() -> None:
    """Score the training split; which rows are canaries is not read.

    Losses and texts stay on disk. Memory holds the other data of each sample, the table of scores
    and the texts that may be near copies. For a trace alone see ``gdc.commands.map``.
    """
    params = files.load_params()
    sections = params.model_dump(mode="json", include={"seed", "train", "score", "reference"})
    with tracking.stage_run("score", sections) as stage:
        scores.require_registered(params.score.enabled)
        reads = scores.reads_of(params.score.enabled)
        traces = [read_run(seed, reads) for seed in params.train.seeds]
        corpus = _texts(scores.corpus_columns(params.score.enabled))
        references = reference_tables.read_references(params.reference.halves)
        samples = tables.chunks(
            "corpus", ["sample_id", "num_copies", "text"], pl.col("split") == "train"
        )
        duplicates = near_duplicates.near_copies(samples, params.reference, seed=params.seed)
        with tables.naming_damage(*map(paths.trace_path, params.train.seeds)):
            scored = scores.score_samples(
                traces,
                corpus,
                params.score,
                seed=params.seed,
                references=references,
                reference_tokens=read_reference_tokens(params.reference, traces[0], reads),
                duplicates=duplicates,
            )
        reasons = causes.find_causes(samples, duplicates)
        table = scored.samples.join(reasons, on="sample_id", how="left", maintain_order="left")
        tables.write("scores", table)
        tables.write("scores_by_run", scored.by_run)
        tables.write(
            "unseen_scores", scores.score_unseen(traces, params.score, scored.summary.epsilon)
        )
        summary = scored.summary.to_json()
        files.write_json(paths.SCORES_SUMMARY, summary)
        numbers = {k: v for k, v in summary.items() if isinstance(v, int | float)}
        stage.log_metrics(numbers)
        stage.log_dataset("scores", tables.TABLES["scores"][0], "scores")
        stage.log_artifact(tables.TABLES["scores"][0])
        stage.log_artifact(paths.SCORES_SUMMARY)


def _texts(columns: Collection[str]) -> Chunks:
    """Columns of the corpus; the text of a conversation is what has a loss, as in the trace."""
    turns = tables.read("turns")
    if "text" not in columns or turns.is_empty():
        return tables.chunks("corpus", [*columns])
    with_ids = list(dict.fromkeys([*columns, "content_id"]))
    return ScoredTexts(tables.chunks("corpus", with_ids), turns)


def read_reference_tokens(
    config: ReferenceConfig, trace: Trace, reads: Collection[str]
) -> pl.DataFrame | None:
    """Token losses of the samples of a trace under the reference models; None: no score reads them.

    A column of lists for each model.
    """
    if "reference_tokens" not in reads:
        return None
    return reference_tables.read_all_reference_tokens(config.halves, trace.index)


def read_run(seed: int, reads: Collection[str]) -> Trace:
    """The trace of a tracked run, with the recordings that scores read."""
    return replace(
        traces.read(seed),
        tokens=traces.read_token_losses(seed)
        if {"tokens", "reference_tokens"} & {*reads}
        else None,
        gains=traces.read_self_influence(seed) if "gain" in reads else None,
        base=traces.read_base(seed) if "base" in reads else None,
    )


if __name__ == "__main__":
    run(main)

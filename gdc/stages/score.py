"""Stage `score`: traces of the tracked runs -> every enabled score, and why a text is learned."""

from collections.abc import Collection
from dataclasses import replace

import polars as pl

from gdc import scores
from gdc.corpus import near_duplicates
from gdc.mapping import causes
from gdc.recording.trace import Trace
from gdc.stages.runner import run
from gdc.workspace import store, tracking


def main() -> None:
    """Score the training split; which rows are canaries is not read.

    Losses and texts stay on disk. In memory is what is known of each sample, the table of scores,
    and the texts that may be near copies. For a trace alone see ``gdc.commands.map``.
    """
    params = store.load_params()
    sections = params.model_dump(mode="json", include={"seed", "train", "score", "reference"})
    with tracking.stage_run("score", sections) as stage:
        scores.require_registered(params.score.enabled)
        needs = scores.needs_of(params.score.enabled)
        traces = [read_run(seed, needs) for seed in params.train.seeds]
        corpus = store.batches("corpus", scores.corpus_columns(params.score.enabled))
        references = store.read_references(params.reference.models)
        with store.naming_damage(*map(store.trace_path, params.train.seeds)):
            scored = scores.score_samples(
                traces, corpus, params.score, seed=params.seed, references=references
            )
        samples = store.batches(
            "corpus", ["sample_id", "num_copies", "text"], pl.col("split") == "train"
        )
        twins = near_duplicates.near_copies(samples, params.reference, seed=params.seed)
        reasons = causes.find_causes(samples, twins)
        table = scored.samples.join(reasons, on="sample_id", how="left", maintain_order="left")
        store.write("scores", table)
        store.write("scores_by_run", scored.by_run)
        store.write_json(store.SCORES_SUMMARY, scored.summary)
        numbers = {k: v for k, v in scored.summary.items() if isinstance(v, int | float)}
        stage.log_metrics(numbers)
        stage.log_dataset("scores", store.TABLES["scores"][0], "scores")
        stage.log_artifact(store.TABLES["scores"][0])
        stage.log_artifact(store.SCORES_SUMMARY)


def read_run(seed: int, needs: Collection[str]) -> Trace:
    """The trace of a tracked run with what scores of these needs read of it."""
    return replace(
        store.read_trace(seed),
        tokens=store.read_token_losses(seed) if "tokens" in needs else None,
        gains=store.read_self_influence(seed) if "gain" in needs else None,
    )


if __name__ == "__main__":
    run(main)

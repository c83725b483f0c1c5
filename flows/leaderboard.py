"""Scores and further half-models -> a leaderboard of the scores."""

import argparse
import time
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any

import polars as pl
from prefect import flow

from flows.program import as_run, only_run_here, show_no_tracebacks
from flows.server import prefect_server
from gdc.config import Params
from gdc.leaderboard.board import TRAINED, Scored, build_leaderboard
from gdc.leaderboard.page import leaderboard_png, markdown
from gdc.recording.trace import Trace
from gdc.scores import corpus_columns, cost_class, needs_of, score_samples
from gdc.stages.score import read_run
from gdc.workspace import files, half_models, paths, tables, tracking
from tasks.graph import workers
from tasks.ground_truth import require_scores, train_models

NUM_MODELS = 16


@flow(name="benchmark")
def benchmark(num_models: int = NUM_MODELS, max_workers: int | None = None) -> None:
    show_no_tracebacks()
    half_models.require_num_models(num_models)
    params = files.load_params()
    with only_run_here():
        require_scores()
        half_models.make_halves(params, num_models)
        tags = {
            "launcher": "prefect",
            "gdc.leaderboard": half_models.folder(params, num_models).name,
        }
        with tracking.parent_run("benchmark", tags) as run:
            missing = [
                number
                for number in range(num_models)
                if not half_models.losses_path(params, num_models, number).exists()
            ]
            train_models(missing, num_models, max_workers or workers(params.training.num_threads))
            board = judge(params, num_models)
            write(board)
            record(run, board)


def judge(params: Params, num_models: int) -> dict[str, Any]:
    """The leaderboard of the scores that stand in the workspace."""
    canaries = tables.read("canaries").select("canary_id", "family", "num_repeats")
    samples = (
        tables.scan("corpus")
        .filter(pl.col("split") == "train")
        .select("sample_id", "content_id", "canary_id")
        .collect()
        .join(canaries, on="canary_id", how="left", maintain_order="left")
        .select(TRAINED.names())
    )
    return build_leaderboard(
        samples, half_models.read_truth(params, num_models), scored(params), seed=params.seed
    )


def scored(params: Params) -> Scored:
    """The scores as stage `score` wrote them, of one tracked run or of several and their mean."""
    mean = tables.read("scores")
    runs = tables.read("scores_by_run").partition_by("run", maintain_order=True) or [mean]
    needs = needs_of(params.score.enabled)
    traces = [read_run(seed, needs) for seed in params.train.seeds]
    return Scored(mean, runs, traces, params.score.mode, seconds_of_scores(params, traces))


def seconds_of_scores(params: Params, traces: Sequence[Trace]) -> dict[str, float | None]:
    """What each score takes: computed once more, alone; reference models as MLflow recorded them.

    A companion of every score, such as ``difficulty``, is not computed alone.
    """
    references = tables.read_references(params.reference.models)
    of_references = seconds_of_references(params)
    seconds: dict[str, float | None] = {}
    for name in params.score.enabled:
        config = params.score.model_copy(update={"enabled": (name,)})
        corpus = tables.chunks("corpus", corpus_columns(config.enabled))
        started = time.perf_counter()
        with tables.naming_damage(*map(paths.trace_path, params.train.seeds)):
            score_samples(traces, corpus, config, seed=params.seed, references=references)
        alone = time.perf_counter() - started
        if cost_class(name) != "reference models":
            seconds[name] = alone
        else:
            seconds[name] = None if of_references is None else alone + of_references
    return seconds


def seconds_of_references(params: Params) -> float | None:
    """How long stages `halves` and `reference` took, summed; None where a run is not known."""
    cells = [("halves", None), *(("reference", str(model)) for model in params.reference.models)]
    known = [tracking.seconds_of(paths.lineage_path(*cell)) for cell in cells]
    found = [value for value in known if value is not None]
    return sum(found) if len(found) == len(known) else None


def write(board: Mapping[str, Any]) -> None:
    files.write_json(half_models.LEADERBOARD, board)
    files.write_text(half_models.TABLE, markdown(board))
    with files.new_file(half_models.PICTURE) as temporary:
        leaderboard_png(board, temporary)


def record(run: tracking.Run, board: Mapping[str, Any]) -> None:
    metrics = {f"ceiling/{name}": value for name, value in board["ceiling"].items()}
    for row in board["scores"]:
        for measure in ("spearman", "auroc", "average_precision"):
            metrics[f"{measure}/{row['score']}"] = row[measure] and row[measure]["value"]
    run.log_metrics(metrics | {"num_models": board["num_models"]})
    for path in (half_models.LEADERBOARD, half_models.TABLE, half_models.PICTURE):
        run.log_artifact(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.leaderboard", description=__doc__)
    parser.add_argument("--num-models", type=int, default=NUM_MODELS, help="half-models trained")
    parser.add_argument("--max-workers", type=int, default=None, help="models side by side")
    arguments = parser.parse_args()
    with as_run():
        tracking.require_answer()
        # Both take seconds: MLflow's import, and the start of Prefect's server in its own process.
        Thread(target=tracking.load_mlflow, daemon=True).start()
        with prefect_server():
            benchmark(num_models=arguments.num_models, max_workers=arguments.max_workers)


if __name__ == "__main__":
    main()

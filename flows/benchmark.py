"""Scores and further half-models -> a leaderboard of the scores."""

import argparse
from collections.abc import Mapping
from threading import Thread
from typing import Any

import polars as pl
from prefect import flow

from flows.program import as_command, only_run_here, show_no_tracebacks
from gdc import benchmark as files
from gdc import store, tracking
from gdc.config import Params
from gdc.leaderboard import TRAINED, Scored, build_leaderboard
from gdc.leaderboard_page import leaderboard_png, markdown
from tasks.graph import workers
from tasks.truth import require_scores, train_models

NUM_MODELS = 16


@flow(name="benchmark")
def benchmark(num_models: int = NUM_MODELS, max_workers: int | None = None) -> None:
    show_no_tracebacks()
    files.require_num_models(num_models)
    params = store.load_params()
    with only_run_here():
        require_scores()
        files.make_halves(params, num_models)
        tags = {"launcher": "prefect", "gdc.benchmark": files.folder(params, num_models).name}
        with tracking.parent_run("benchmark", tags) as run:
            missing = [
                number
                for number in range(num_models)
                if not files.losses_path(params, num_models, number).exists()
            ]
            train_models(missing, num_models, max_workers or workers(params.training.num_threads))
            board = judge(params, num_models)
            write(board)
            record(run, board)


def judge(params: Params, num_models: int) -> dict[str, Any]:
    """The leaderboard of the scores that stand in the workspace."""
    canaries = store.read("canaries").select("canary_id", "family", "num_repeats")
    samples = (
        store.read("corpus")
        .filter(pl.col("split") == "train")
        .join(canaries, on="canary_id", how="left", maintain_order="left")
        .select(TRAINED.names())
    )
    return build_leaderboard(
        samples, files.read_truth(params, num_models), scored(params), seed=params.seed
    )


def scored(params: Params) -> Scored:
    """The scores as stage `score` wrote them, of one tracked run or of several and their mean."""
    mean = store.read("scores")
    runs = store.read("scores_by_run").partition_by("run", maintain_order=True) or [mean]
    traces = [store.read_trace(seed) for seed in params.train.seeds]
    return Scored(mean, runs, traces, params.score.mode)


def write(board: Mapping[str, Any]) -> None:
    store.write_json(files.LEADERBOARD, board)
    store.write_text(files.TABLE, markdown(board))
    with store.new_file(files.PICTURE) as temporary:
        leaderboard_png(board, temporary)


def record(run: tracking.Run, board: Mapping[str, Any]) -> None:
    metrics = {f"ceiling/{name}": value for name, value in board["ceiling"].items()}
    for row in board["scores"]:
        for measure in ("spearman", "auroc", "average_precision"):
            metrics[f"{measure}/{row['score']}"] = row[measure] and row[measure]["value"]
    run.log_metrics(metrics | {"num_models": board["num_models"]})
    for path in (files.LEADERBOARD, files.TABLE, files.PICTURE):
        run.log_artifact(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.benchmark", description=__doc__)
    parser.add_argument("--num-models", type=int, default=NUM_MODELS, help="half-models trained")
    parser.add_argument("--max-workers", type=int, default=None, help="models side by side")
    arguments = parser.parse_args()
    with as_command():
        # Both take seconds: MLflow's import, and the start of Prefect's server in its own process.
        Thread(target=tracking.load_mlflow, daemon=True).start()
        benchmark(num_models=arguments.num_models, max_workers=arguments.max_workers)


if __name__ == "__main__":
    main()

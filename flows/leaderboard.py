"""Scores and further half-models -> a leaderboard of the scores."""

import time
from collections.abc import Sequence
from threading import Thread
from typing import Final

import numpy as np
import polars as pl
from prefect import flow

from flows.program import as_run, only_run_here, show_no_tracebacks
from flows.server import prefect_server
from flows.terminal import terminal
from gdc.config import Params
from gdc.environment import workers
from gdc.filesystem import durable
from gdc.leaderboard.board import Leaderboard
from gdc.leaderboard.evaluation import build_leaderboard
from gdc.leaderboard.inputs import TRAINED, HalfModels, ScoreTables
from gdc.leaderboard.page import leaderboard_png, markdown
from gdc.recording.trace import Trace
from gdc.scores import corpus_columns, cost_class, reads_of, score_samples
from gdc.stages.score import read_reference_tokens, read_run
from gdc.workspace import (
    files,
    half_models,
    mlflow_store,
    paths,
    reference_tables,
    tables,
    tracking,
)
from tasks.half_models import require_scores, train_models

NUM_MODELS: Final = 16
WINDOW_TOKENS: Final = 8
"""Tokens of a window of the peak where there is no canary."""


@flow(name="leaderboard")
def leaderboard(
    num_models: int = NUM_MODELS,
    max_workers: int | None = None,
    window_tokens: int | None = None,
) -> None:
    """Train the half-models that are missing, then write reports/leaderboard.{json,md,png}."""
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
        with tracking.parent_run("leaderboard", tags) as run:
            missing = [
                number
                for number in range(num_models)
                if not half_models.losses_path(params, num_models, number).exists()
            ]
            train_models(missing, num_models, max_workers or workers(params.training.num_threads))
            board = board_of_workspace(params, num_models, window_tokens)
            write(board)
            record(run, board)


def board_of_workspace(
    params: Params, num_models: int, window_tokens: int | None = None
) -> Leaderboard:
    """Compare the scores in the workspace with the ground truth of the half-models.

    Args:
        params: Those of the workspace.
        num_models: Number of its half-models.
        window_tokens: Tokens of a window of the peak; None: the median secret has as many.
    """
    canaries, secret_tokens = extracted_canaries(params)
    samples = (
        tables.scan("corpus")
        .filter(pl.col("split") == "train")
        .select("sample_id", "content_id", "canary_id")
        .collect()
        .join(canaries, on="canary_id", how="left", maintain_order="left")
        .select(TRAINED.names())
    )
    models = HalfModels(
        half_models.read_references(params, num_models),
        half_models.read_token_losses(params, num_models),
        window_tokens or secret_tokens,
    )
    return build_leaderboard(samples, models, read_scores(params), seed=params.seed)


def extracted_canaries(params: Params) -> tuple[pl.DataFrame, int]:
    """Find the canaries whose secret at least half of the tracked runs reproduce greedily.

    Returns:
        ``canary_id``, ``family``, ``num_repeats`` and ``is_extracted`` of every canary, and the
        median number of tokens of their secrets.
    """
    # torch takes seconds, and a leaderboard without scores is to be refused at once.
    from gdc.stages.calibrate import secrets_of_runs  # noqa: PLC0415

    canaries = tables.read("canaries")
    runs = secrets_of_runs(canaries, params)
    is_extracted = np.mean([run.is_extracted for run in runs], axis=0) >= 0.5
    table = canaries.select(
        "canary_id", "family", "num_repeats", is_extracted=pl.Series(is_extracted, dtype=pl.Boolean)
    )
    lengths = runs[0].num_tokens
    return table, int(np.median(lengths)) if len(lengths) else WINDOW_TOKENS


def read_scores(params: Params) -> ScoreTables:
    """The scores that stage `score` wrote: their mean over tracked runs, and those of each run."""
    mean = tables.read("scores")
    runs = tables.read("scores_by_run").partition_by("run", maintain_order=True) or [mean]
    reads = reads_of(params.score.enabled)
    traces = [read_run(seed, reads) for seed in params.train.seeds]
    return ScoreTables(
        mean,
        runs,
        traces,
        params.score.mode,
        seconds_of_scores(params, traces),
        len(params.reference.halves),
    )


def seconds_of_scores(params: Params, traces: Sequence[Trace]) -> dict[str, float | None]:
    """What each score takes: computed once more, alone; reference models as MLflow recorded them.

    Columns that come with every score, such as ``difficulty``, are not timed.
    """
    references = reference_tables.read_references(params.reference.halves)
    tokens = read_reference_tokens(params.reference, traces[0], reads_of(params.score.enabled))
    reference_seconds = seconds_of_references(params)
    seconds: dict[str, float | None] = {}
    for name in params.score.enabled:
        config = params.score.model_copy(update={"enabled": (name,)})
        corpus = tables.chunks("corpus", corpus_columns(config.enabled))
        started = time.perf_counter()
        with tables.naming_damage(*map(paths.trace_path, params.train.seeds)):
            score_samples(
                traces,
                corpus,
                config,
                seed=params.seed,
                references=references,
                reference_tokens=tokens,
            )
        alone = time.perf_counter() - started
        if cost_class(name) != "reference models":
            seconds[name] = alone
        else:
            seconds[name] = None if reference_seconds is None else alone + reference_seconds
    return seconds


def seconds_of_references(params: Params) -> float | None:
    """How long stages `halves` and `reference` took, summed; None where a run is not known."""
    cells = [("halves", None), *(("reference", str(model)) for model in params.reference.halves)]
    known = tracking.seconds_of([paths.lineage_path(*cell) for cell in cells])
    found = [value for value in known if value is not None]
    return sum(found) if len(found) == len(known) else None


def write(board: Leaderboard) -> None:
    """Write the three files of the leaderboard."""
    files.write_json(half_models.LEADERBOARD, board.to_json())
    files.write_text(half_models.TABLE, markdown(board))
    with durable.new_file(half_models.PICTURE) as temporary:
        leaderboard_png(board, temporary)


def record(run: tracking.Run, board: Leaderboard) -> None:
    """Log the ceilings, every score's measures and the three files to MLflow."""
    metrics = {
        "ceiling/all": board.mean.ceiling.all,
        "ceiling/ordinary": board.mean.ceiling.ordinary,
        "ceiling/peak": board.peak.ceiling.all,
    }
    measures = {
        f"{name}/{row.score}": measured.value
        for row in board.scores
        for name, measured in (
            ("spearman", row.mean.spearman),
            ("auroc", row.mean.auroc),
            ("average_precision", row.mean.average_precision),
            ("spearman_peak", row.peak.spearman),
        )
        if measured
    }
    run.log_metrics(metrics | measures | {"num_models": board.num_models})
    for path in (half_models.LEADERBOARD, half_models.TABLE, half_models.PICTURE):
        run.log_artifact(path)


def run(
    num_models: int = NUM_MODELS,
    max_workers: int | None = None,
    window_tokens: int | None = None,
) -> None:
    """Run the flow in this folder.

    Args:
        num_models: Half-models to train.
        max_workers: Models trained in parallel; None: as the cores allow.
        window_tokens: Tokens of a window of the peak; None: the median secret has as many.
    """
    with as_run():
        mlflow_store.require_answer()
        # Both take seconds: MLflow's import, and the start of Prefect's server in its own process.
        Thread(target=mlflow_store.load_mlflow, daemon=True).start()
        with terminal(), prefect_server() as wait:
            wait()
            leaderboard(num_models=num_models, max_workers=max_workers, window_tokens=window_tokens)

"""The half-models of the leaderboard: one subprocess each, in parallel."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.task_runners import ThreadPoolTaskRunner

from gdc.errors import ConfigError
from gdc.workspace import dvc, tables
from gdc.workspace.project import edited_stages
from tasks.graph import changed_targets, load_graph, phase_of
from tasks.stages import (
    StageFailedError,
    run_program,
    wait_for_all,
)


def require_scores() -> None:
    """Raise ``ConfigError`` unless stage `score` and all before it are done and up to date."""
    path = tables.TABLES["scores"][0]
    if not path.exists():
        raise ConfigError(f"{path}: expected scores to compare, got no file. Run first: gdc run")
    needed = {"score"} | load_graph(Path()).above("score")
    edited = edited_stages()
    stale = {t for t in needed if phase_of(t) in edited} | (changed_targets() & needed)
    # Stage `manifest` is always stale to DVC: it looks whether the source has changed.
    stale -= {"manifest"}
    if stale:
        raise ConfigError(
            f"{path}: expected scores of the params and code at hand, got older ones: "
            f"{', '.join(sorted(stale))} changed since. Run first: gdc run"
        )


# The files say whether a model is done, not Prefect's cache.
@task(
    name="half-model",
    task_run_name="half-model@{number}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def train_model(number: int, num_models: int) -> None:
    """Train one half-model in a process of its own."""
    # -P: a folder called `gdc` in the workspace must not take the place of ours.
    command = [sys.executable, "-P", "-m", "gdc.stages.ground_truth"]
    command += ["--model", str(number), "--num-models", str(num_models)]
    run_program(f"half-model@{number}", command, dvc.environment(), get_run_logger().info)
    sys.stderr.write(f"half-model@{number}: trained\n")


def train_models(numbers: Sequence[int], num_models: int, max_workers: int) -> None:
    """Train half-models in parallel; one that fails leaves the others running.

    Raises:
        StageFailedError: Some failed; raised after the last one has ended, with all messages.
    """
    with ThreadPoolTaskRunner[Any](max_workers=max_workers) as runner:
        futures = [
            runner.submit(train_model, {"number": number, "num_models": num_models})
            for number in numbers
        ]
        wait_for_all(futures)
        found = [future.result(raise_on_failure=False) for future in futures]
    errors = [value for value in found if isinstance(value, BaseException)]
    for error in errors:
        if not isinstance(error, StageFailedError):
            raise error
    if errors:
        first = f"{len(errors)} of {num_models} models have no result"
        raise StageFailedError("\n".join([first, *map(str, errors)]))

"""Source -> report: the pipeline as a sentence."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

from prefect import flow
from prefect.logging import get_run_logger

from flows.program import as_run, only_run_here, show_no_tracebacks
from flows.server import prefect_server
from gdc.scores import require_registered
from gdc.workspace import store
from gdc.workspace.tracking import load_mlflow, require_answer
from tasks.cluster import joined, run_on_cluster
from tasks.graph import Graph, changed_targets, load_graph, workers
from tasks.lineage import LOCK as LOCK_FILE
from tasks.lineage import Record, recorded_run
from tasks.publish import publish as publish_workspace
from tasks.publish import require_publishable
from tasks.stages import StageFailedError, StageResult, reproduce, run_side_by_side

# The stages of a phase run side by side.
PHASES: Final[tuple[tuple[str, ...], ...]] = (
    ("manifest",),
    ("ingest",),
    ("halves",),
    ("train", "reference"),
    ("score",),
    ("calibrate",),
    ("partition",),
    ("spans",),
    ("intervene",),
    ("retrain",),
    ("evaluate",),
    ("report",),
)


# Targets and the parent run -> what became of each.
Runner = Callable[[Sequence[str], str | None], list[StageResult]]


@flow(name="curate")
def curate(
    max_workers: int | None = None, publish: bool = False, cluster: str | None = None
) -> None:
    show_no_tracebacks()
    params = store.load_params()
    require_registered(params.score.enabled)
    num_workers = max_workers or workers(params.training.num_threads)
    if publish:
        require_publishable()
    num_threads = params.training.num_threads
    on_cluster = nullcontext() if cluster is None else joined(cluster, num_threads)
    with only_run_here(), on_cluster, recorded_run() as record:
        graph = load_graph(Path())
        run_here = partial(run_side_by_side, max_workers=num_workers)
        run_cells = run_here if cluster is None else partial(run_on_cluster, graph=graph)
        run_phases(record, graph, run_here, run_cells)
        if publish:
            publish_workspace(record.run, params, datetime.now().astimezone().date())


def is_up_to_date() -> bool:
    """Run ``manifest`` and tell whether anything else has to run; no flow is needed for that."""
    with only_run_here():
        if not LOCK_FILE.exists():
            return False
        try:
            reproduce("manifest", None, lambda _line: None)
        except StageFailedError:
            return False  # the flow meets it too, and records it
        return not changed_targets()


def run_phases(record: Record, graph: Graph, run_here: Runner, run_cells: Runner) -> None:
    """Run what is stale; a target that fails takes only those along that need it.

    Stages run here; the items of a matrix, such as arms and seeds, where ``run_cells`` says.

    Raises:
        StageFailedError: After the last phase, with what every failed target said.
    """
    unchanged: frozenset[str] = frozenset()
    for phase in PHASES:
        targets = [target for stage in phase for target in graph.cells(stage)]
        blocked = blocked_by_failures(targets, graph, record.results)
        ready = [target for target in targets if target not in blocked]
        stale = [target for target in ready if target not in unchanged]
        results = [StageResult(target, "skipped", 0.0) for target in ready if target in unchanged]
        cells = [target for target in stale if "@" in target]
        results += run_here([t for t in stale if t not in cells], record.run.run_id)
        results += run_cells(cells, record.run.run_id)
        results += blocked.values()
        record.results.extend(results)
        tell(phase, results)
        if phase == PHASES[0]:
            # Only now is it known whether the source or the code changed.
            unchanged = graph.unchanged(changed_targets())
    require_success(record.results)


def blocked_by_failures(
    targets: Sequence[str], graph: Graph, results: Sequence[StageResult]
) -> dict[str, StageResult]:
    """The targets that need one that failed, each with its result: not run."""
    failed = {result.target for result in results if result.outcome == "failed"}
    return {
        target: StageResult(target, "not run", 0.0)
        for target in targets
        if graph.above(target) & failed
    }


def require_success(results: Sequence[StageResult]) -> None:
    failed = [str(result.error) for result in results if result.outcome == "failed"]
    if not failed:
        return
    lines = [f"{len(failed)} of {len(results)} stages failed"]
    waiting = [result.target for result in results if result.outcome == "not run"]
    if waiting:
        lines.append(f"not run, as they need one that failed: {', '.join(waiting)}")
    # The cause last, where a reader of a terminal looks first.
    raise StageFailedError("\n".join([*lines, *failed]))


def tell(phase: Sequence[str], results: list[StageResult]) -> None:
    """Say what a phase did."""
    counts = Counter(result.outcome for result in results)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    get_run_logger().info("%s: %s", " and ".join(phase), summary)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.curate", description=__doc__)
    parser.add_argument("--max-workers", type=int, default=None, help="cells side by side")
    parser.add_argument("--ray", default=None, help="address of a Ray cluster, auto or local")
    parser.add_argument("--publish", action="store_true", help="push, commit and judge the result")
    arguments = parser.parse_args()
    with as_run():
        require_answer()
        if not arguments.publish and is_up_to_date():
            sys.stderr.write("Nothing changed since the last run: no stage to run but manifest.\n")
            return
        # Both take seconds: MLflow's import, and the start of Prefect's server in its own process.
        Thread(target=load_mlflow, daemon=True).start()
        with prefect_server():
            curate(
                max_workers=arguments.max_workers, publish=arguments.publish, cluster=arguments.ray
            )


if __name__ == "__main__":
    main()

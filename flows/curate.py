"""Source -> report: the pipeline as a sentence."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Thread
from typing import Final

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from flows.program import only_run_here, show_no_tracebacks
from flows.server import prefect_server
from flows.start import FIRST, run_first
from flows.terminal import Watch, terminal, watched
from gdc.commands import status
from gdc.environment import workers
from gdc.report.model import read_report
from gdc.scores import require_registered
from gdc.workspace import files, paths, tracking
from gdc.workspace.mlflow_store import load_mlflow
from tasks.cluster import joined, ray_workers
from tasks.fork_client import fork_server
from tasks.graph import Graph, changed_targets, load_graph
from tasks.lineage import LOCK as LOCK_FILE
from tasks.lineage import Record, recorded_run, run_note
from tasks.processes import processes
from tasks.publish import publish as publish_workspace
from tasks.publish import require_publishable
from tasks.schedule import ByKind, Executor, run_graph
from tasks.stages import StageFailedError, StageResult

# The stages whose time is the work itself.
STEPS: Final = ("train", "reference", "retrain", "evaluate")
# Of the artifact on the run's page in Prefect.
VERDICT: Final = "verdict"


def run_name() -> str:
    """The folder and the time: pages of Prefect list the runs of all folders together."""
    return f"{Path.cwd().name} {datetime.now().astimezone():%Y-%m-%d %H:%M}"


@flow(name="curate", flow_run_name=run_name)
def curate(
    max_workers: int | None = None,
    publish: bool = False,
    cluster: str | None = None,
    has_manifest: bool = False,
    changed: list[str] | None = None,
) -> None:
    """Run what changed in this folder.

    Args:
        max_workers: Targets that run at the same time; None: as the cores allow.
        publish: Push the data, commit the record of DVC and judge the curated model.
        cluster: Address of a Ray cluster for items of a matrix; None: no Ray.
        has_manifest: Whether ``manifest`` has just run.
        changed: Targets that have changed, as DVC has said since then; None: it is asked.
    """
    show_no_tracebacks()
    params = files.load_params()
    require_registered(params.score.enabled)
    num_workers = max_workers or workers(params.training.num_threads)
    if publish:
        require_publishable()
    num_threads = params.training.num_threads
    on_cluster = nullcontext() if cluster is None else joined(cluster, num_threads)
    with only_run_here(), on_cluster, recorded_run() as record:
        graph = load_graph(Path()).after(FIRST)
        order = [*TopologicalSorter(graph.upstream).static_order()]
        with watched(order, num_workers) as watch:
            run_id = record.run.run_id
            with executor_of(run_id, graph, num_workers, cluster, watch) as executor:
                is_unchanged = what_is_unchanged(graph, changed, has_manifest=has_manifest)
                run_changed(record, graph, executor, watch, is_unchanged)
            watch.sum_up(seconds_of_steps(record.results))
        require_success(record.results)
        create_markdown_artifact(run_note(read_report()), key=VERDICT)
        if publish:
            publish_workspace(record.run, params, datetime.now().astimezone().date())


@contextmanager
def executor_of(
    parent_run_id: str | None, graph: Graph, max_workers: int, address: str | None, watch: Watch
) -> Iterator[Executor]:
    """Where targets run: here, or items of a matrix on the cluster that was joined."""
    with fork_server() as start, processes(parent_run_id, max_workers, start, watch) as here:
        if address is None:
            yield here
            return
        with ray_workers(graph, parent_run_id) as there:
            yield ByKind(stages=here, items=there)


def what_is_unchanged(
    graph: Graph, changed: Sequence[str] | None, *, has_manifest: bool
) -> Callable[[str], bool]:
    """Whether a target need not run; DVC is asked when it is first needed, after ``manifest``."""

    @cache
    def unchanged() -> frozenset[str]:
        if changed is not None:
            return graph.unchanged(changed)
        return graph.unchanged(changed_targets()) if has_results() else frozenset()

    return lambda target: has_manifest if target == FIRST else target in unchanged()


def run_changed(
    record: Record,
    graph: Graph,
    executor: Executor,
    watch: Watch,
    is_unchanged: Callable[[str], bool],
) -> None:
    """Run what has changed, and record and tell what became of every target."""
    for found in run_graph(graph, executor, is_unchanged):
        ran_before = found.target == FIRST and found.outcome == "skipped"
        result = replace(found, outcome="executed") if ran_before else found
        record.results.append(result)
        watch.end(result)
    counts = Counter(result.outcome for result in record.results)
    get_run_logger().info(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


def has_results() -> bool:
    """Whether DVC has a record of more than the first target; before that nothing is unchanged."""
    recorded = re.findall(r"(?m)^  (\S+):$", LOCK_FILE.read_text(encoding="utf-8"))
    return recorded != [FIRST]


def seconds_of_steps(results: Sequence[StageResult]) -> float:
    """What trainings and audits took in this run, summed: without the start of their processes."""
    cells = [r.target.partition("@") for r in results if r.outcome == "executed"]
    lineages = [
        paths.lineage_path(stage, cell or None) for stage, _, cell in cells if stage in STEPS
    ]
    found = tracking.seconds_of([lineage for lineage in lineages if lineage.exists()])
    return sum(seconds or 0.0 for seconds in found)


def require_success(results: Sequence[StageResult]) -> None:
    failed = [str(result.error) for result in results if result.outcome == "failed"]
    if not failed:
        return
    lines = [f"{len(failed)} of {len(results)} stages failed"]
    waiting = [result.target for result in results if result.outcome == "not run"]
    if waiting:
        lines.append(
            f"not run, as they need one that failed: {', '.join(status.by_stage(waiting))}"
        )
    # The cause last, where a reader of a terminal looks first.
    raise StageFailedError("\n".join([*lines, *failed]))


def run(
    max_workers: int | None = None,
    *,
    publish: bool = False,
    ray: str | None = None,
    changed: Sequence[str] | None = None,
) -> None:
    """Run the flow in this folder, with a Prefect server and a fork server of its own.

    Args:
        max_workers: As ``curate``; ``publish`` too.
        publish: See there.
        ray: Address of a Ray cluster for items of a matrix, ``auto`` or ``local``; None: no Ray.
        changed: As ``curate``, where ``manifest`` has just run; None: it has not.
    """
    # All take seconds: imports here and in the fork server, the start of Prefect's server.
    Thread(target=load_mlflow, daemon=True).start()
    with terminal(), fork_server() as start, prefect_server() as wait:
        has_manifest = changed is not None or run_first(start)
        wait()
        curate(max_workers, publish, ray, has_manifest, None if changed is None else [*changed])

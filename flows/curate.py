"""Source -> report: the pipeline as a sentence."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Final

from filelock import FileLock, Timeout
from prefect import flow
from prefect.logging import get_run_logger

from gdc import store
from gdc.errors import GdcError, TransientError
from gdc.scores import require_registered
from gdc.tracking import load_mlflow
from tasks.graph import Graph, changed_targets, load_graph, workers
from tasks.lineage import LOCK as LOCK_FILE
from tasks.lineage import Record, recorded_run
from tasks.publish import publish as publish_workspace
from tasks.publish import require_publishable
from tasks.stages import StageFailedError, StageResult, reproduce, run_side_by_side

PHASES: Final = (
    "manifest",
    "ingest",
    "train",
    "score",
    "partition",
    "intervene",
    "retrain",
    "evaluate",
    "report",
)
LOCK: Final = Path("work/.lock")
HOLDER: Final = Path("work/.lock.pid")


@flow(name="curate")
def curate(max_workers: int | None = None, publish: bool = False) -> None:
    show_no_tracebacks()
    params = store.load_params()
    require_registered(params.score.enabled)
    num_workers = max_workers or workers(params.training.num_threads)
    if publish:
        require_publishable()
    with only_run_here(), recorded_run() as record:
        run_phases(record, load_graph(Path()), num_workers)
        if publish:
            publish_workspace(record.run, params, datetime.now().astimezone().date())


def is_up_to_date() -> bool:
    """Run ``manifest`` and tell whether anything else has to run; no flow is needed for that."""
    if not LOCK_FILE.exists():
        return False
    with only_run_here():
        try:
            reproduce(PHASES[0], None, lambda _line: None)
        except StageFailedError:
            return False  # the flow meets it too, and records it
        return not changed_targets()


def run_phases(record: Record, graph: Graph, num_workers: int) -> None:
    unchanged: frozenset[str] = frozenset()
    for phase in PHASES:
        targets = graph.cells(phase)
        stale = [target for target in targets if target not in unchanged]
        record.results.extend(StageResult(t, "skipped", 0.0) for t in targets if t in unchanged)
        results = run_side_by_side(stale, record.run.run_id, num_workers) if stale else []
        record.results.extend(results)
        tell(phase, targets, results)
        if phase == PHASES[0]:
            # Only now is it known whether the source changed.
            unchanged = graph.unchanged(changed_targets())


def tell(phase: str, targets: list[str], results: list[StageResult]) -> None:
    """Say what a phase did, and stop after one with a failed cell."""
    failed = [result for result in results if result.error is not None]
    if failed:
        messages = "\n".join(str(result.error) for result in failed)
        raise StageFailedError(f"{len(failed)} of {len(targets)} in {phase} failed\n{messages}")
    done = [result.outcome for result in results]
    get_run_logger().info(
        "%s: %d executed, %d restored, %d unchanged",
        phase,
        done.count("executed"),
        done.count("restored"),
        len(targets) - done.count("executed") - done.count("restored"),
    )


@contextmanager
def only_run_here() -> Iterator[None]:
    """Hold the folder for this flow run; two would overwrite each other's outputs."""
    LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TransientError(
            f"{Path.cwd()}: expected to be the only run in this folder, got process "
            f"{HOLDER.read_text(encoding='utf-8')} here too. Wait until it ends, or stop it."
        ) from None
    try:
        HOLDER.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        lock.release()


def show_no_tracebacks() -> None:
    """Prefect logs a traceback of every failure; of ours the message says it all."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], GdcError):
        record.exc_info = None
    return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.curate", description=__doc__)
    parser.add_argument("--max-workers", type=int, default=None, help="cells side by side")
    parser.add_argument("--publish", action="store_true", help="push, commit and judge the result")
    arguments = parser.parse_args()
    # Prefect hands a SIGTERM on to what stood here; an exit also ends its temporary server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not arguments.publish and is_up_to_date():
            sys.stderr.write("Nothing changed since the last run: no stage to run but manifest.\n")
            return
        # Both take seconds: MLflow's import, and the start of Prefect's server in its own process.
        Thread(target=load_mlflow, daemon=True).start()
        curate(max_workers=arguments.max_workers, publish=arguments.publish)
    except GdcError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped; what was finished is kept, run again to go on\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

"""Targets side by side on this machine."""

from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

from tasks.graph import Graph
from tasks.processes import processes, run_stage
from tasks.schedule import run_graph
from tasks.stages import (
    StageFailedError,
    StageResult,
    StageTransientError,
    reproduce,
)
from tests.tasks.builders import ignore


def test_only_a_transient_failure_is_tried_again() -> None:
    condition = run_stage.retry_condition_fn
    assert condition is not None
    for error, again in ((StageFailedError("a"), False), (StageTransientError("a"), True)):
        state: State[Any] = Failed(data=error)
        assert condition(run_stage, TaskRun(task_key="a", dynamic_key="a"), state) is again


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_failed_cell_lets_its_siblings_finish(toy: Path) -> None:
    reproduce("manifest", None, ignore)
    (toy / "none.txt").write_text("mistake")

    @flow
    def both() -> list[StageResult]:
        graph = Graph({"retrain@none": frozenset(), "retrain@paper": frozenset()})
        with processes(None, 2) as executor:
            return list(run_graph(graph, executor, lambda _: False))

    failed, done = sorted(both(), key=lambda result: result.target)
    assert (failed.outcome, done.outcome) == ("failed", "executed")
    assert str(failed.error) == "retrain@none: there was a mistake"
    # A mistake of the user's is not tried again.
    assert sorted((toy / "work/started.txt").read_text().split()) == ["manifest", "none", "paper"]

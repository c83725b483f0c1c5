"""DVC's graph -> results of its targets: each starts as soon as those that it needs are done."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Protocol

from tasks.graph import Graph
from tasks.stages import StageResult


class Executor(Protocol):
    """Runs targets, as many at a time as it has room for."""

    def submit(self, target: str) -> None:
        """Run a target, now or as soon as there is room."""

    def wait(self) -> list[StageResult]:
        """Wait for any target to end, but not much longer than half a second.

        Returns:
            The results that were not returned before; a failed one carries its error. Nothing, at
            once, if no target is left to wait for.
        """


@dataclass(frozen=True)
class ByKind:
    """Items of a matrix, such as arms and seeds, run in one executor; other targets in another."""

    stages: Executor
    items: Executor

    def submit(self, target: str) -> None:
        """Run a target in the executor of its kind."""
        executor = self.items if "@" in target else self.stages
        executor.submit(target)

    def wait(self) -> list[StageResult]:
        """Results of both."""
        return [*self.stages.wait(), *self.items.wait()]


def run_graph(
    graph: Graph, executor: Executor, is_unchanged: Callable[[str], bool]
) -> Iterator[StageResult]:
    """Run every target of a graph that changed, after all that it needs.

    Args:
        graph: The targets, and what each needs.
        executor: Where they run.
        is_unchanged: Whether a target has nothing to do; asked once all that it needs is done.

    Yields:
        The result of each target as soon as it is known. One that fails takes along only those
        that need it, directly or through others: these are "not run".
    """
    sorter = TopologicalSorter(graph.upstream)
    sorter.prepare()
    lost: set[str] = set()
    while sorter.is_active():
        results = []
        for target in sorter.get_ready():
            if graph.upstream[target] & lost:
                results.append(StageResult(target, "not run", 0.0))
            elif is_unchanged(target):
                results.append(StageResult(target, "skipped", 0.0))
            else:
                executor.submit(target)
        for result in results or executor.wait():
            if result.outcome in ("failed", "not run"):
                lost.add(result.target)
            sorter.done(result.target)
            yield result

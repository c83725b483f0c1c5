"""The order in which targets of a graph run, without any of them running."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.graph import Graph
from tasks.schedule import ByKind, run_graph
from tasks.stages import StageFailedError, StageResult

ARMS = Graph(
    {
        "manifest": frozenset(),
        "intervene": frozenset({"manifest"}),
        "retrain@fast": frozenset({"intervene"}),
        "retrain@slow": frozenset({"intervene"}),
        "evaluate@fast": frozenset({"retrain@fast"}),
        "evaluate@slow": frozenset({"retrain@slow"}),
        "report": frozenset({"evaluate@fast", "evaluate@slow"}),
    }
)


@dataclass
class Simulated:
    """An executor whose targets end in an order that the test chooses; one at a time."""

    choose: Callable[[list[str]], str]
    failing: frozenset[str] = frozenset()
    running: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    def submit(self, target: str) -> None:
        self.running.append(target)
        self.events.append(("starts", target))

    def wait(self) -> list[StageResult]:
        if not self.running:
            return []
        target = self.choose(self.running)
        self.running.remove(target)
        self.events.append(("ends", target))
        if target in self.failing:
            return [StageResult(target, "failed", 1.0, StageFailedError("a mistake"))]
        return [StageResult(target, "executed", 1.0)]


def never(_target: str) -> bool:
    """Nothing is up to date."""
    return False


def slow_ones_last(running: list[str]) -> str:
    return next((target for target in running if "slow" not in target), running[0])


def test_an_evaluate_starts_before_the_last_retrain_ends() -> None:
    executor = Simulated(slow_ones_last)
    results = list(run_graph(ARMS, executor, never))
    assert executor.events.index(("starts", "evaluate@fast")) < executor.events.index(
        ("ends", "retrain@slow")
    )
    assert sorted(result.target for result in results) == sorted(ARMS.upstream)
    assert results[-1].target == "report"


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = [f"stage@{number}" for number in range(draw(st.integers(1, 9)))]
    needs = {
        name: frozenset(draw(st.sets(st.sampled_from(names[:number])))) if number else frozenset()
        for number, name in enumerate(names)
    }
    order = draw(st.permutations(names))
    return Graph({name: needs[name] for name in order})


@given(graph=graphs(), seed=st.integers(0, 2**16), data=st.data())
def test_nothing_starts_before_what_it_needs_and_only_what_needs_a_failure_is_not_run(
    graph: Graph, seed: int, data: st.DataObject
) -> None:
    failing = frozenset(data.draw(st.sets(st.sampled_from(sorted(graph.upstream)))))
    executor = Simulated(random.Random(seed).choice, failing)  # noqa: S311 - no secret
    outcomes = {r.target: r.outcome for r in run_graph(graph, executor, never)}
    for target, needed in graph.upstream.items():
        above = graph.above(target)
        if above & failing:
            assert outcomes[target] == "not run"
            assert ("starts", target) not in executor.events
            continue
        assert outcomes[target] == ("failed" if target in failing else "executed")
        start = executor.events.index(("starts", target))
        assert all(executor.events.index(("ends", other)) < start for other in needed)
    assert executor.running == []


def test_what_is_up_to_date_is_skipped_and_asked_for_only_after_what_it_needs() -> None:
    executor = Simulated(slow_ones_last)
    asked: list[str] = []

    def is_unchanged(target: str) -> bool:
        asked.append(target)
        if target != "manifest":
            assert ("ends", "manifest") in executor.events
        return target not in {"manifest", "evaluate@slow", "report"}

    outcomes = {r.target: r.outcome for r in run_graph(ARMS, executor, is_unchanged)}
    assert [target for event, target in executor.events if event == "starts"] == [
        "manifest", "evaluate@slow", "report",
    ]  # fmt: skip
    assert outcomes["retrain@slow"] == outcomes["evaluate@fast"] == "skipped"
    assert sorted(asked) == sorted(ARMS.upstream)


def test_items_of_a_matrix_run_elsewhere_and_stages_here() -> None:
    stages, items = Simulated(slow_ones_last), Simulated(slow_ones_last)
    results = list(run_graph(ARMS, ByKind(stages, items), never))
    assert {result.outcome for result in results} == {"executed"}
    assert {target for _, target in stages.events} == {"manifest", "intervene", "report"}
    assert all("@" in target for _, target in items.events)


def test_a_stage_that_needs_nothing_waits_for_the_first_one_too() -> None:
    graph = Graph({"own": frozenset(), "manifest": frozenset(), "ingest": frozenset({"manifest"})})
    assert graph.after("manifest").upstream == {
        "own": {"manifest"}, "manifest": frozenset(), "ingest": {"manifest"},
    }  # fmt: skip


def test_a_cycle_is_refused() -> None:
    graph = Graph({"a": frozenset({"b"}), "b": frozenset({"a"})})
    with pytest.raises(ValueError, match="cycle"):
        list(run_graph(graph, Simulated(slow_ones_last), never))

"""Epsilon of many losses: a quantile of a part of them, which says so."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gdc.recording.trace import Trace
from gdc.scores import epsilon, epsilon_of, scan_scores, summarize
from gdc.statistics import streaming_quantile
from gdc.workspace import paths, traces
from tests.builders import trace_of, write_trace
from tests.scores.builders import config, score

SHARE = 0.3
QUANTILE = {"kind": "quantile", "value": SHARE}


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 3,999 losses are many, and ten rows of two losses are a place."""
    monkeypatch.setattr(epsilon, "_MAX_EXACT_LOSSES", 3_999)
    monkeypatch.setattr(streaming_quantile, "_PLACE_VALUES", 20)


def trace(num_samples: int) -> Trace:
    """Samples sorted by loss, the worst order for a part of them."""
    losses = np.sort(np.random.default_rng(0).uniform(1, 3, (num_samples, 2)), axis=0)
    return trace_of({f"s{i:05d}": row for i, row in enumerate(losses.tolist())})


def rank(value: float, of: Trace) -> float:
    return float(np.mean(of.losses.collect().to_numpy() < value))


def test_it_is_near_the_quantile_of_all_losses_and_the_summary_says_how_near() -> None:
    few, many = trace(1_999), trace(2_000)
    _, of_few = score(few, epsilon=QUANTILE)
    _, of_many = score(many, epsilon=QUANTILE)
    assert of_few.epsilon == pytest.approx(np.quantile(few.losses.collect().to_numpy(), SHARE))
    assert not any("places" in warning for warning in of_few.warnings)
    assert 0 < abs(rank(of_many.epsilon, many) - SHARE) < 1 / 64
    # The square root of 0.3 x 0.7 / 640.
    assert of_many.warnings[0] == (
        "epsilon is the quantile 0.3 of the losses of 640 samples, in 64 places spread over 2,000. "
        "Among all losses its rank has a standard error of 0.02 where the order of the samples has "
        "nothing to do with their losses, and is off by less than 0.016 where they are sorted by "
        "them."
    )


def test_one_that_is_given_is_of_no_part() -> None:
    _, summary = score(trace(2_000), epsilon={"kind": "absolute", "value": 1.5})
    assert summary.epsilon == 1.5
    assert not any("places" in warning for warning in summary.warnings)


def test_it_is_the_same_on_disk_in_memory_and_in_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rules, of_memory = config(epsilon=QUANTILE, enabled=("memorization",)), trace(2_000)
    expected = epsilon_of([of_memory], "online", rules.epsilon)
    for num_processes in (1, 3):
        write_trace(7, of_memory, num_processes=num_processes)
        scan = traces.scan(paths.trace_path(7), "online")
        table, found = scan_scores(scan, rules)
        assert found == expected
        assert "640 samples" in summarize(table, rules, found, 2).warnings[0]


def test_runs_count_alike() -> None:
    """A part of each run: their losses differ by 10, so that the median lies between them."""
    low = trace(2_000)
    high = trace_of(
        {
            sample: [loss + 10 for loss in losses]
            for sample, *losses in pl.concat(
                [low.index.lazy().select("sample_id"), low.losses], how="horizontal"
            )
            .collect()
            .rows()
        }
    )
    half = config(epsilon={"kind": "quantile", "value": 0.5}).epsilon
    assert 3 < epsilon_of([low, high], "online", half) < 11

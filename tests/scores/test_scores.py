"""Scores against curves small enough to check by hand, an oracle, and laws for any curve."""

from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.errors import ConfigError, DataError
from gdc.recording.trace import Trace, loss_table
from gdc.schema import CHECKPOINTS, SCORES
from gdc.scores import REGISTRY, corpus_columns, epsilon_of, score_samples
from tests.builders import trace_of
from tests.scores.builders import (
    NAN,
    Curves,
    config,
    curves,
    losses,
    maybe_losses,
    score,
    shuffled,
)


@pytest.mark.parametrize(
    ("learned", "memorization"),
    [
        pytest.param([1, 0, 1, 0], 2 / 3, id="forgotten twice in three steps"),
        pytest.param([0, 1, 1, 1], 0.0, id="learned and kept"),
        pytest.param([1, 1, 0, 1, 0, 0, 1], 2 / 6, id="forgotten twice in six steps"),
        pytest.param([0, 1, 0, 1, 0, 1, 0], 3 / 6, id="as often as seven checkpoints allow"),
        pytest.param([0, 0, 0], 0.0, id="never learned, so never forgotten"),
    ],
)
def test_known_forget_events(learned: list[int], memorization: float) -> None:
    """The rules of allenai/cartography and of Toneva et al. agree on these."""
    scores, _ = score({"a": [0.5 if is_learned else 1.5 for is_learned in learned]})
    assert scores["memorization"].to_list() == [memorization]
    assert scores["never_learned"].to_list() == [not any(learned)]


@pytest.mark.parametrize(
    ("curve", "memorization"),
    [
        pytest.param([0.5, NAN, 1.5], None, id="no step has both ends"),
        pytest.param([0.5, 1.5, NAN, 0.5], 1.0, id="one step, one event"),
        pytest.param([NAN, 0.5, 1.5, 0.5], 1 / 2, id="unseen at first"),
        pytest.param([NAN, NAN, NAN, NAN], None, id="never seen"),
        pytest.param([0.5, 1.0, 1.5], 0.0, id="a loss at epsilon is neither below nor above"),
        pytest.param([1.0, 1.5, 1.0], 0.0, id="at epsilon is not learned"),
        pytest.param([0.5, 1.0, 0.5, 1.25], 1 / 3, id="falling from epsilon is no event"),
    ],
)
def test_only_steps_with_both_losses_count(curve: list[float], memorization: float | None) -> None:
    assert score({"a": curve})[0]["memorization"].to_list() == [memorization]


def test_a_known_table() -> None:
    scores, summary = score(
        {"b": [4.0, 2.0, 0.5, 1.5], "a": [2.0, 1.0, NAN, 2.0]},
        num_early=2,
        enabled=("final_loss", "initial_loss", "mean_loss", "min_loss", "num_copies"),
        copies=3,
    )
    assert scores.drop("never_learned").rows() == [
        ("a", 1.5, 0.0, None, -2.0, 2.0, -5 / 3, -1.0, 3.0),
        ("b", 3.0, 1 / 3, 2.0, -1.5, 4.0, -2.0, -0.5, 3.0),
    ]
    assert scores["never_learned"].to_list() == [True, False]
    assert dict(list(scores.schema.items())[:5]) == dict(SCORES)
    assert all(scores[name].dtype == pl.Float64 for name in scores.columns[5:])
    assert {**summary.to_json(), "warnings": None} == {
        "mode": "online",
        "epsilon": 1.0,
        "num_checkpoints": 4,
        "num_early": 2,
        "num_samples": 2,
        "num_seeds": 1,
        "num_never_learned": 1,
        "num_distinct_memorization": 2,
        "warnings": None,
    }


def by_numpy(table: np.ndarray[Any, np.dtype[np.float64]], num_early: int) -> list[tuple[Any, ...]]:
    """Difficulty, memorization and first learned of each row; the threshold is 1."""
    rows: list[tuple[Any, ...]] = []
    for curve in table:
        early = curve[:num_early][~np.isnan(curve[:num_early])]
        steps = [(a, b) for a, b in pairwise(curve) if not np.isnan([a, b]).any()]
        events = sum(a < 1 < b for a, b in steps)
        learned = np.flatnonzero(curve < 1)
        rows.append(
            (
                early.mean() if early.size else None,
                events / len(steps) if steps else None,
                float(learned[0]) if learned.size else None,
            )
        )
    return rows


@given(curves=curves(maybe_losses), num_early=st.integers(1, 2))
def test_scores_match_a_plain_loop(curves: dict[str, list[float]], num_early: int) -> None:
    scores, _ = score(curves, num_early=num_early)
    expected = by_numpy(np.array([curves[i] for i in sorted(curves)]), num_early)
    assert scores["sample_id"].to_list() == sorted(curves)
    assert scores.select("difficulty", "memorization", "first_learned").rows() == expected
    assert scores["never_learned"].equals(scores["first_learned"].is_null())


@given(curves=curves())
def test_at_most_every_second_checkpoint_is_an_event(curves: dict[str, list[float]]) -> None:
    num_checkpoints = len(next(iter(curves.values())))
    scores, _ = score(curves)
    num_events = (scores["memorization"] * (num_checkpoints - 1)).round()
    assert num_events.is_between(0, num_checkpoints // 2).all()


@given(curves=curves(), shift=losses)
def test_shifting_losses_and_epsilon_moves_only_difficulty(
    curves: dict[str, list[float]], shift: float
) -> None:
    before, _ = score(curves)
    moved = {i: [loss + shift for loss in curve] for i, curve in curves.items()}
    after, _ = score(moved, epsilon={"kind": "absolute", "value": 1.0 + shift})
    assert after.drop("difficulty").equals(before.drop("difficulty"))
    assert (after["difficulty"] - before["difficulty"] == shift).all()


@given(curves=curves(), sample=st.integers(0, 99))
def test_lowering_a_curve_raises_the_scores_that_read_its_losses(
    curves: dict[str, list[float]], sample: int
) -> None:
    chosen = sorted(curves)[sample % len(curves)]
    lowered = {**curves, chosen: [loss - 0.5 for loss in curves[chosen]]}
    baselines = ("final_loss", "mean_loss", "min_loss")
    before, after = (score(c, enabled=baselines)[0] for c in (curves, lowered))
    is_chosen = before["sample_id"] == chosen
    for name in baselines:
        gain = after[name] - before[name]
        assert gain.filter(is_chosen).item() == pytest.approx(0.5)
        assert (gain.filter(~is_chosen) == 0).all()


def test_scores_read_what_they_need_of_the_corpus_and_never_which_rows_are_canaries() -> None:
    assert corpus_columns(("final_loss", "forget")) == ["sample_id"]
    assert corpus_columns(("num_copies", "zlib")) == ["sample_id", "num_copies", "text"]
    everything = ["sample_id", "num_copies", "content_id", "text"]
    assert corpus_columns(tuple(REGISTRY)) == everything


@settings(max_examples=12)
@given(curves=curves(maybe_losses), seed=st.integers(0, 2**16))
def test_row_order_does_not_matter(curves: dict[str, list[float]], seed: int) -> None:
    trace = trace_of(curves)
    enabled = tuple(name for name in REGISTRY if REGISTRY[name].needs <= {"num_copies"})
    a, b = score(trace, enabled=enabled), score(shuffled(trace, seed), enabled=enabled)
    assert a[0].equals(b[0])
    assert a[1] == b[1]


@given(curves=curves(maybe_losses), share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.99, 1.0]))
def test_a_quantile_epsilon_is_numpys_over_all_losses_of_all_runs(
    curves: dict[str, list[float]], share: float
) -> None:
    other = {i: [loss + 0.25 for loss in curve] for i, curve in curves.items()}
    recorded = np.array([*curves.values(), *other.values()]).ravel()
    recorded = recorded[~np.isnan(recorded)]
    if recorded.size:
        threshold = config(epsilon={"kind": "quantile", "value": share}).epsilon
        epsilon = epsilon_of([trace_of(curves), trace_of(other)], "online", threshold)
        assert epsilon == pytest.approx(np.quantile(recorded, share), rel=1e-12)


THOUSAND = {f"s{i:04d}": [1.0, 1.0] for i in range(1000)}


def random_scores(run: Curves | Trace, seed: int = 0) -> pl.Series:
    return score(run, seed=seed, enabled=("random",))[0]["random"]


def test_the_random_score_depends_on_id_and_seed_alone() -> None:
    draws = random_scores(THOUSAND)
    assert draws.equals(random_scores(shuffled(trace_of(THOUSAND), seed=1)))
    assert draws.equals(random_scores({i: [0.5, 2.0] for i in THOUSAND}))
    assert abs(np.corrcoef(draws, random_scores(THOUSAND, seed=1))[0, 1]) < 0.1


def test_the_random_score_is_a_keyed_hash_of_the_id() -> None:
    """Oracle: BLAKE2b of the id under a key made of seed and purpose, as a share of 2**64."""
    key = blake2b(b"5:random", digest_size=16).digest()
    number = int.from_bytes(blake2b(b"a", key=key, digest_size=8).digest(), "big")
    assert random_scores({"a": [1.0, 2.0]}, seed=5).to_list() == [number / 2**64]


def test_the_random_score_is_uniform() -> None:
    draws = random_scores(THOUSAND)
    assert draws.is_between(0, 1, closed="left").all()
    assert draws.n_unique() == 1000
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert counts.min() > 70
    assert counts.max() < 130


def test_two_runs_are_averaged() -> None:
    first = {"a": [4.0, 0.5, 2.0], "b": [4.0, 2.0, 2.0], "c": [2.0, 2.0, 2.0]}
    second = {"c": [1.0, 2.0, 4.0], "a": [2.0, 0.5, 0.5], "b": [0.5, 0.5, 0.5]}
    scores, summary = score(first, second, enabled=("final_loss",))
    assert scores.rows() == [
        ("a", 3.0, 0.25, 1.0, False, -1.25),
        ("b", 2.25, 0.0, 0.0, False, -1.25),
        ("c", 1.5, 0.0, None, True, -3.0),
    ]
    assert summary.num_seeds == 2


def with_probes() -> Trace:
    """Two online and two probe checkpoints in turn."""
    trace = trace_of({"a": [9.0, 0.5, 9.0, 1.5]})
    modes = ["online", "probe", "online", "probe"]
    return replace(trace, checkpoints=trace.checkpoints.with_columns(mode=pl.Series(modes)))


def test_probe_mode_reads_only_the_probe_columns() -> None:
    scores, summary = score(with_probes(), mode="probe", enabled=("initial_loss", "mean_loss"))
    assert scores.rows() == [("a", 0.5, 1.0, 0.0, False, 0.5, -1.0)]
    assert summary.num_checkpoints == 2
    half = config(epsilon={"kind": "quantile", "value": 0.5}).epsilon
    assert epsilon_of([with_probes()], "probe", half) == 1.0


def test_checkpoints_are_read_in_their_order_whatever_their_row_order() -> None:
    trace = trace_of({"a": [0.5, 1.5, 2.0]})
    assert trace.checkpoints.schema == CHECKPOINTS
    turned = replace(trace, checkpoints=trace.checkpoints.reverse())
    assert score(turned)[0].equals(score(trace)[0])


def test_few_distinct_values_and_many_never_learned_are_told() -> None:
    _, summary = score({"a": [2.0, 2.0], "b": [2.0, 2.0], "c": [0.5, 2.0]})
    assert [w.split(":")[0] for w in summary.warnings] == [
        "memorization has only 2 distinct values",
        "2 of 3 samples were never below epsilon, so they cannot be forgotten",
    ]


def test_five_distinct_values_among_learned_samples_are_not_told() -> None:
    forgotten = {f"s{k}": [0.5, 2.0] * k + [0.5] * (8 - 2 * k) for k in range(5)}
    scores, summary = score(forgotten)
    assert scores["memorization"].to_list() == [0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7]
    assert summary.warnings == ()


def test_what_the_mean_hides_is_kept_by_run() -> None:
    runs = [
        trace_of({"a": [1.0, 3.0], "b": [2.0, 2.0]}),
        trace_of({"a": [3.0, 1.0], "b": [4.0, 4.0]}),
    ]
    rules = config(num_early=1, enabled=("final_loss",))
    ids = runs[0].index.select("sample_id")
    table = score_samples(runs, [ids], rules, seed=0).by_run
    assert table.select("run", "sample_id", "difficulty", "final_loss").rows() == [
        (0, "a", 1.0, -3.0),
        (0, "b", 2.0, -2.0),
        (1, "a", 3.0, -1.0),
        (1, "b", 4.0, -4.0),
    ]
    alone = score_samples(runs[:1], [ids], rules, seed=0).by_run
    assert (alone.height, alone.schema) == (0, table.schema)


def test_runs_with_different_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"data/trace: .* different samples\. Re-run stage train"):
        score({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})


def test_an_unknown_score_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigError, match=r"expected names of \['final_loss', .*got \['exposure'"):
        score({"a": [1.0, 2.0]}, enabled=("exposure", "final_loss"))


@pytest.mark.parametrize("length", [0, 1])
def test_a_trace_with_fewer_than_two_checkpoints_of_the_mode_is_refused(length: int) -> None:
    trace = trace_of({"a": [1.0, 2.0]})
    modes = (["probe"] * length + ["online"] * 2)[:2]
    turned = replace(trace, checkpoints=trace.checkpoints.with_columns(mode=pl.Series(modes)))
    with pytest.raises(DataError, match=f"expected at least 2 probe checkpoints, got {length}"):
        score(turned, mode="probe")


def test_a_trace_without_any_loss_is_refused() -> None:
    empty = replace(trace_of({"a": [1.0]}), losses=loss_table([np.full(1, NAN, np.float32)]).lazy())
    threshold = config(epsilon={"kind": "quantile", "value": 0.5}).epsilon
    with pytest.raises(DataError, match="no loss"):
        epsilon_of([empty], "online", threshold)

"""Two thresholds cut the map: known points, numpy's quantile, and laws of the four quadrants.

A conformal one against Benjamini-Hochberg by hand, and on simulated corpora, from traces to
quadrants, where what is memorized is known.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdc.config import PartitionConfig
from gdc.errors import ConfigError, DataError
from gdc.mapping.quadrants import QuadrantsSummary, conformal_cut, partition, threshold_value
from gdc.recording.trace import Trace
from gdc.schema import QUADRANT_TABLE, QUADRANTS, SCORES, SCORES_BY_RUN
from gdc.scores import score_samples
from tests.builders import params_with, trace_of
from tests.mapping.builders import absolute, config, quantile
from tests.scores.builders import config as score_config

LOG_P = "calibrated_drop_log_p"

Points = Sequence[tuple[float | None, float | None]]


def scores_of(points: Points) -> pl.DataFrame:
    """A SCORES table of (difficulty, memorization) points named s0, s1, ..."""
    rows = [(f"s{i}", d, m, None, True) for i, (d, m) in enumerate(points)]
    return pl.DataFrame(rows, schema=SCORES, orient="row")


def partition_one_run(
    scores: pl.DataFrame, rules: PartitionConfig
) -> tuple[pl.DataFrame, QuadrantsSummary]:
    return partition(scores, pl.DataFrame(schema=SCORES_BY_RUN), rules)


def cut(points: Points, difficulty: float, memorization: float) -> list[str]:
    table, _ = partition_one_run(
        scores_of(points), config(absolute(difficulty), absolute(memorization))
    )
    return table["quadrant"].to_list()


# Quarters are exact in binary, so quantiles in quarters and the maps below are exact too.
quarters = st.integers(0, 20).map(lambda n: n / 4)
clouds = st.lists(st.tuples(quarters, quarters), min_size=1, max_size=12)
shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize(
    ("difficulty", "memorization", "quadrant"),
    [
        pytest.param(1.0, 0.0, "stable-easy", id="easy and kept"),
        pytest.param(5.0, 0.0, "ambiguous-hard", id="hard and kept"),
        pytest.param(1.0, 0.5, "hotspot-memorized", id="easy and forgotten"),
        pytest.param(5.0, 0.5, "noisy-outlier", id="hard and forgotten"),
        pytest.param(3.0, 0.25, "stable-easy", id="at both thresholds is low"),
        pytest.param(3.25, 0.25, "ambiguous-hard", id="just above one threshold"),
    ],
)
def test_known_points(difficulty: float, memorization: float, quadrant: str) -> None:
    assert cut([(difficulty, memorization)], 3.0, 0.25) == [quadrant]


def test_a_known_map() -> None:
    points = [(4.0, 0.0), (1.0, 0.0), (2.0, 0.5), (3.0, 0.0), (5.0, 0.25)]
    table, summary = partition_one_run(scores_of(points), config(quantile(0.5), quantile(0.75)))
    assert table.schema == QUADRANT_TABLE
    assert table.rows() == [
        ("s0", "ambiguous-hard", None),
        ("s1", "stable-easy", None),
        ("s2", "hotspot-memorized", None),
        ("s3", "stable-easy", None),
        ("s4", "ambiguous-hard", None),
    ]
    assert {**summary.to_json(), "warnings": len(summary.warnings)} == {
        "axis": "memorization",
        "difficulty_threshold": 3.0,
        "memorization_threshold": 0.25,
        "counts": {
            "stable-easy": 2,
            "ambiguous-hard": 2,
            "hotspot-memorized": 1,
            "noisy-outlier": 0,
        },
        "num_unstable": None,
        "warnings": 1,
    }


@given(values=st.lists(quarters, min_size=1, max_size=30), share=st.floats(0, 1))
def test_a_quantile_is_numpys_linear_one(values: list[float], share: float) -> None:
    threshold = config(quantile(share), quantile(share)).difficulty
    table = pl.DataFrame({"difficulty": values})
    value = threshold_value(table, threshold)
    assert value == threshold_value(table.lazy(), threshold)
    assert value == pytest.approx(np.quantile(values, share, method="linear"), rel=1e-12, abs=1e-12)


@given(points=clouds, difficulty=shares, memorization=shares)
def test_every_sample_gets_exactly_one_quadrant(
    points: Points, difficulty: float, memorization: float
) -> None:
    rules = config(quantile(difficulty), quantile(memorization))
    table, summary = partition_one_run(scores_of(points), rules)
    assert table["sample_id"].to_list() == [f"s{i}" for i in range(len(points))]
    assert table["quadrant"].is_in(QUADRANTS).all()
    assert list(summary.counts) == list(QUADRANTS)
    assert sum(summary.counts.values()) == len(points)


@given(points=clouds, difficulty=shares, memorization=shares)
def test_quadrants_match_a_plain_loop(
    points: list[tuple[float, float]], difficulty: float, memorization: float
) -> None:
    d_cut = np.quantile([d for d, _ in points], difficulty)
    m_cut = np.quantile([m for _, m in points], memorization)
    names = {
        (False, False): "stable-easy",
        (True, False): "ambiguous-hard",
        (False, True): "hotspot-memorized",
        (True, True): "noisy-outlier",
    }
    table, _ = partition_one_run(
        scores_of(points), config(quantile(difficulty), quantile(memorization))
    )
    assert table["quadrant"].to_list() == [
        names[bool(d > d_cut), bool(m > m_cut)] for d, m in points
    ]


@pytest.mark.parametrize(
    "increasing",
    [
        pytest.param(lambda x: 2 * x + 1, id="affine"),
        pytest.param(lambda x: x**3, id="cube"),
        pytest.param(lambda x: -1 / (x + 1) if x < 3 else x, id="with a jump"),
    ],
)
@settings(max_examples=12)
@given(points=clouds, difficulty=shares, memorization=shares)
def test_a_strictly_increasing_map_of_a_score_changes_no_quadrant(
    increasing: Callable[[float], float],
    points: list[tuple[float, float]],
    difficulty: float,
    memorization: float,
) -> None:
    rules = config(quantile(difficulty), quantile(memorization))
    table, _ = partition_one_run(scores_of(points), rules)
    for moved in (
        [(increasing(d), m) for d, m in points],
        [(d, increasing(m)) for d, m in points],
    ):
        assert partition_one_run(scores_of(moved), rules)[0].equals(table)


@given(points=clouds, seed=st.integers(0, 2**16))
def test_row_order_does_not_matter(points: Points, seed: int) -> None:
    scores, rules = scores_of(points), config(quantile(0.5), quantile(0.75))
    turned, summary = partition_one_run(scores.sample(fraction=1, shuffle=True, seed=seed), rules)
    table, expected = partition_one_run(scores, rules)
    assert turned.sort("sample_id").equals(table.sort("sample_id"))
    assert summary == expected


def test_the_axis_may_be_any_score() -> None:
    scores = scores_of([(1.0, 0.5), (1.0, 0.0)]).with_columns(final_loss=pl.Series([-3.0, -1.0]))
    table, summary = partition_one_run(
        scores, config(absolute(2.0), absolute(-2.0), axis="final_loss")
    )
    assert table["quadrant"].to_list() == ["stable-easy", "hotspot-memorized"]
    assert summary.axis == "final_loss"


def test_equal_values_are_all_low_and_the_empty_quadrants_are_counted() -> None:
    table, summary = partition_one_run(
        scores_of([(2.0, 0.0)] * 6), config(quantile(0.5), quantile(0.9))
    )
    assert table["quadrant"].unique().to_list() == ["stable-easy"]
    assert list(summary.counts.values()) == [6, 0, 0, 0]


def warnings_of(memorization: Sequence[float], threshold: dict[str, object]) -> list[str]:
    points = [(float(i), m) for i, m in enumerate(memorization)]
    _, summary = partition_one_run(scores_of(points), config(absolute(2), threshold))
    return list(summary.warnings)


def test_a_quantile_at_the_smallest_value_is_told() -> None:
    assert warnings_of([0.0] * 8 + [0.25, 0.5, 0.75, 1.0], quantile(0.5)) == [
        "memorization: its quantile 0.5 is its smallest or largest value (0), "
        "so 4 of 12 samples are above it, not the share asked for."
    ]


def test_a_quantile_at_the_largest_value_is_told() -> None:
    assert warnings_of([0.0, 0.25, 0.5, 0.75, 1.0], quantile(1.0)) == [
        "memorization: its quantile 1.0 is its smallest or largest value (1), "
        "so 0 of 5 samples are above it, not the share asked for."
    ]


def test_copies_that_tie_at_the_quantile_are_told() -> None:
    # Twelve copies of one text at the quantile of 0.8, and two texts above it, not ten.
    losses = [i / 100 for i in range(36)] + [0.5] * 12 + [0.75, 1.0]
    assert warnings_of(losses, quantile(0.8)) == [
        "memorization: many samples tie at its quantile 0.8 (0.5), so only 2 of 50 are above it. "
        "Copies of one text tie: drop them (rule dedup), or lower this quantile in section "
        "partition of params.yaml."
    ]
    assert warnings_of([i / 100 for i in range(50)], quantile(0.8)) == []


def test_few_distinct_values_are_told() -> None:
    assert warnings_of([0.0, 0.25, 0.5, 0.75, 0.0], absolute(0.1)) == [
        "memorization has only 4 distinct values; many samples tie."
    ]


def test_five_distinct_values_and_a_cut_between_them_are_not_told() -> None:
    assert warnings_of([0.0, 0.25, 0.5, 0.75, 1.0], quantile(0.5)) == []


@pytest.mark.parametrize("axis", ["exposure", "sample_id", "never_learned"])
def test_an_axis_that_is_no_score_is_refused(axis: str) -> None:
    known = r"\['difficulty', 'memorization', 'first_learned'\]"
    with pytest.raises(ConfigError, match=f"partition.axis: expected one of {known}, got '{axis}'"):
        partition_one_run(scores_of([(1.0, 0.0)]), config(absolute(0), absolute(0), axis=axis))


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("axis", ["difficulty", "memorization"])
def test_a_sample_without_a_value_is_refused_and_named(axis: str, missing: float | None) -> None:
    point = (missing, 0.0) if axis == "difficulty" else (1.0, missing)
    with pytest.raises(DataError, match=rf"scores.parquet: 1 samples have no {axis}, first s1\."):
        partition_one_run(scores_of([(1.0, 0.0), point]), config(quantile(0.5), quantile(0.5)))


def conformal(rate: float) -> dict[str, object]:
    return {"kind": "conformal", "value": rate}


def found(p_values: Sequence[float], rate: float) -> list[bool]:
    log_ps = -np.log10(p_values)
    return [bool(log_p > conformal_cut(log_ps, rate)) for log_p in log_ps]


@pytest.mark.parametrize(
    ("p_values", "rate", "expected"),
    [
        pytest.param([0.01, 0.04, 0.03, 0.5], 0.1, [1, 1, 1, 0], id="0.04 is at most 0.1 x 3 / 4"),
        pytest.param([0.01, 0.04, 0.03, 0.5], 0.05, [1, 0, 0, 0], id="0.04 is above 0.05 x 3 / 4"),
        pytest.param([0.05, 0.05, 0.9, 0.9], 0.1, [1, 1, 0, 0], id="equal to 0.1 x 2 / 4"),
        pytest.param([0.05, 0.06, 0.9, 0.9], 0.1, [0, 0, 0, 0], id="above 0.1 x 2 / 4"),
        pytest.param([0.04, 0.06, 0.07, 0.9], 0.1, [1, 1, 1, 0], id="carried by a larger one"),
        pytest.param([0.1, 0.05, 0.1], 0.1, [1, 1, 1], id="all"),
        pytest.param([1.0, 1.0], 0.9, [0, 0], id="none"),
        pytest.param([0.2], 0.2, [1], id="one"),
    ],
)
def test_known_discoveries(p_values: list[float], rate: float, expected: list[int]) -> None:
    assert found(p_values, rate) == [bool(e) for e in expected]


@pytest.mark.parametrize(
    ("p_values", "cut"),
    [
        pytest.param([0.01, 0.1, 1.0], 1.0, id="the largest that is left"),
        pytest.param([0.1, 1.0, 1.0], 1.0, id="the largest, so none is above"),
        pytest.param([0.01, 0.01], 0.0, id="a p-value of one, so all are above"),
    ],
)
def test_a_conformal_cut_is_the_largest_value_that_is_left(
    p_values: list[float], cut: float
) -> None:
    assert conformal_cut(-np.log10(p_values), 0.05) == pytest.approx(cut)


# Conformal p-values of 39 held-out samples.
p_value_lists = st.lists(st.integers(1, 40).map(lambda n: n / 40), min_size=1, max_size=40)
rates = st.integers(1, 19).map(lambda n: n / 20)


@given(p_values=p_value_lists, rate=rates)
def test_discoveries_match_a_plain_loop_in_whole_numbers(
    p_values: list[float], rate: float
) -> None:
    """p = a / 40 <= (b / 20) k / m, times 40 m."""
    a, b, m = [round(40 * p) for p in p_values], round(20 * rate), len(p_values)
    passing = [p for k, p in enumerate(sorted(a), 1) if p * m <= 2 * b * k]
    assert found(p_values, rate) == [p <= max(passing, default=0) for p in a]


@given(p_values=p_value_lists, low=rates, high=rates)
def test_a_higher_rate_finds_no_fewer(p_values: list[float], low: float, high: float) -> None:
    few, many = found(p_values, min(low, high)), found(p_values, max(low, high))
    assert all(m or not f for f, m in zip(few, many, strict=True))


@given(p_values=p_value_lists, rate=rates, seed=st.integers(0, 2**16))
def test_what_is_found_does_not_depend_on_the_order(
    p_values: list[float], rate: float, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(p_values))
    turned = found([p_values[i] for i in order], rate)
    assert turned == [found(p_values, rate)[i] for i in order]


def simulated(seed: int, *, num_members: int, num_heldout: int, num_memorized: int = 0) -> Trace:
    """Members and held-out samples of one world; the last loss of memorized members is 2 lower."""
    rng = np.random.default_rng(seed)
    first = rng.normal(5, 1, num_members + num_heldout)
    last = 1 + 0.6 * first + rng.normal(0, 0.3, len(first))
    last[:num_memorized] -= 2
    curves = list(zip(first.tolist(), last.tolist(), strict=True))
    members = {f"s{i:03d}": curve for i, curve in enumerate(curves[:num_members])}
    heldout = {f"h{i:03d}": curve for i, curve in enumerate(curves[num_members:])}
    other = trace_of(heldout, mode="probe")
    return replace(
        trace_of(members, mode="probe"), heldout_index=other.index, heldout_losses=other.losses
    )


def found_in(trace: Trace, rate: float) -> list[bool]:
    """From the trace to the quadrants; in the order of the members' names."""
    ids = pl.concat([trace.index, trace.heldout_index]).select("sample_id", text=pl.lit("a text"))
    rules = score_config(mode="probe", enabled=(LOG_P,))
    scores = score_samples([trace], [ids], rules, seed=0).samples
    table, summary = partition_one_run(scores, config(quantile(0.5), conformal(rate), axis=LOG_P))
    high = table["quadrant"].is_in(["hotspot-memorized", "noisy-outlier"])
    assert high.equals(scores[LOG_P] > summary.memorization_threshold, check_names=False)
    return high.to_list()


@pytest.mark.slow
def test_where_nothing_is_memorized_at_most_the_promised_share_of_corpora_has_a_find() -> None:
    """All finds are false there, so the rate bounds the chance of any: 40 of 200, and not idly."""
    corpora = [simulated(seed, num_members=10, num_heldout=100) for seed in range(200)]
    num_with_finds = sum(any(found_in(trace, 0.2)) for trace in corpora)
    assert 20 <= num_with_finds <= 40


def test_memorized_samples_are_found_and_few_others() -> None:
    """15 of 100 members in each of 20 corpora; at a rate of 0.1."""
    worlds = [
        simulated(seed, num_members=100, num_heldout=200, num_memorized=15) for seed in range(20)
    ]
    finds = np.array([found_in(trace, 0.1) for trace in worlds])
    assert finds[:, :15].all()
    assert np.mean(finds[:, 15:].sum(axis=1) / finds.sum(axis=1)) <= 0.1


def test_a_conformal_cut_that_finds_nobody_is_told() -> None:
    log_ps = [1.0, *[k / 10 for k in range(9)]]
    scores = scores_of([(float(k), 0.0) for k in range(10)]).with_columns(pl.Series(LOG_P, log_ps))
    table, summary = partition_one_run(scores, config(absolute(4), conformal(0.05), axis=LOG_P))
    assert summary.counts == dict(zip(QUADRANTS, [5, 5, 0, 0], strict=True))
    assert table.height == 10
    assert summary.memorization_threshold == 1.0
    assert list(summary.warnings) == [
        "calibrated_drop_log_p: no sample is found at a false discovery rate of 0.05. Finding k of "
        "10 takes p-values of at most 0.05 k / 10, and the smallest is 0.1; more held-out samples "
        "(ingest.validation_fraction) allow smaller ones."
    ]


CONFORMAL = {"axis": LOG_P, "difficulty": quantile(0.5), "memorization": conformal(0.1)}
TRAIN = {"probes_per_epoch": 1, "token_losses": False, "self_influence": False}
PROBED = {"mode": "probe", "num_early": 1, "hysteresis": 0.1, "epsilon": quantile(0.3)}
USED_BY_ARMS = ("final_loss", "random")


def params_of(seeds: Sequence[int] = (0,), **score: object) -> None:
    params_with(
        partition=CONFORMAL,
        score={**PROBED, "enabled": [LOG_P, *USED_BY_ARMS], **score},
        train={**TRAIN, "seeds": seeds},
        retrain={"arms": ["none"], "seeds": [8, 9], "match": "steps"},
    )


@pytest.mark.parametrize("axis", ["synthetic_control_log_p", LOG_P])
def test_a_conformal_cut_of_one_probed_run_is_accepted(axis: str) -> None:
    params = params_with(
        partition={**CONFORMAL, "axis": axis},
        score={**PROBED, "enabled": [axis, *USED_BY_ARMS]},
        train={**TRAIN, "seeds": [0]},
        retrain={"arms": ["none"], "seeds": [8, 9], "match": "steps"},
    )
    assert params.partition.axis == axis


def test_a_conformal_cut_without_its_score_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"partition\.axis: .* got '{LOG_P}'; .*score\.enabled"):
        params_of(enabled=USED_BY_ARMS)


def test_a_conformal_cut_of_two_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected one of train\.seeds, got \[0, 1\]"):
        params_of(seeds=(0, 1))


def test_a_conformal_cut_of_online_losses_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected score\.mode: probe, got 'online'"):
        params_of(mode="online")


def test_a_conformal_cut_of_another_axis_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"axis: \w+ or {LOG_P} .*, got 'final_loss'"):
        params_with(partition={**CONFORMAL, "axis": "final_loss"})


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"partition\.memorization\.conformal\.value: .* than"):
        params_with(partition={**CONFORMAL, "memorization": conformal(rate)})


def test_stability_is_the_share_of_runs_whose_own_map_agrees() -> None:
    # Hand-made: medians of difficulty are 2, 2 and, of the means, 2.5; memorization is cut at 0.5.
    runs = [[(1.0, 0.0), (2.0, 1.0), (3.0, 0.0)], [(1.0, 1.0), (3.0, 1.0), (2.0, 0.25)]]
    tables = [
        scores_of(points).select(pl.lit(run, pl.Int64).alias("run"), *SCORES_BY_RUN.names()[1:])
        for run, points in enumerate(runs)
    ]
    means = scores_of([(1.0, 0.5), (2.5, 1.0), (2.5, 0.125)])
    table, summary = partition(means, pl.concat(tables), config(quantile(0.5), absolute(0.5)))
    assert table.rows() == [
        ("s0", "stable-easy", 0.5),  # hotspot-memorized in the second run
        ("s1", "hotspot-memorized", 0.5),  # noisy-outlier in the second run
        ("s2", "stable-easy", 0.5),  # ambiguous-hard in the first run
    ]
    assert summary.num_unstable == 3


@settings(max_examples=12)
@given(points=clouds, num_runs=st.integers(2, 4))
def test_runs_that_agree_are_stable_and_the_order_of_rows_does_not_matter(
    points: Points, num_runs: int
) -> None:
    rules = config(quantile(0.5), quantile(0.75))
    scores = scores_of(points)
    by_run = pl.concat(
        scores.select(pl.lit(run, pl.Int64).alias("run"), *SCORES_BY_RUN.names()[1:])
        for run in range(num_runs)
    )
    table, summary = partition(scores, by_run.sample(fraction=1, shuffle=True, seed=0), rules)
    alone, _ = partition_one_run(scores, rules)
    assert table["stability"].to_list() == [1.0] * len(points)
    assert summary.num_unstable == 0
    assert table.drop("stability").equals(alone.drop("stability"))
    assert alone["stability"].null_count() == len(points)


def test_a_value_that_one_run_lacks_is_low_there() -> None:
    runs: list[Points] = [[(1.0, 1.0), (3.0, 0.0)], [(1.0, None), (3.0, 0.0)]]
    tables = [
        scores_of(points).select(pl.lit(run, pl.Int64).alias("run"), *SCORES_BY_RUN.names()[1:])
        for run, points in enumerate(runs)
    ]
    means = scores_of([(1.0, 1.0), (3.0, 0.0)])
    table, _ = partition(means, pl.concat(tables), config(absolute(2.0), quantile(0.5)))
    assert table.select("quadrant", "stability").rows() == [
        ("hotspot-memorized", 0.5),
        ("ambiguous-hard", 1.0),
    ]

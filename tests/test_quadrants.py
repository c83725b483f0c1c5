"""Two thresholds cut the map: known points, numpy's quantile, and laws of the four quadrants."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.config import PartitionConfig
from gdc.errors import ConfigError, DataError
from gdc.quadrants import partition, threshold_value
from gdc.schema import QUADRANT_TABLE, QUADRANTS, SCORES

Points = Sequence[tuple[float | None, float | None]]


def scores_of(points: Points) -> pl.DataFrame:
    """A SCORES table of (difficulty, memorization) points named s0, s1, ..."""
    rows = [(f"s{i}", d, m, None, True) for i, (d, m) in enumerate(points)]
    return pl.DataFrame(rows, schema=SCORES, orient="row")


def absolute(value: float) -> dict[str, object]:
    return {"kind": "absolute", "value": value}


def quantile(value: float) -> dict[str, object]:
    return {"kind": "quantile", "value": value}


def config(
    difficulty: dict[str, object], memorization: dict[str, object], axis: str = "memorization"
) -> PartitionConfig:
    return PartitionConfig.model_validate(
        {"axis": axis, "difficulty": difficulty, "memorization": memorization}
    )


def cut(points: Points, difficulty: float, memorization: float) -> list[str]:
    table, _ = partition(scores_of(points), config(absolute(difficulty), absolute(memorization)))
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
    table, summary = partition(scores_of(points), config(quantile(0.5), quantile(0.75)))
    assert table.schema == QUADRANT_TABLE
    assert table.rows() == [
        ("s0", "ambiguous-hard"),
        ("s1", "stable-easy"),
        ("s2", "hotspot-memorized"),
        ("s3", "stable-easy"),
        ("s4", "ambiguous-hard"),
    ]
    assert {**summary, "warnings": len(summary["warnings"])} == {
        "axis": "memorization",
        "difficulty_threshold": 3.0,
        "memorization_threshold": 0.25,
        "counts": {
            "stable-easy": 2,
            "ambiguous-hard": 2,
            "hotspot-memorized": 1,
            "noisy-outlier": 0,
        },
        "warnings": 1,
    }


@given(values=st.lists(quarters, min_size=1, max_size=30), share=st.floats(0, 1))
def test_a_quantile_is_numpys_linear_one(values: list[float], share: float) -> None:
    threshold = config(quantile(share), quantile(share)).difficulty
    value = threshold_value(pl.Series(values), threshold)
    assert value == pytest.approx(np.quantile(values, share, method="linear"), rel=1e-12, abs=1e-12)


@given(points=clouds, difficulty=shares, memorization=shares)
def test_every_sample_gets_exactly_one_quadrant(
    points: Points, difficulty: float, memorization: float
) -> None:
    rules = config(quantile(difficulty), quantile(memorization))
    table, summary = partition(scores_of(points), rules)
    assert table["sample_id"].to_list() == [f"s{i}" for i in range(len(points))]
    assert table["quadrant"].is_in(QUADRANTS).all()
    assert list(summary["counts"]) == list(QUADRANTS)
    assert sum(summary["counts"].values()) == len(points)


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
    table, _ = partition(scores_of(points), config(quantile(difficulty), quantile(memorization)))
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
@given(points=clouds, difficulty=shares, memorization=shares)
def test_a_strictly_increasing_map_of_a_score_changes_no_quadrant(
    increasing: Callable[[float], float],
    points: list[tuple[float, float]],
    difficulty: float,
    memorization: float,
) -> None:
    rules = config(quantile(difficulty), quantile(memorization))
    table, _ = partition(scores_of(points), rules)
    for moved in (
        [(increasing(d), m) for d, m in points],
        [(d, increasing(m)) for d, m in points],
    ):
        assert partition(scores_of(moved), rules)[0].equals(table)


@given(points=clouds, seed=st.integers(0, 2**16))
def test_row_order_does_not_matter(points: Points, seed: int) -> None:
    scores, rules = scores_of(points), config(quantile(0.5), quantile(0.75))
    turned, summary = partition(scores.sample(fraction=1, shuffle=True, seed=seed), rules)
    table, expected = partition(scores, rules)
    assert turned.sort("sample_id").equals(table.sort("sample_id"))
    assert summary == expected


def test_the_axis_may_be_any_score() -> None:
    scores = scores_of([(1.0, 0.5), (1.0, 0.0)]).with_columns(final_loss=pl.Series([-3.0, -1.0]))
    table, summary = partition(scores, config(absolute(2.0), absolute(-2.0), axis="final_loss"))
    assert table["quadrant"].to_list() == ["stable-easy", "hotspot-memorized"]
    assert summary["axis"] == "final_loss"


def test_equal_values_are_all_low_and_the_empty_quadrants_are_counted() -> None:
    table, summary = partition(scores_of([(2.0, 0.0)] * 6), config(quantile(0.5), quantile(0.9)))
    assert table["quadrant"].unique().to_list() == ["stable-easy"]
    assert list(summary["counts"].values()) == [6, 0, 0, 0]


def warnings_of(memorization: Sequence[float], threshold: dict[str, object]) -> list[str]:
    points = [(float(i), m) for i, m in enumerate(memorization)]
    warnings: list[str] = partition(scores_of(points), config(absolute(2), threshold))[1][
        "warnings"
    ]
    return warnings


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
        partition(scores_of([(1.0, 0.0)]), config(absolute(0), absolute(0), axis=axis))


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("axis", ["difficulty", "memorization"])
def test_a_sample_without_a_value_is_refused_and_named(axis: str, missing: float | None) -> None:
    point = (missing, 0.0) if axis == "difficulty" else (1.0, missing)
    with pytest.raises(DataError, match=rf"scores.parquet: 1 samples have no {axis}, first s1\."):
        partition(scores_of([(1.0, 0.0), point]), config(quantile(0.5), quantile(0.5)))

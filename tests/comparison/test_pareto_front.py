"""The front of leakage against perplexity: hand-made points, an oracle, laws, equal bytes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.comparison.pareto_front import front_of, lines_of, non_dominated, series_of
from gdc.report.plots import front_png


def top(fraction: float, weight: float = 0.0, score: str = "iqr") -> dict[str, Any]:
    rule = {"rule": "top-fraction", "score": score, "tie_break": "random"}
    return {**rule, "fraction": fraction, "weight": weight}


# Rule, ratio of perplexities, extraction.
ARMS: dict[str, tuple[dict[str, Any], float, float]] = {
    "none": ({"rule": "none"}, 1.0, 1.0),
    "top-10": (top(0.1), 1.5, 0.25),
    "top-5": (top(0.05), 1.25, 0.5),
    "half": (top(0.05, weight=0.5), 1.5, 0.75),
    "random": ({"rule": "random", "fraction": 0.05, "weight": 0.0}, 1.25, 1.0),
    "oracle": ({"rule": "oracle"}, 0.75, 0.0),
}


def interval(value: float) -> dict[str, Any]:
    return {"value": value, "low": value / 2, "high": value * 2, "num_seeds": 3}


def report_of(arms: dict[str, tuple[dict[str, Any], float, float]]) -> dict[str, Any]:
    return {
        "baseline": "none",
        "arms": [{"arm": arm, "num_changed": 7, "num_dropped": 5} for arm in arms],
        "evidence": {
            arm: {
                "perplexity_ratio": interval(ratio),
                "canaries": {"planted": {"extracted": interval(extracted)}},
            }
            for arm, (_, ratio, extracted) in arms.items()
        },
        "settings": {"intervene": {"arms": {arm: rule for arm, (rule, *_) in arms.items()}}},
    }


def test_the_front_comes_first_and_the_oracle_beats_nobody() -> None:
    points = front_of(report_of(ARMS))
    assert [(p["arm"], p["is_on_front"]) for p in points] == [
        ("none", True),
        ("top-5", True),
        ("top-10", True),
        ("oracle", False),
        ("random", False),
        ("half", False),
    ]
    assert points[1] == {
        "arm": "top-5",
        "rule": "top-fraction",
        "series": "top-fraction iqr",
        "fraction": 0.05,
        "num_changed": 7,
        "num_dropped": 5,
        "perplexity_change": {"value": 0.25, "low": -0.375, "high": 1.5, "num_seeds": 3},
        "extraction": interval(0.5),
        "is_baseline": False,
        "is_on_front": True,
    }
    assert [p["arm"] for p in points if p["is_baseline"]] == ["none"]


def test_arms_of_one_rule_score_and_weight_are_a_series_by_fraction() -> None:
    rules = {
        "a": top(0.1), "b": top(0.05), "c": top(0.1, 0.5), "d": top(0.2, 0.5),
        "e": top(0.1, score="std"), "f": {"rule": "none"},
    }  # fmt: skip
    assert series_of(rules) == {
        "a": "top-fraction iqr",
        "b": "top-fraction iqr",
        "c": "top-fraction iqr weight 0.5",
        "d": "top-fraction iqr weight 0.5",
    }
    other = {"g": top(0.1) | {"tie_break": "std"}, "h": top(0.2) | {"tie_break": "std"}}
    ties = series_of({name: rules[name] for name in "ab"} | other)
    assert ties["a"] == ties["b"] == "top-fraction iqr, random"
    assert ties["g"] == ties["h"] == "top-fraction iqr, std"
    lines = lines_of(front_of(report_of(ARMS)))
    assert {name: [p["arm"] for p in line] for name, line in lines.items()} == {
        "half": ["half"],
        "none": ["none"],
        "oracle": ["oracle"],
        "random": ["random"],
        "top-fraction iqr": ["top-5", "top-10"],
    }


def test_an_arm_without_both_measures_is_left_out() -> None:
    report = report_of(ARMS)
    report["evidence"]["top-5"]["perplexity_ratio"] = None
    report["evidence"]["half"]["canaries"]["planted"]["extracted"] = None
    del report["evidence"]["random"]
    assert {p["arm"] for p in front_of(report)} == {"none", "top-10", "oracle"}


places = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float)),
)


@given(drawn=places)
def test_who_is_not_dominated_matches_a_plain_loop(
    drawn: dict[str, tuple[float, float]],
) -> None:
    beaten = set()
    for name, (x, y) in drawn.items():
        for a, b in drawn.values():
            if (a < x and b <= y) or (a <= x and b < y):
                beaten.add(name)
    assert non_dominated(drawn) == set(drawn) - beaten


@given(drawn=places)
def test_somebody_is_on_the_front_and_equals_are_together(
    drawn: dict[str, tuple[float, float]],
) -> None:
    best = non_dominated(drawn)
    assert bool(best) == bool(drawn)
    assert {drawn[name] for name in best}.isdisjoint(
        {place for name, place in drawn.items() if name not in best}
    )


@pytest.mark.parametrize("arms", [ARMS, {}], ids=["arms", "nothing measured"])
def test_the_picture_is_the_same_bytes_each_time(
    tmp_path: Path, arms: dict[str, tuple[dict[str, Any], float, float]]
) -> None:
    for name in ("a.png", "b.png"):
        front_png(front_of(report_of(arms)), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first

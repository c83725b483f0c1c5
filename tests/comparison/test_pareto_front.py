"""The Pareto front of leakage and perplexity: hand-made points, an oracle, laws, equal bytes."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdc.comparison.pareto_front import lines_of, non_dominated, pareto_front, series_of
from gdc.comparison.results import ArmAudits, FrontPoint
from gdc.config import Arm, NoneArm, OracleArm, RandomArm, TopFractionArm
from gdc.report.plots import front_png
from gdc.statistics.bootstrap import Measured
from tests.comparison.builders import arm_audits, arm_result, around


def top(
    fraction: float, weight: float = 0.0, score: str = "iqr", tie_break: str = "random"
) -> TopFractionArm:
    return TopFractionArm(
        rule="top-fraction", score=score, tie_break=tie_break, fraction=fraction, weight=weight
    )


# Rule, ratio of perplexities, extraction.
ARMS: dict[str, tuple[Arm, float, float]] = {
    "none": (NoneArm(rule="none"), 1.0, 1.0),
    "top-10": (top(0.1), 1.5, 0.25),
    "top-5": (top(0.05), 1.25, 0.5),
    "half": (top(0.05, weight=0.5), 1.5, 0.75),
    "random": (RandomArm(rule="random", fraction=0.05, weight=0.0), 1.25, 1.0),
    "oracle": (OracleArm(rule="oracle"), 0.75, 0.0),
}


def audits_of(arms: dict[str, tuple[Arm, float, float]]) -> dict[str, ArmAudits]:
    return {
        arm: arm_audits(extracted=around(extracted), perplexity_ratio=around(ratio))
        for arm, (_, ratio, extracted) in arms.items()
    }


def points_of(
    arms: dict[str, tuple[Arm, float, float]], audits: dict[str, ArmAudits] | None = None
) -> list[FrontPoint]:
    results = [arm_result(arm) for arm in arms]
    rules = {arm: rule for arm, (rule, *_) in arms.items()}
    return pareto_front(results, audits_of(arms) if audits is None else audits, rules, "none")


def test_arms_on_the_front_come_first_and_the_oracle_dominates_none() -> None:
    points = points_of(ARMS)
    assert [(p.arm, p.is_on_front) for p in points] == [
        ("none", True),
        ("top-5", True),
        ("top-10", True),
        ("oracle", False),
        ("random", False),
        ("half", False),
    ]
    assert points[1] == FrontPoint(
        arm="top-5",
        rule="top-fraction",
        series="top-fraction iqr",
        fraction=0.05,
        num_changed=7,
        num_dropped=5,
        perplexity_change=Measured(0.25, -0.375, 1.5, 3),
        extraction=around(0.5),
        is_baseline=False,
        is_on_front=True,
    )
    assert [p.arm for p in points if p.is_baseline] == ["none"]


def test_arms_of_one_rule_score_and_weight_are_a_series_by_fraction() -> None:
    rules: dict[str, Arm] = {
        "a": top(0.1), "b": top(0.05), "c": top(0.1, 0.5), "d": top(0.2, 0.5),
        "e": top(0.1, score="std"), "f": NoneArm(rule="none"),
    }  # fmt: skip
    assert series_of(rules) == {
        "a": "top-fraction iqr",
        "b": "top-fraction iqr",
        "c": "top-fraction iqr weight 0.5",
        "d": "top-fraction iqr weight 0.5",
    }
    other: dict[str, Arm] = {"g": top(0.1, tie_break="std"), "h": top(0.2, tie_break="std")}
    ties = series_of({name: rules[name] for name in "ab"} | other)
    assert ties["a"] == ties["b"] == "top-fraction iqr, random"
    assert ties["g"] == ties["h"] == "top-fraction iqr, std"
    lines = lines_of(points_of(ARMS))
    assert {name: [p.arm for p in line] for name, line in lines.items()} == {
        "half": ["half"],
        "none": ["none"],
        "oracle": ["oracle"],
        "random": ["random"],
        "top-fraction iqr": ["top-5", "top-10"],
    }


def test_an_arm_without_both_measures_is_left_out() -> None:
    audits = audits_of(ARMS)
    audits["top-5"] = replace(audits["top-5"], perplexity_ratio=None)
    audits["half"] = arm_audits(extracted=None, perplexity_ratio=around(1.5))
    del audits["random"]
    assert {p.arm for p in points_of(ARMS, audits)} == {"none", "top-10", "oracle"}


places = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float)),
)


@given(drawn=places)
def test_the_arms_on_the_front_match_a_plain_loop(
    drawn: dict[str, tuple[float, float]],
) -> None:
    beaten = set()
    for name, (x, y) in drawn.items():
        for a, b in drawn.values():
            if (a < x and b <= y) or (a <= x and b < y):
                beaten.add(name)
    assert non_dominated(drawn) == set(drawn) - beaten


@given(drawn=places)
def test_the_front_is_never_empty_and_equal_arms_share_it(
    drawn: dict[str, tuple[float, float]],
) -> None:
    best = non_dominated(drawn)
    assert bool(best) == bool(drawn)
    assert {drawn[name] for name in best}.isdisjoint(
        {place for name, place in drawn.items() if name not in best}
    )


@pytest.mark.parametrize("arms", [ARMS, {}], ids=["arms", "nothing measured"])
def test_the_picture_is_the_same_bytes_each_time(
    tmp_path: Path, arms: dict[str, tuple[Arm, float, float]]
) -> None:
    for name in ("a.png", "b.png"):
        front_png(points_of(arms), tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first
